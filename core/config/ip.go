package config

import (
	"net/netip"

	"github.com/goccy/go-yaml/ast"
)

// IP lets clients pass by their address: not those in Deny, and of the others, if there is Allow, only those in it.
type IP struct{ Allow, Deny []netip.Prefix }

// maxNetworks bounds each list.
const maxNetworks = 100_000

func (d *decoder) ip(key string, n ast.Node) *IP {
	p := &IP{}
	before := d.errors
	ok := d.mapping(key, n, "allow deny", func(key string, k, v ast.Node) bool {
		to := &p.Allow
		switch key {
		case "allow":
		case "deny":
			to = &p.Deny
		default:
			return false
		}
		if d.prefixes(key, v, to); len(*to) > maxNetworks {
			d.problem(k, "", "%q has more than %d entries", key, maxNetworks)
		}
		return true
	})
	if ok && d.errors == before && len(p.Allow)+len(p.Deny) == 0 {
		d.problem(n, "ip: { allow: [10.0.0.0/8] }", "%q names no network", key)
	}
	return p
}

func (w *dumper) ip(p *IP) {
	w.block("ip:", func() {
		if len(p.Allow) > 0 {
			w.line("allow: %s", prefixList(p.Allow))
		}
		if len(p.Deny) > 0 {
			w.line("deny: %s", prefixList(p.Deny))
		}
	})
}
