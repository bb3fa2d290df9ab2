package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Identity is how upstreams learn who a consumer is: the names of headers, "" for what they are not told. What clients send under these
// names, or names that could be taken for them, reaches no upstream, whatever the route.
type Identity struct{ Consumer, User, Tenant, Groups, Tier string }

// identity reads the key of that name.
func (d *decoder) identity(key string, n ast.Node) {
	i := &Identity{Consumer: "X-Consumer-Name"}
	d.mapping(key, n, "headers", func(key string, _, v ast.Node) bool {
		if key != "headers" {
			return false
		}
		d.identityHeaders(key, v, i)
		return true
	})
	d.cfg.Identity = i
}

// identityHeaders reads on, for all of them under their usual names, or the names of those that are wanted.
func (d *decoder) identityHeaders(key string, n ast.Node, i *Identity) {
	if n = d.resolve(n); n == nil {
		return
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
		*i = Identity{Consumer: "X-Consumer-Name", User: "X-User-ID", Tenant: "X-Tenant-ID", Groups: "X-User-Roles", Tier: "X-Consumer-Tier"}
		return
	}
	var seen []string
	d.mapping(key, n, "consumer user tenant groups tier", func(key string, _, v ast.Node) bool {
		to := map[string]*string{"consumer": &i.Consumer, "user": &i.User, "tenant": &i.Tenant, "groups": &i.Groups, "tier": &i.Tier}[key]
		if to == nil {
			return false
		}
		var s string
		switch {
		case !d.text(key, v, &s) || !d.fieldName(key, v, s):
		case strings.EqualFold(s, "Authorization") || strings.EqualFold(s, "Cookie"):
			d.problem(v, "", "header %q cannot tell of a consumer", s)
		case containsFold(seen, s):
			d.problem(v, "", "header %q is given twice", s)
		default:
			seen = append(seen, s)
			*to = s
		}
		return true
	})
	if i.Consumer == "X-Consumer-Name" && containsFold([]string{i.User, i.Tenant, i.Groups, i.Tier}, i.Consumer) {
		d.problem(n, "consumer: X-Consumer", "header %q is given twice", i.Consumer)
	}
}

// checkIdentityHeaders refuses claims that would be told under the name of something else.
func (l *loader) checkIdentityHeaders() {
	i := l.cfg.Identity
	if i == nil {
		return
	}
	own := []string{i.Consumer, i.User, i.Tenant, i.Groups, i.Tier}
	for r := range l.cfg.Routes {
		l.policies(&l.cfg.Routes[r], func(u *Use, p *Policy) {
			for _, b := range p.bearers() {
				for _, h := range b.Headers {
					if containsFold(own, h.Header) {
						l.problemAt(u.Pos, "", "header %q tells of a consumer already, and cannot tell of claim %q", h.Header, h.Claim)
					}
				}
			}
		})
	}
}

// bearers are those of a policy that knows consumers by tokens.
func (p *Policy) bearers() (all []*Bearer) {
	if p.JWT != nil {
		all = append(all, &p.JWT.Bearer)
	}
	if p.Introspect != nil {
		all = append(all, &p.Introspect.Bearer)
	}
	for i := range p.Any {
		all = append(all, p.Any[i].bearers()...)
	}
	return all
}

func (w *dumper) identityFields(i *Identity) {
	if i == nil {
		return
	}
	w.block("identity:", func() {
		w.block("headers:", func() {
			for _, at := range []struct{ key, name string }{{"consumer", i.Consumer}, {"user", i.User}, {"tenant", i.Tenant}, {"groups", i.Groups}, {"tier", i.Tier}} {
				if at.name != "" {
					w.line("%s: %s", at.key, quote(at.name))
				}
			}
		})
	})
}
