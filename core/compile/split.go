package compile

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// maxSplitWeight is what the grammar allows.
const maxSplitWeight = 1000

// split is a route's split over several upstreams in a configuration. What was changed of its weights at run time holds over
// configurations until one changes the upstreams of the route, or their weights.
type split struct {
	route  string
	to     []config.Target
	action *upstream.Split
}

// overridden are the weights by upstream, and whether they differ from the configuration's.
func (s *split) overridden() bool {
	for i, w := range s.action.Weights() {
		if s.to[i].Weight != w {
			return true
		}
	}
	return false
}

// sameShare says whether two targets are the same endpoints of an upstream, with the same weight.
func sameShare(a, b config.Target) bool { return a.Name() == b.Name() && a.Weight == b.Weight }

// splits are those in force. Whoever has mu changes them.
type splits struct {
	mu  sync.Mutex
	all map[string]*split // by route
}

// split makes the split of a route; nil: it has one upstream.
func (r *Registry) split(c *Compiled, route *config.Route, targets []upstream.Target) *upstream.Split {
	if len(targets) < 2 {
		return nil
	}
	s := &split{route: route.Name, to: route.To, action: upstream.NewSplit(targets, keySources(route.SplitBy), len(r.workers))}
	c.splits = append(c.splits, s)
	return s.action
}

// put puts those of a configuration in force.
func (p *splits) put(r *Registry, all []*split) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]*split, len(all))
	for _, s := range all {
		if before := p.all[s.route]; before != nil && slices.EqualFunc(before.to, s.to, sameShare) && before.overridden() {
			_ = s.action.SetWeights(before.action.Weights(), len(r.workers)) // they were good before
		}
		next[s.route] = s
	}
	p.all = next
}

// RouteWeights are the weights in force of a route over several upstreams, in the order of its `to`; nil: it has one. changed says that
// they are not the configuration's. It may be called from anywhere.
func (c *Compiled) RouteWeights(route string) (weights []int, changed bool) {
	c.spread.mu.Lock()
	defer c.spread.mu.Unlock()
	s := c.spread.all[route]
	if s == nil {
		return nil, false
	}
	return s.action.Weights(), s.overridden()
}

// SetRouteWeights changes weights of a route's upstreams, or their subsets, 0 to 1000, at run time. They are named as config.Target.Name
// does; those that are not named keep theirs. nil: the
// configured ones again. It may be called from anywhere; when it returns, it holds for the next exchange.
func (r *Registry) SetRouteWeights(route string, weights map[string]int) error {
	r.splits.mu.Lock()
	defer r.splits.mu.Unlock()
	s := r.splits.all[route]
	if s == nil {
		return fmt.Errorf("there is no route %q with several upstreams", route)
	}
	next := slices.Clone(s.action.Weights())
	if weights == nil {
		for i := range s.to {
			next[i] = s.to[i].Weight
		}
	}
	for name, w := range weights {
		i := slices.IndexFunc(s.to, func(t config.Target) bool { return t.Name() == name })
		switch {
		case i < 0:
			return fmt.Errorf("route %q has no upstream %q", route, name)
		case w < 0 || w > maxSplitWeight:
			return fmt.Errorf("weight %d is not from 0 to %d", w, maxSplitWeight)
		}
		next[i] = w
	}
	if err := s.action.SetWeights(next, len(r.workers)); err != nil {
		return err
	}
	r.log.Info("weights changed at run time", "route", route, "weights", next)
	return nil
}

// ExportedSplit is what was changed of a route's weights, as another process takes it over.
type ExportedSplit struct {
	Targets    []string `json:"targets"`
	Configured []int    `json:"configured"`
	Weights    []int    `json:"weights"`
}

// ExportSplits gives the splits whose weights were changed, by route; nil: there are none.
func (c *Compiled) ExportSplits() map[string]ExportedSplit {
	c.spread.mu.Lock()
	defer c.spread.mu.Unlock()
	var out map[string]ExportedSplit
	for route, s := range c.spread.all {
		if !s.overridden() {
			continue
		}
		if out == nil {
			out = map[string]ExportedSplit{}
		}
		e := ExportedSplit{Weights: s.action.Weights()}
		for _, t := range s.to {
			e.Targets, e.Configured = append(e.Targets, t.Name()), append(e.Configured, t.Weight)
		}
		out[route] = e
	}
	return out
}

// RestoreSplits takes over what another process has exported, before c is in force. What the configuration says otherwise is left out.
func (c *Compiled) RestoreSplits(exported map[string]ExportedSplit) error {
	var failed []error
	for _, s := range c.splits {
		e, ok := exported[s.route]
		if !ok {
			continue
		}
		same := len(e.Targets) == len(s.to) && len(e.Configured) == len(s.to) && len(e.Weights) == len(s.to)
		for i := range s.to {
			same = same && e.Targets[i] == s.to[i].Name() && e.Configured[i] == s.to[i].Weight
		}
		if !same {
			continue
		}
		if slices.Min(e.Weights) < 0 || slices.Max(e.Weights) > maxSplitWeight {
			failed = append(failed, fmt.Errorf("route %q: weights %v are not from 0 to %d", s.route, e.Weights, maxSplitWeight))
		} else if err := s.action.SetWeights(e.Weights, c.loops); err != nil {
			failed = append(failed, fmt.Errorf("route %q: %w", s.route, err))
		}
	}
	return errors.Join(failed...)
}
