package upstream

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/lb"
)

// MaxSubsets bounds the subsets of an upstream that are kept up to date at once: each costs a set and pickers of its own at every change.
const MaxSubsets = 256

// Subset is those endpoints of an upstream that have certain labels. It is balanced as if there were no others, over the same endpoints,
// loads and connections.
type Subset struct {
	upstream  *Upstream
	labels    map[string]string
	otherwise bool // all endpoints stand in where none of these may be used
	shares    []*share
	set       atomic.Pointer[lb.Set] // what the pickers choose from; nil before the first Assign
}

// Subset makes the subset of the endpoints that have all labels, which nobody may change any more. Where none of them may be used, with
// otherwise all the upstream's stand in. It has no endpoints before it was given to Select and Assign was called.
func (u *Upstream) Subset(labels map[string]string, otherwise bool) *Subset {
	s := &Subset{upstream: u, labels: labels, otherwise: otherwise}
	for _, whole := range u.shares {
		s.shares = append(s.shares, newShare(whole.onLoop))
	}
	return s
}

// Select makes these the subsets that the next Assign or Rebalance, and those after it, bring up to date. Exchanges that use another go on
// with what it had last. It is called as these are.
func (u *Upstream) Select(subsets []*Subset) { u.subsets = subsets }

// choice is what a subset's pickers choose from.
type choice struct {
	subset *Subset
	set    *lb.Set
	usable []*lb.Endpoint
	has    map[*Endpoint]bool
}

// choose compiles the subset of endpoints.
func (s *Subset) choose(endpoints []*lb.Endpoint) choice {
	u := s.upstream
	c := choice{subset: s}
	c.set = lb.NewSet(u.Settings().spec(), lb.Subset(endpoints, s.labels, s.otherwise), u.clock())
	if c.usable = c.set.Usable(); len(c.usable) == 0 && s.otherwise {
		c.set = lb.NewSet(u.Settings().spec(), endpoints, u.clock())
		c.usable = c.set.Usable()
	}
	c.has = make(map[*Endpoint]bool, len(c.usable))
	for _, e := range c.usable {
		c.has[of(e)] = true
	}
	s.set.Store(c.set)
	return c
}

// assign gives the share a picker over c. Those who wait must be woken after it.
func (s *share) assign(c *choice, seed uint64) {
	s.usable, s.has, s.walked = c.usable, c.has, 0
	s.picker = lb.NewPicker(c.set, seed, s.picker)
}
