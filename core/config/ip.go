package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// IP lets clients pass by their address: not those in a Deny, and of the others, if there is an Allow, only those in one.
type IP struct {
	Allow, Deny []netip.Prefix
	Countries   *Countries // nil: nobody's country is looked for
}

// Countries are lists of countries, and where addresses are. With empty lists countries are looked for, and everybody passes.
type Countries struct {
	File        string   // a MaxMind DB, by an absolute path
	Allow, Deny []string // codes of two capitals (ISO 3166-1)
	Unknown     string   // "allow" or "deny": a client whose country is not known is as if it stood there; "": in neither
}

// maxNetworks bounds each list.
const maxNetworks = 100_000

func (d *decoder) ip(key string, n ast.Node) *IP {
	p := &IP{}
	before := d.errors
	ok := d.mapping(key, n, "allow deny countries", func(key string, k, v ast.Node) bool {
		to := &p.Allow
		switch key {
		case "countries":
			p.Countries = d.countries(key, v)
			return true
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
	if ok && d.errors == before && len(p.Allow)+len(p.Deny) == 0 && p.Countries == nil {
		d.problem(n, "ip: { allow: [10.0.0.0/8] }", "%q names no network", key)
	}
	return p
}

// countries reads lists of countries. The database is read when the configuration is compiled.
func (d *decoder) countries(key string, n ast.Node) *Countries {
	c := &Countries{}
	before := d.errors
	ok := d.mapping(key, n, "file allow deny unknown", func(key string, _, v ast.Node) bool {
		switch key {
		case "file":
			if d.text(key, v, &c.File) && (!filepath.IsAbs(c.File) || filepath.Clean(c.File) != c.File || strings.ContainsRune(c.File, 0)) {
				d.problem(v, "write /path", "the path of a database must be absolute, not %q", clip(c.File))
			}
		case "allow":
			d.words(key, v, &c.Allow, d.countryCode)
		case "deny":
			d.words(key, v, &c.Deny, d.countryCode)
		case "unknown":
			d.word(key, v, "allow deny", &c.Unknown)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && c.File == "" {
		d.problem(n, "countries: { file: /path, allow: [DE, AT] }", "%q lacks a file", key)
	}
	for i, code := range c.Deny {
		if slices.Contains(c.Allow, code) || slices.Contains(c.Deny[:i], code) {
			d.problem(n, "", "%q stands twice in %q", code, key)
		}
	}
	return c
}

// countryCode checks what a code looks like: which there are says the database.
func (d *decoder) countryCode(v ast.Node, s string) bool {
	if len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z' {
		return true
	}
	d.problem(v, `write two capitals, such as "DE"`, "%q is no code of a country (ISO 3166-1)", clip(s))
	return false
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
		if c := p.Countries; c != nil {
			w.block("countries:", func() {
				w.line("file: %s", quote(c.File))
				w.optionalList("allow", c.Allow)
				w.optionalList("deny", c.Deny)
				if c.Unknown != "" {
					w.line("unknown: %s", c.Unknown)
				}
			})
		}
	})
}
