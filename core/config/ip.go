package config

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// IP lets clients pass by their address: not those in a Deny, and of the others, if there is an Allow, only those in one.
type IP struct {
	Allow, Deny Networks
	Countries   *Countries // nil: nobody's country is looked for
}

// Countries are lists of countries, and where addresses are. With empty lists countries are looked for, and everybody passes.
type Countries struct {
	File        string   // a MaxMind DB, by an absolute path
	Allow, Deny []string // codes of two capitals (ISO 3166-1)
	Unknown     string   // "allow" or "deny": a client whose country is not known is as if it stood there; "": in neither
}

func (d *decoder) ip(key string, n ast.Node) *IP {
	p := &IP{}
	before := d.errors
	ok := d.mapping(key, n, "allow deny countries", func(key string, _, v ast.Node) bool {
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
		d.networks(key, v, to)
		return true
	})
	if ok && d.errors == before && !p.Allow.Given() && !p.Deny.Given() && p.Countries == nil {
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

func (w *dumper) ip(p *IP) {
	w.block("ip:", func() {
		if p.Allow.Given() {
			w.line("allow: %s", p.Allow.text())
		}
		if p.Deny.Given() {
			w.line("deny: %s", p.Deny.text())
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
