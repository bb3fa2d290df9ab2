package config

import (
	"fmt"
	"maps"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Policy is what is done with the requests of the routes that use it. Exactly one of the kinds is set.
type Policy struct {
	Name        string // "" of one that stands in a route's use itself
	Pos         Pos
	GRPCWeb     *GRPCWeb
	RateLimit   *RateLimit
	Concurrency *Concurrency
	CORS        *CORS
	Headers     *Headers
	KeyAuth     *KeyAuth
	MTLS        *MTLS
	IP          *IP
	Access      *Access
	JWT         *JWT
	Basic       *Basic
	Fault       *Fault
	Forward     *ForwardAuth
	ExtAuthz    *ExtAuthz
	Introspect  *Introspect
	HMAC        *HMAC
	Any         []Policy // nil: it is another kind; else requests pass that any of these lets pass
	All         []Policy // of one within Any alone: requests pass that all of these let pass
	OIDC        *OIDC
}

// GRPCWeb translates gRPC-Web of browsers to gRPC.
type GRPCWeb struct{}

// Use is one policy of a route, in the order in which requests meet them.
type Use struct {
	Name   string  // of a policy under `policies`; "": Inline
	Inline *Policy // written in the route
	Pos    Pos
}

const (
	policyKinds = "grpc_web cors headers rate_limit concurrency keyauth basic mtls jwt introspect oidc hmac any forward ext_authz ip access fault"
	maxPolicies = 10_000
	maxUses     = 16 // of one route
)

// policy reads one entry of `policies`.
func (d *decoder) policy(name string, k, v ast.Node) {
	d.name("a policy", name, k)
	if first, twice := d.policyAt[name]; twice {
		d.problem(k, "", "policy %q is given twice; first at %s", name, d.cfg.Policies[first].Pos)
		return
	}
	if len(d.cfg.Policies) == maxPolicies {
		d.problem(k, "", "there are more than %d policies", maxPolicies)
		return
	}
	p := Policy{Name: name, Pos: d.at(k)}
	if d.policyKind(fmt.Sprintf("policy %q", name), v, &p) {
		d.alone(&p)
	}
	d.policyAt[name] = len(d.cfg.Policies)
	d.cfg.Policies = append(d.cfg.Policies, p)
}

// policyKind reads the one key that says what a policy is.
func (d *decoder) policyKind(what string, n ast.Node, p *Policy) bool {
	const kinds = policyKinds + " all"
	first, empty := "", true
	ok := d.mapping(what, n, kinds, func(key string, k, v ast.Node) bool {
		empty = false
		if !listed(kinds, key) {
			return false
		}
		if first != "" {
			d.problem(k, "write two policies, and use both", "%s is %q already; it cannot be %q too", what, first, key)
			return true
		}
		first = key
		switch key {
		case "grpc_web":
			p.GRPCWeb = &GRPCWeb{}
			d.on(key, v)
		case "cors":
			d.cors(key, v, p)
		case "headers":
			d.headers(key, v, p)
		case "rate_limit":
			p.RateLimit = d.rateLimit(key, v)
		case "concurrency":
			p.Concurrency = d.concurrency(key, v)
		case "keyauth":
			p.KeyAuth = d.keyAuth(key, v)
		case "mtls":
			p.MTLS = d.mtls(key, v)
		case "jwt":
			p.JWT = d.jwt(key, v)
		case "basic":
			p.Basic = d.basic(key, v)
		case "introspect":
			p.Introspect = d.introspect(key, v)
		case "oidc":
			p.OIDC = d.oidc(key, v)
		case "hmac":
			p.HMAC = d.hmac(key, v)
		case "any":
			p.Any = d.either(key, v)
		case "all":
			p.All = d.all(key, v)
		case "forward":
			p.Forward = d.forwardAuth(key, v)
		case "ext_authz":
			p.ExtAuthz = d.extAuthz(key, v)
		case "ip":
			p.IP = d.ip(key, v)
		case "access":
			p.Access = d.access(key, v)
		case "fault":
			p.Fault = d.fault(key, v)
		}
		return true
	})
	if ok && empty {
		d.problem(n, "one of "+strings.ReplaceAll(policyKinds, " ", ", "), "%s does nothing", what)
	}
	return ok && first != ""
}

// on reads the value of a kind that has nothing to set: on, or an empty map.
func (d *decoder) on(key string, n ast.Node) {
	if isMap(d.resolve(n)) {
		d.mapping(key, n, "", func(string, ast.Node, ast.Node) bool { return false })
	} else {
		word := "on"
		d.word(key, n, "on", &word)
	}
}

// uses reads the policies of a route: names, and policies that are written there.
func (d *decoder) uses(key string, n ast.Node, r *Route) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		if v == nil {
			return
		}
		u := Use{Pos: d.at(v)}
		if isMap(v) {
			u.Inline = &Policy{Pos: u.Pos}
			if !d.policyKind("the policy", v, u.Inline) {
				return
			}
			d.alone(u.Inline)
		} else if !d.text(key, v, &u.Name) {
			return
		}
		if len(r.Use) == maxUses {
			d.problem(v, "", "a route uses at most %d policies", maxUses)
			return
		}
		r.Use = append(r.Use, u)
	})
}

// checkPolicies finds policies that do not exist, that nobody uses, or that a route's other parts leave nothing to do.
func (l *loader) checkPolicies(partial bool) {
	used := make([]bool, len(l.cfg.Policies))
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		for _, u := range r.Use {
			p := u.Inline
			if p == nil {
				at, ok := l.policyAt[u.Name]
				if !ok {
					l.problemAt(u.Pos, l.hint(u.Name, maps.Keys(l.policyAt)), "there is no policy %q", clip(u.Name))
					continue
				}
				used[at] = true
				p = &l.cfg.Policies[at]
			}
			switch {
			case p.GRPCWeb != nil:
				l.checkGRPCWeb(r, u.Pos)
			case p.CORS != nil:
				l.checkCORS(r, u.Pos)
			}
		}
	}
	for i := range l.cfg.Policies {
		if p := &l.cfg.Policies[i]; !used[i] && !partial {
			l.warnAt(p.Pos, "", "no route uses policy %q", p.Name)
		}
	}
}

// checkGRPCWeb refuses what no gRPC server can answer: it speaks HTTP/2.
func (l *loader) checkGRPCWeb(r *Route, at Pos) {
	if r.Respond != nil || r.Redirect != nil {
		l.problemAt(at, "", "%q has no meaning here: nothing is sent to an upstream", "grpc_web")
	}
	for _, t := range r.upstreams() {
		if u, ok := l.upstreams[t.Upstream]; ok && l.cfg.Upstreams[u].Protocol == "h1" {
			l.problemAt(at, fmt.Sprintf("add protocol: h2c to upstream %q", t.Upstream),
				"upstream %q does not speak HTTP/2, and so cannot speak gRPC", t.Upstream)
		}
	}
}
