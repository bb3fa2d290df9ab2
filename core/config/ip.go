package config

import (
	"net/netip"
	"strings"

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
		if d.networks(key, v, to); len(*to) > maxNetworks {
			d.problem(k, "", "%q has more than %d entries", key, maxNetworks)
		}
		return true
	})
	if ok && d.errors == before && len(p.Allow)+len(p.Deny) == 0 {
		d.problem(n, "ip: { allow: [10.0.0.0/8] }", "%q names no network", key)
	}
	return p
}

// networks reads networks, and files of them: one in a line, what follows a # is a remark. A file is read again by a reload.
func (d *decoder) networks(key string, n ast.Node, to *[]netip.Prefix) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		s, ok := v.(*ast.StringNode)
		if !ok || !strings.HasPrefix(s.Value, "file:") {
			d.prefixes(key, v, to)
			return
		}
		path := strings.TrimPrefix(s.Value, "file:")
		if !strings.HasPrefix(path, "/") {
			d.problem(v, "write file:/path", "the path of a reference must be absolute, not %q", clip(path))
			return
		}
		text, err := d.env.readFile(path)
		if err != nil {
			d.problem(v, "", "cannot read %q: %s", clip(path), cause(err))
			return
		}
		d.networksFile(v, path, string(text), to)
	})
}

// networksFile reads the lines of a file. The first that is wrong is told of.
func (d *decoder) networksFile(n ast.Node, path, text string, to *[]netip.Prefix) {
	line := 0
	for one := range strings.SplitSeq(text, "\n") {
		line++
		one, _, _ = strings.Cut(one, "#")
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(one)
		if addr, addrErr := netip.ParseAddr(one); err != nil && addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
			d.problem(n, `write "10.0.0.0/8", "fd00::/8" or an address`, "%s:%d: %q is no CIDR", clip(path), line, clip(one))
			return
		}
		if *to = append(*to, prefix); len(*to) > maxNetworks {
			return // whoever asked says so
		}
	}
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
