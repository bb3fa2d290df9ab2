package config

import "github.com/goccy/go-yaml/ast"

// maxEither bounds the policies of which one is enough.
const maxEither = 4

// either reads policies that find out who a consumer is, each written out, in the order in which they are asked.
func (d *decoder) either(key string, n ast.Node) []Policy {
	all := []Policy{}
	before := d.errors
	d.list(key, n, func(v ast.Node) {
		if v = d.resolve(v); v == nil {
			return
		}
		p := Policy{Pos: d.at(v)}
		switch {
		case !d.policyKind("the policy", v, &p):
		case p.Any != nil || !p.authenticates():
			d.problemAt(p.Pos, "one of keyauth, basic, mtls, jwt, introspect, hmac, oidc", "%q has policies that find out who a consumer is", key)
		case p.optional():
			d.problemAt(p.Pos, "leave optional out", "a policy that is optional lets everybody pass, and so does %q", key)
		case len(all) == maxEither:
			d.problemAt(p.Pos, "", "%q has at most %d policies", key, maxEither)
		default:
			all = append(all, p)
		}
	})
	if d.errors == before && len(all) < 2 {
		d.problem(n, "any: [{ jwt: ... }, { keyauth: on }]", "%q has two policies at least", key)
	}
	return all
}

// optional says whether a request without a credential passes.
func (p *Policy) optional() bool {
	switch {
	case p.KeyAuth != nil:
		return p.KeyAuth.Optional
	case p.Basic != nil:
		return p.Basic.Optional
	case p.MTLS != nil:
		return p.MTLS.Optional
	case p.JWT != nil:
		return p.JWT.Optional
	case p.Introspect != nil:
		return p.Introspect.Optional
	case p.HMAC != nil:
		return p.HMAC.Optional
	}
	return false
}

func (w *dumper) either(all []Policy) {
	w.block("any:", func() {
		for i := range all {
			w.item(func() { w.identity(&all[i]) })
		}
	})
}
