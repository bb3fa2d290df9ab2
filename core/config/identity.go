package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Identity is how upstreams learn who a consumer is: the names of headers, "" for what they are not told. What clients send under these
// names, or names that could be taken for them, reaches no upstream, whatever the route.
type Identity struct {
	Consumer, User, Tenant, Groups, Roles, Tier string
	KeyID                                       string         // of the API key by which he is known
	Token                                       *IdentityToken // nil: none is signed
}

// own are the names of the headers, "" among them.
func (i *Identity) own() []string {
	return []string{i.Consumer, i.User, i.Tenant, i.Groups, i.Roles, i.Tier, i.KeyID}
}

// identity reads the key of that name.
func (d *decoder) identity(key string, n ast.Node) {
	i := &Identity{Consumer: "X-Consumer-Name"}
	d.mapping(key, n, "headers token", func(key string, _, v ast.Node) bool {
		switch key {
		case "headers":
			d.identityHeaders(key, v, i)
		case "token":
			i.Token = d.identityToken(key, v)
		default:
			return false
		}
		return true
	})
	d.cfg.Identity = i
}

// identityHeaders reads on, for all of them under their usual names, off, for none, or the names of those that are wanted.
func (d *decoder) identityHeaders(key string, n ast.Node, i *Identity) {
	if n = d.resolve(n); n == nil {
		return
	}
	if _, word := n.(*ast.StringNode); word {
		word := "on"
		d.word(key, n, "on off", &word)
		i.Consumer, i.User, i.Tenant, i.Groups, i.Roles = "X-Consumer-Name", "X-User-ID", "X-Tenant-ID", "X-Consumer-Groups", "X-User-Roles"
		i.Tier, i.KeyID = "X-Consumer-Tier", "X-Credential-Identifier"
		if word == "off" {
			*i = Identity{Token: i.Token}
		}
		return
	}
	var seen []string
	d.mapping(key, n, "consumer user tenant groups roles tier key_id", func(key string, _, v ast.Node) bool {
		to := map[string]*string{"consumer": &i.Consumer, "user": &i.User, "tenant": &i.Tenant, "groups": &i.Groups, "roles": &i.Roles, "tier": &i.Tier, "key_id": &i.KeyID}[key]
		if to == nil {
			return false
		}
		if d.identityField(key, v, seen, to) {
			seen = append(seen, *to)
		}
		return true
	})
	if i.Consumer == "X-Consumer-Name" && containsFold([]string{i.User, i.Tenant, i.Groups, i.Roles, i.Tier, i.KeyID}, i.Consumer) {
		d.problem(n, "consumer: X-Consumer", "header %q is given twice", i.Consumer)
	}
}

// identityField reads the name of a header that is none of those seen.
func (d *decoder) identityField(key string, n ast.Node, seen []string, to *string) bool {
	var s string
	switch {
	case !d.text(key, n, &s) || !d.fieldName(key, n, s):
		return false
	case strings.EqualFold(s, "Authorization") || strings.EqualFold(s, "Cookie"):
		d.problem(n, "", "header %q cannot tell of a consumer", s)
		return false
	case containsFold(seen, s):
		d.problem(n, "", "header %q is given twice", s)
		return false
	}
	*to = s
	return true
}

// checkIdentityHeaders refuses claims that would be told under the name of something else.
func (l *loader) checkIdentityHeaders() {
	i := l.cfg.Identity
	if i == nil {
		return
	}
	own := i.own()
	if i.Token != nil {
		own = append(own, i.Token.Header)
	}
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
	for one := range p.parts {
		switch {
		case one.JWT != nil:
			all = append(all, &one.JWT.Bearer)
		case one.Introspect != nil:
			all = append(all, &one.Introspect.Bearer)
		case one.OIDC != nil:
			all = append(all, &one.OIDC.Bearer)
		}
	}
	return all
}

func (w *dumper) identityFields(i *Identity) {
	if i == nil {
		return
	}
	w.block("identity:", func() {
		w.identityToken(i.Token)
		if strings.Join(i.own(), "") == "" {
			w.line("headers: off")
			return
		}
		w.block("headers:", func() {
			for _, at := range []struct{ key, name string }{{"consumer", i.Consumer}, {"user", i.User}, {"tenant", i.Tenant}, {"groups", i.Groups}, {"roles", i.Roles}, {"tier", i.Tier},
				{"key_id", i.KeyID}} {
				if at.name != "" {
					w.line("%s: %s", at.key, quote(at.name))
				}
			}
		})
	})
}
