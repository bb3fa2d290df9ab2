// Package access is the policy that says who may use a route, and for what.
package access

import (
	"slices"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says who may: nobody in Deny; of the others whoever is in any list of Allow, if one of them has anything; and of those whoever
// meets all of the rest.
type Spec struct {
	Allow, Deny People
	Scopes      []string             // all of them, in scope or scp of the token
	Claims      []core.RequiredClaim // all of them
	Methods     []string             // any of them; empty: any
	When        *core.Condition      // nil: none
}

// People are consumers in any of the lists.
type People struct{ Groups, Consumers, Tiers []string }

func (p *People) empty() bool { return len(p.Groups)+len(p.Consumers)+len(p.Tiers) == 0 }

// Policy is immutable but for the judges, each of which only its loop touches.
type Policy struct {
	spec        Spec
	allow, deny people
	judges      []core.Judge
}

type people struct {
	groups           []string
	consumers, tiers map[string]bool
}

// New gives the policy for so many loops.
func New(spec Spec, loops int) *Policy {
	p := &Policy{spec: spec, allow: newPeople(spec.Allow), deny: newPeople(spec.Deny)}
	if spec.When != nil {
		p.judges = make([]core.Judge, max(loops, 1))
	}
	return p
}

func newPeople(from People) people {
	p := people{from.Groups, map[string]bool{}, map[string]bool{}}
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
	for _, s := range p.spec.Scopes {
		if !x.Claims.HoldsWord("scope", s) && !x.Claims.HoldsWord("scp", s) {
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

func (p *people) has(c *core.Consumer) bool {
	if p.consumers[c.Name] || p.tiers[c.Tier] {
		return true
	}
	for _, g := range p.groups {
		if c.In(g) {
			return true
		}
	}
	return false
}
