package config

import (
	"maps"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// Access says who may use a route: nobody of whom anything of Deny is true; of the others whoever is in any list of Allow, if there is one; and
// of those whoever meets all of the rest.
type Access struct {
	Allow   People
	Deny    Denied
	Scopes  []string // that the token has, all of them
	Claims  []RequiredClaim
	Methods []string // any of them; empty: any
	When    string   // an expression that must be true; "": none

	asks []string // claims that When names
}

// Denied is who may not: whoever is in any of the lists, or whose token has any of the scopes, or a claim with one of its values; and requests
// with any of the methods.
type Denied struct {
	People
	Scopes  []string
	Claims  []RequiredClaim
	Methods []string
}

// People are consumers in any of the lists.
type People struct {
	Groups    []string
	Roles     []string
	Consumers []string
	Tiers     []string

	named []reference // of Consumers
}

const (
	// maxAccess bounds each list.
	maxAccess  = 10_000
	peopleKeys = "groups roles consumers tiers"
	deniedKeys = peopleKeys + " scopes claims methods"
	accessKeys = deniedKeys + " deny when"
)

func (p *People) empty() bool { return len(p.Groups)+len(p.Roles)+len(p.Consumers)+len(p.Tiers) == 0 }

func (f *Denied) empty() bool {
	return f.People.empty() && len(f.Scopes)+len(f.Claims)+len(f.Methods) == 0
}

func (d *decoder) access(key string, n ast.Node) *Access {
	a := &Access{}
	before := d.errors
	ok := d.mapping(key, n, accessKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "deny":
			d.denied(key, v, &a.Deny)
		case "when":
			d.condition(key, v, a)
		default:
			return d.asked(key, v, &a.Scopes, &a.Claims, &a.Methods) || d.people(key, v, &a.Allow)
		}
		return true
	})
	if ok && d.errors == before && a.Allow.empty() && a.Deny.empty() && len(a.Scopes)+len(a.Claims)+len(a.Methods)+len(a.When) == 0 {
		d.problem(n, "access: { groups: [partners] }", "%q lets nobody pass", key)
	}
	return a
}

func (d *decoder) denied(key string, n ast.Node, f *Denied) {
	before := d.errors
	ok := d.mapping(key, n, deniedKeys, func(key string, _, v ast.Node) bool {
		return d.asked(key, v, &f.Scopes, &f.Claims, &f.Methods) || d.people(key, v, &f.People)
	})
	if ok && d.errors == before && f.empty() {
		d.problem(n, "deny: { groups: [banned] }", "%q denies nobody", key)
	}
}

// asked reads what is asked of a token or a request.
func (d *decoder) asked(key string, n ast.Node, scopes *[]string, claims *[]RequiredClaim, methods *[]string) bool {
	switch key {
	case "scopes":
		d.claimTexts(key, n, scopes)
	case "claims":
		d.requiredClaims(key, n, claims)
	case "methods":
		d.list(key, n, func(v ast.Node) {
			var s string
			if d.text(key, v, &s) && d.token(key, v, s) && d.room(key, v, len(*methods)) {
				*methods = append(*methods, s)
			}
		})
	default:
		return false
	}
	return true
}

// people reads one of the lists.
func (d *decoder) people(key string, n ast.Node, p *People) bool {
	to := map[string]*[]string{"groups": &p.Groups, "roles": &p.Roles, "consumers": &p.Consumers, "tiers": &p.Tiers}[key]
	if to == nil {
		return false
	}
	d.list(key, n, func(v ast.Node) {
		var s string
		switch {
		case !d.text(key, v, &s):
		case s == "" || len(s) > maxClaimBytes || hasControl(s):
			d.problem(v, "", "nobody has %q in %q", clip(s), key)
		case len(*to) == maxAccess:
			d.problem(v, "", "%q has more than %d entries", key, maxAccess)
		default:
			*to = append(*to, s)
			if key == "consumers" {
				p.named = append(p.named, reference{name: s, pos: d.at(v)})
			}
		}
	})
	return true
}

// asked are the claims that it looks at.
func (a *Access) asked() (names []string) {
	if len(a.Scopes)+len(a.Deny.Scopes) > 0 {
		names = append(names, "scope", "scp")
	}
	for _, r := range slices.Concat(a.Claims, a.Deny.Claims) {
		names = append(names, r.Claim)
	}
	return append(names, a.asks...)
}

// checkAccess refuses policies that nobody can pass since none before them finds out who a consumer is, and warns of names that
// nobody has where all consumers are known.
func (l *loader) checkAccess() {
	derived := l.cfg.ConsumersFile.Path != ""
	for i := range l.cfg.Routes {
		var k known
		l.policies(&l.cfg.Routes[i], func(u *Use, p *Policy) {
			l.checkAccessBehind(u.Pos, p, k)
			for j := range p.Any {
				inner := k
				for n := range p.Any[j].All {
					one := &p.Any[j].All[n]
					l.checkAccessBehind(one.Pos, one, inner)
					inner.add(one)
				}
			}
			k.add(p)
			derived = derived || k.token
		})
	}
	if derived {
		return
	}
	names := func(p *Policy) {
		for one := range p.parts {
			if one.Access == nil {
				continue
			}
			for _, ref := range slices.Concat(one.Access.Allow.named, one.Access.Deny.named) {
				if _, ok := l.roll.names[ref.name]; !ok {
					l.warnAt(ref.pos, l.hint(ref.name, maps.Keys(l.roll.names)), "there is no consumer %q", clip(ref.name))
				}
			}
		}
	}
	for i := range l.cfg.Policies {
		names(&l.cfg.Policies[i])
	}
	for i := range l.cfg.Routes {
		for _, u := range l.cfg.Routes[i].Use {
			if u.Inline != nil {
				names(u.Inline)
			}
		}
	}
}

// checkAccessBehind looks at a policy behind others, by which so much is known.
func (l *loader) checkAccessBehind(at Pos, p *Policy, k known) {
	switch {
	case p.Access == nil:
	case !p.Access.Allow.empty() && !k.consumer:
		l.problemAt(at, "put keyauth, or another policy that finds a consumer, before it",
			"%q refuses everybody here: no policy before it finds out who a consumer is", "access")
	case !p.Access.Deny.People.empty() && !k.consumer:
		l.problemAt(at, "put keyauth, or another policy that finds a consumer, before it",
			"%q denies nobody here: no policy before it finds out who a consumer is", "access")
	case len(p.Access.asked()) > 0 && !k.token:
		l.problemAt(at, "put jwt, or another policy that verifies tokens, before it",
			"%q asks for claims, which nothing before it verifies", "access")
	}
}

func (w *dumper) access(a *Access) {
	w.block("access:", func() {
		w.people(&a.Allow)
		if f := &a.Deny; !f.empty() {
			w.block("deny:", func() {
				w.people(&f.People)
				w.asked(f.Scopes, f.Claims, f.Methods)
			})
		}
		w.asked(a.Scopes, a.Claims, a.Methods)
		if a.When != "" {
			w.line("when: %s", quote(a.When))
		}
	})
}

func (w *dumper) asked(scopes []string, claims []RequiredClaim, methods []string) {
	w.optionalList("scopes", scopes)
	w.requiredClaims(claims)
	w.optionalList("methods", methods)
}

func (w *dumper) people(p *People) {
	w.optionalList("groups", p.Groups)
	w.optionalList("roles", p.Roles)
	w.optionalList("consumers", p.Consumers)
	w.optionalList("tiers", p.Tiers)
}
