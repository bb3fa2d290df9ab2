package config

import (
	"slices"

	"github.com/goccy/go-yaml/ast"
)

const (
	// maxEither bounds the policies of which one is enough, and those of one of them that must all let pass.
	maxEither  = 4
	eitherHint = "one of keyauth, basic, mtls, jwt, introspect, hmac, oidc, or all: [...] of them, ip and access"
)

// either reads policies that find out who a consumer is, each written out, in the order in which they are asked.
func (d *decoder) either(key string, n ast.Node) []Policy {
	return d.several(key, n, "any: [{ jwt: ... }, { keyauth: on }]", func(p *Policy) {
		switch {
		case p.Any != nil || !p.Authenticates() && p.All == nil:
			d.problemAt(p.Pos, eitherHint, "%q has policies that find out who a consumer is", key)
		case p.All == nil && p.optional():
			d.problemAt(p.Pos, "leave optional out", "a policy that is optional lets everybody pass, and so does %q", key)
		}
	})
}

// all reads policies that must all let a request pass, where that is one way of several. One of them at least finds out who a consumer is.
func (d *decoder) all(key string, n ast.Node) []Policy {
	before := d.errors
	all := d.several(key, n, "all: [{ jwt: ... }, { ip: ... }]", func(p *Policy) {
		if p.Any != nil || p.All != nil || !p.Authenticates() && p.IP == nil && p.Access == nil {
			d.problemAt(p.Pos, "one of keyauth, basic, mtls, jwt, introspect, hmac, oidc, ip, access", "%q has policies that find out who a consumer is, or judge him", key)
		}
	})
	if d.errors == before && !slices.ContainsFunc(all, func(p Policy) bool { return p.Authenticates() && !p.optional() }) {
		d.problem(n, "add keyauth, or another policy that finds a consumer, and is not optional", "%q lets pass whom nobody knows", key)
	}
	return all
}

// several reads a list of policies that are written out.
func (d *decoder) several(key string, n ast.Node, hint string, check func(p *Policy)) []Policy {
	list := []Policy{}
	before := d.errors
	d.list(key, n, func(v ast.Node) {
		if v = d.resolve(v); v == nil {
			return
		}
		p := Policy{Pos: d.at(v)}
		if !d.policyKind("the policy", v, &p) {
			return
		}
		if len(list) == maxEither {
			d.problemAt(p.Pos, "", "%q has at most %d policies", key, maxEither)
			return
		}
		check(&p)
		list = append(list, p)
	})
	if d.errors == before && len(list) < 2 {
		d.problem(n, hint, "%q has two policies at least", key)
	}
	return list
}

// alone refuses a policy of kind all where it is not one of several.
func (d *decoder) alone(p *Policy) {
	if p.All != nil {
		d.problemAt(p.Pos, "list them in use: it wants all of them", "%q stands in %q only", "all", "any")
	}
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

// parts gives the policy and those that are written within it.
func (p *Policy) parts(yield func(*Policy) bool) {
	if !yield(p) {
		return
	}
	for _, list := range [][]Policy{p.Any, p.All} {
		for i := range list {
			for part := range list[i].parts {
				if !yield(part) {
					return
				}
			}
		}
	}
}

func (w *dumper) either(key string, all []Policy) {
	w.block(key+":", func() {
		for i := range all {
			w.item(func() { w.identity(&all[i]) })
		}
	})
}
