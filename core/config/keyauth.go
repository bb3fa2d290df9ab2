package config

import (
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// KeyAuth lets requests pass that bear the API key of a consumer.
type KeyAuth struct {
	Carrier  Carrier  // header X-API-Key where nothing is written
	Prefixes []string // what a key begins with, one of them; another is refused, whosever it is. At most 8; empty: anything
	Hide     bool     // the upstream does not get the key; true
	Optional bool     // a request without a key passes too, with a wrong one it does not; false
}

const maxKeyPrefixes = 8

// keyAuth reads on, or a map.
func (d *decoder) keyAuth(key string, n ast.Node) *KeyAuth {
	k := &KeyAuth{Hide: true}
	if n = d.resolve(n); n == nil {
		return k
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
	} else {
		d.mapping(key, n, "header scheme cookie query prefix hide optional", func(key string, _, v ast.Node) bool {
			switch key {
			case "prefix":
				d.keyPrefixes(key, v, k)
			case "hide":
				d.boolean(key, v, &k.Hide)
			case "optional":
				d.boolean(key, v, &k.Optional)
			default:
				return d.carrier(key, v, &k.Carrier)
			}
			return true
		})
	}
	k.Carrier.settle("X-API-Key")
	return k
}

// keyPrefixes reads what keys begin with.
func (d *decoder) keyPrefixes(key string, n ast.Node, k *KeyAuth) {
	d.list(key, n, func(v ast.Node) {
		var s string
		switch {
		case !d.text(key, v, &s):
		case !isName(s) || len(s) > maxKeyID:
			d.problem(v, "", "%q must have from 1 to %d letters, digits, and behind the first of them '.', '_' and '-', not %q", key, maxKeyID, clip(s))
		case slices.Contains(k.Prefixes, s):
			d.problem(v, "", "%q has %q twice", key, s)
		case len(k.Prefixes) == maxKeyPrefixes:
			d.problem(v, "", "%q has more than %d entries", key, maxKeyPrefixes)
		default:
			k.Prefixes = append(k.Prefixes, s)
		}
	})
}

// Authenticates says whether the policy finds out who the consumer is.
func (p *Policy) Authenticates() bool {
	for one := range p.parts {
		if one.KeyAuth != nil || one.MTLS != nil || one.JWT != nil || one.Basic != nil || one.Introspect != nil || one.HMAC != nil || one.OIDC != nil {
			return true
		}
	}
	return false
}

// derives says whether the policy makes consumers that the configuration does not name.
func (p *Policy) derives() bool {
	for one := range p.parts {
		if one.JWT != nil || one.Introspect != nil || one.OIDC != nil {
			return true
		}
	}
	return false
}

// policies gives the policies of a route that exist, in order.
func (l *loader) policies(r *Route, yield func(u *Use, p *Policy)) {
	for i := range r.Use {
		u := &r.Use[i]
		if u.Inline != nil {
			yield(u, u.Inline)
		} else if at, ok := l.policyAt[u.Name]; ok {
			yield(u, &l.cfg.Policies[at])
		}
	}
}

// checkIdentity warns of policies that let nobody pass, since no consumer has what they ask for.
func (l *loader) checkIdentity() {
	keys, logins, signers := false, false, false
	l.cfg.AllConsumers(func(c *Consumer) bool {
		keys, logins = keys || len(c.Keys) > 0, logins || len(c.Basic) > 0
		signers = signers || len(c.Signatures) > 0
		return !keys || !logins || !signers
	})
	for i := range l.cfg.Routes {
		warn := func(u *Use, p *Policy) {
			if p.KeyAuth != nil && !keys && l.cfg.ConsumersFile.Path == "" {
				l.warnAt(u.Pos, "consumers: { NAME: { keys: ... } }", "nobody passes %q: no consumer has a key", "keyauth")
			}
			if p.Basic != nil && !logins && l.cfg.ConsumersFile.Path == "" {
				l.warnAt(u.Pos, "consumers: { NAME: { basic: ... } }", "nobody passes %q: no consumer has a password", "basic")
			}
			if p.HMAC != nil && !signers && l.cfg.ConsumersFile.Path == "" {
				l.warnAt(u.Pos, "consumers: { NAME: { signatures: ... } }", "nobody passes %q: no consumer has a key for signatures", "hmac")
			}
		}
		l.policies(&l.cfg.Routes[i], func(u *Use, p *Policy) {
			for one := range p.parts {
				warn(u, one)
			}
		})
	}
}

// identity writes the kinds that find out who is calling, and say whether he may.
func (w *dumper) identity(p *Policy) {
	if p.KeyAuth != nil {
		w.keyAuth(p.KeyAuth)
	}
	if p.MTLS != nil {
		w.line("mtls: { optional: %t }", p.MTLS.Optional)
	}
	if p.JWT != nil {
		w.jwt(p.JWT)
	}
	if b := p.Basic; b != nil {
		w.line("basic: { realm: %s, hide: %t, optional: %t }", quote(b.Realm), b.Hide, b.Optional)
	}
	if p.Introspect != nil {
		w.introspect(p.Introspect)
	}
	if p.OIDC != nil {
		w.oidc(p.OIDC)
	}
	if p.HMAC != nil {
		w.hmac(p.HMAC)
	}
	if len(p.Any) > 0 {
		w.either("any", p.Any)
	}
	if len(p.All) > 0 {
		w.either("all", p.All)
	}
	if p.Forward != nil {
		w.forwardAuth(p.Forward)
	}
	if p.ExtAuthz != nil {
		w.extAuthz(p.ExtAuthz)
	}
	if p.IP != nil {
		w.ip(p.IP)
	}
	if p.Access != nil {
		w.access(p.Access)
	}
}

func (w *dumper) keyAuth(k *KeyAuth) {
	prefix := ""
	if len(k.Prefixes) > 0 {
		prefix = "prefix: " + quoteList(k.Prefixes) + ", "
	}
	w.line("keyauth: { %s%shide: %t, optional: %t }", k.Carrier.text(), prefix, k.Hide, k.Optional)
}
