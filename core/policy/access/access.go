// Package access is the policy that says which consumers may use a route.
package access

import "github.com/sluice-gateway/sluice/core"

// Spec says who may: whoever is in any of the lists.
type Spec struct{ Groups, Consumers, Tiers []string }

// Policy is immutable; loops share it.
type Policy struct {
	groups    []string
	consumers map[string]bool
	tiers     map[string]bool
}

// New gives the policy.
func New(spec Spec) *Policy {
	p := &Policy{groups: spec.Groups, consumers: map[string]bool{}, tiers: map[string]bool{}}
	for _, name := range spec.Consumers {
		p.consumers[name] = true
	}
	for _, tier := range spec.Tiers {
		p.tiers[tier] = true
	}
	return p
}

var (
	errNobody = &core.Error{Status: 403, Reason: "consumer_required"}
	errDenied = &core.Error{Status: 403, Reason: "access_denied"}
)

// OnRequest judges the consumer whom a policy before it has found. Where that was optional there may be none: he is refused.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	switch c := x.Consumer; {
	case c == nil:
		x.Fail(errNobody)
	case p.allows(c):
		return core.Continue
	default:
		x.Fail(errDenied)
	}
	return core.Respond
}

func (p *Policy) allows(c *core.Consumer) bool {
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
