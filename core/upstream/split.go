package upstream

import (
	"errors"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/lb"
)

// Target is one upstream of a Split, or a subset of it. A weight of 0 gets nothing.
type Target struct {
	Upstream *Upstream
	Weight   int
	Subset   *Subset // of Upstream; nil: all of it
	Name     string  // tells it from others of the split, by which keys are spread; "": the upstream's
}

func (t *Target) subset() *Subset {
	if t.Subset == nil {
		return t.Upstream.whole
	}
	return t.Subset
}

func (t *Target) name() string {
	if t.Name == "" {
		return t.Upstream.Name
	}
	return t.Name
}

// Split spreads a route's exchanges over upstreams by weight: in turn on each loop, or so that exchanges of one key go to the same
// upstream. All but its weights is immutable.
type Split struct {
	targets []Target
	keys    []KeySource // the first that has something counts; none: in turn
	untried lb.Attempt  // never changed
	choices atomic.Pointer[choices]
}

// choices are what weights make of the targets. Immutable, but for pickers.
type choices struct {
	weights []int       // by target
	only    *Subset     // which gets all; nil: there are several
	pickers []lb.Picker // by loop, which alone uses it
	keyed   *lb.Rendezvous
}

var errNoWeight = errors.New("no upstream has a weight above 0")

// NewSplit gives a split of the targets, at least one of which must have a weight above 0. Exchanges that have none of keys go in turn.
func NewSplit(targets []Target, keys []KeySource, loops int) *Split {
	s := &Split{targets: targets, keys: keys}
	weights := make([]int, len(targets))
	for i := range targets {
		weights[i] = targets[i].Weight
	}
	if err := s.SetWeights(weights, loops); err != nil {
		panic("BUG: upstream: " + err.Error())
	}
	return s
}

// SetWeights puts other weights in force, one for each target, for the exchanges that come from now on. At least one must be above 0.
// It may be called from anywhere.
func (s *Split) SetWeights(weights []int, loops int) error {
	c := &choices{weights: weights}
	var endpoints []*lb.Endpoint
	names := make([]string, len(weights))
	for i, w := range weights {
		t := &s.targets[i]
		names[i] = t.name()
		if w > 0 {
			endpoints = append(endpoints, &lb.Endpoint{Name: names[i], Weight: w, State: t.subset()})
		}
	}
	switch len(endpoints) {
	case 0:
		return errNoWeight
	case 1:
		c.only = endpoints[0].State.(*Subset)
	default:
		for i := range loops {
			c.pickers = append(c.pickers, lb.NewRoundRobin(endpoints, i))
		}
		c.keyed = lb.NewRendezvous(names, weights)
	}
	s.choices.Store(c)
	return nil
}

// Weights are those in force, by target. They must not be changed.
func (s *Split) Weights() []int { return s.choices.Load().weights }

// choose gives the endpoints for an exchange.
func (s *Split) choose(x *core.Exchange, given *cookies) *Subset {
	c := s.choices.Load()
	if c.only != nil {
		return c.only
	}
	if len(s.keys) > 0 {
		if key, ok := keyOf(s.keys, x, given); ok {
			return s.targets[c.keyed.Pick(key)].subset()
		}
	}
	return c.pickers[x.Worker.Loop.Index()].Pick(&s.untried).State.(*Subset)
}
