package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// TLSPolicy is how the TLS of some server names of a listener differs from that of the rest. The name itself goes before the
// longest wildcard.
type TLSPolicy struct {
	Pos        Pos
	Names      []Host // at least one; a wildcard covers one label or more
	MinVersion string // 1.2, 1.3; as the listener's unless given
	// Ciphers are the listener's unless given; none where MinVersion is 1.3.
	Ciphers []string
	// ClientAuth is the listener's unless given; nil where the file says `client_auth: false`, or where the listener has none.
	ClientAuth *ClientAuth
	Protocols  Protocols // h1, h2; none: the listener's
}

const (
	policyKeys     = "names min_version ciphers client_auth protocols"
	maxTLSPolicies = 1000
	maxPolicyNames = 10_000 // of all policies of a listener
)

// policies reads a list of policies, when all else of the listener's TLS has been read.
func (d *decoder) policies(key string, n ast.Node, t *TLS) {
	seen := map[string]Pos{}
	d.list(key, n, func(v ast.Node) {
		if len(t.Policies) == maxTLSPolicies {
			d.problem(v, "", "%q has more than %d entries", key, maxTLSPolicies)
			return
		}
		if v = d.resolve(v); v != nil {
			t.Policies = append(t.Policies, d.tlsPolicy(v, t, seen))
		}
	})
}

func (d *decoder) tlsPolicy(n ast.Node, t *TLS, seen map[string]Pos) TLSPolicy {
	p := TLSPolicy{Pos: d.at(n), MinVersion: t.MinVersion, Ciphers: t.Ciphers, ClientAuth: t.ClientAuth}
	named, differs := false, false
	var ciphersAt Pos
	ok := d.mapping("policies", n, policyKeys, func(key string, k, v ast.Node) bool {
		differs = differs || key != "names"
		switch key {
		case "names":
			named = true
			d.list(key, v, func(v ast.Node) { d.policyName(key, v, &p, seen) })
		case "min_version":
			d.version(key, v, &p.MinVersion)
		case "ciphers":
			ciphersAt = d.at(k)
			d.ciphers(key, v, &p.Ciphers)
		case "client_auth":
			if b, off := d.resolve(v).(*ast.BoolNode); off && !b.Value {
				p.ClientAuth = nil
				return true
			}
			var own TLS
			d.clientAuth(key, v, &own)
			p.ClientAuth = own.ClientAuth
		case "protocols":
			d.protocols(key, v, &p.Protocols)
			if p.Protocols.H2C {
				d.problem(v, "write h2", "%q is spoken without TLS", "h2c")
			}
		default:
			return false
		}
		return true
	})
	if p.MinVersion == "1.3" {
		if ciphersAt.Line > 0 {
			d.idleCiphers(ciphersAt)
		}
		p.Ciphers = nil
	}
	switch {
	case !ok:
	case !named:
		d.problem(n, `add names: ["*.bank.example"]`, "a policy has no %q", "names")
	case !differs:
		d.problem(n, "add min_version, ciphers, client_auth or protocols", "the policy says nothing of its names")
	}
	return p
}

func (d *decoder) policyName(key string, n ast.Node, p *TLSPolicy, seen map[string]Pos) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	var h Host
	if d.host(n, s, 0, len(s), &h); h.Name == "" {
		if s == "*" {
			d.problem(n, "write it beside policies, for all other names", "%q is no server name", s)
		}
		return
	}
	if strings.HasPrefix(h.Name, "[") {
		d.problem(n, "", "clients send no address as a server name")
		return
	}
	if first, twice := seen[h.String()]; twice {
		d.problem(n, "", "server name %q stands in a policy already; first at %s", h, first)
		return
	}
	if len(seen) == maxPolicyNames {
		d.problem(n, "", "the policies of a listener have at most %d names", maxPolicyNames)
		return
	}
	seen[h.String()] = d.at(n)
	p.Names = append(p.Names, h)
}

func (w *dumper) tlsPolicy(p *TLSPolicy) {
	names := make([]string, len(p.Names))
	for i, h := range p.Names {
		names[i] = h.String()
	}
	w.line("names: %s", quoteList(names))
	w.line("min_version: %s", quote(p.MinVersion))
	w.ciphers(p.Ciphers)
	if p.ClientAuth == nil {
		w.line("client_auth: false")
	} else {
		w.clientAuth(p.ClientAuth)
	}
	if list := p.Protocols.names(); len(list) > 0 {
		w.line("protocols: [%s]", strings.Join(list, ", "))
	}
}
