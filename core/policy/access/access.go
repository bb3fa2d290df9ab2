// Package access is the policy that says who may use a route, and for what.
package access

import (
	"slices"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says who may: nobody of whom anything of Deny is true; of the others whoever is in any list of Allow, if one of them has anything; and
// of those whoever meets all of the rest.
type Spec struct {
	Allow   People
	Deny    Denied
	Scopes  []string             // all of them, in scope or scp of the token
	Claims  []core.RequiredClaim // all of them
	Methods []string             // any of them; empty: any
	When    *core.Condition      // nil: none
}

// Denied is who may not: whoever is in any of the lists, or whose token has any of the scopes or claims; and requests with any of the methods.
// What a token has but cannot be compared denies too.
type Denied struct {
	People
	Scopes  []string // in scope or scp
	Claims  []core.RequiredClaim
	Methods []string
}

// People are consumers in any of the lists.
type People struct{ Groups, Roles, Consumers, Tiers []string }

func (p *People) empty() bool { return len(p.Groups)+len(p.Roles)+len(p.Consumers)+len(p.Tiers) == 0 }

// Policy is immutable but for the judges, each of which only its loop touches.
type Policy struct {
	spec        Spec
	allow, deny people
	judges      []core.Judge
}

type people struct {
	groups, roles    []string
	consumers, tiers map[string]bool
}

// New gives the policy for so many loops.
func New(spec Spec, loops int) *Policy {
	p := &Policy{spec: spec, allow: newPeople(spec.Allow), deny: newPeople(spec.Deny.People)}
	if spec.When != nil {
		p.judges = make([]core.Judge, max(loops, 1))
	}
	return p
}

func newPeople(from People) people {
	p := people{from.Groups, from.Roles, map[string]bool{}, map[string]bool{}}
	for _, name := range from.Consumers {
		p.consumers[name] = true
	}
	for _, tier := range from.Tiers {
		p.tiers[tier] = true
	}
	return p
}

var (
	errNobody = &core.Error{Status: 403, Reason: "consumer_required"}
	errDenied = &core.Error{Status: 403, Reason: "access_denied"}
	errScope  = &core.Error{Status: 403, Reason: "access_scope"}
	errClaim  = &core.Error{Status: 403, Reason: "access_claim"}
	errMethod = &core.Error{Status: 403, Reason: "access_method"}
	errWhen   = &core.Error{Status: 403, Reason: "access_condition"}
)

// OnRequest judges the request, and the consumer whom a policy before it has found. Where that was optional there may be none.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	if err := p.judge(x); err != nil {
		x.Fail(err)
		return core.Respond
	}
	return core.Continue
}

func (p *Policy) judge(x *core.Exchange) *core.Error {
	c := x.Consumer
	switch {
	case c != nil && p.deny.has(c):
		return errDenied
	case p.spec.Allow.empty():
	case c == nil:
		return errNobody
	case !p.allow.has(c):
		return errDenied
	}
	if err := p.spec.Deny.judge(x); err != nil {
		return err
	}
	for _, s := range p.spec.Scopes {
		if !scoped(x, s) {
			return errScope
		}
	}
	for i := range p.spec.Claims {
		if r := &p.spec.Claims[i]; !x.Claims.Holds(r.Claim, r.Values...) {
			return errClaim
		}
	}
	if len(p.spec.Methods) > 0 && !slices.Contains(p.spec.Methods, string(x.Request.MethodBytes())) {
		return errMethod
	}
	if p.spec.When != nil {
		if yes, err := p.judges[x.Worker.Loop.Index()].Holds(p.spec.When, x); err != nil || !yes {
			return errWhen
		}
	}
	return nil
}

// judge says whether x is denied for its token or its method.
func (f *Denied) judge(x *core.Exchange) *core.Error {
	if len(f.Scopes) > 0 && (x.Claims.Unfit("scope") || x.Claims.Unfit("scp")) {
		return errScope
	}
	for _, s := range f.Scopes {
		if scoped(x, s) {
			return errScope
		}
	}
	for i := range f.Claims {
		if r := &f.Claims[i]; x.Claims.Unfit(r.Claim) || x.Claims.Holds(r.Claim, r.Values...) {
			return errClaim
		}
	}
	if len(f.Methods) > 0 && slices.Contains(f.Methods, string(x.Request.MethodBytes())) {
		return errMethod
	}
	return nil
}

func scoped(x *core.Exchange, scope string) bool {
	return x.Claims.HoldsWord("scope", scope) || x.Claims.HoldsWord("scp", scope)
}

func (p *people) has(c *core.Consumer) bool {
	if p.consumers[c.Name] || p.tiers[c.Tier] {
		return true
	}
	for _, g := range p.groups {
		if c.In(g) {
			return true
		}
	}
	for _, r := range p.roles {
		if c.Has(r) {
			return true
		}
	}
	return false
}
