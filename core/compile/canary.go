package compile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// canaryTick is how often canaries are judged.
const canaryTick = time.Second

// Canary is the canary of a route in a configuration. Its state outlives configurations, as long as the route has a canary of the same
// endpoints with the same steps. To names them as config.Target.Name does.
type Canary struct {
	Route, To string

	spec    health.CanarySpec
	action  *upstream.Canary
	state   *health.Canary // nil before it is in force
	changes map[string]uint64
}

// canaries are those in force. The goroutine that judges them owns their states, and whoever else has mu.
type canaries struct {
	registry *Registry
	began    time.Time

	mu   sync.Mutex
	all  map[string]*Canary // by route
	quit context.CancelFunc // ends the goroutine; nil: there is none
	done sync.WaitGroup
}

func newCanaries(r *Registry) *canaries {
	return &canaries{registry: r, began: time.Now(), all: map[string]*Canary{}}
}

// now is the clock of canaries.
func (s *canaries) now() int64 { return int64(time.Since(s.began)) }

// canary makes the canary of a route; nil: it has none. Its state comes when it is put in force.
func (r *Registry) canary(c *Compiled, route *config.Route) (*upstream.Canary, error) {
	k := route.Canary
	if k == nil {
		return nil, nil
	}
	d := c.found[k.To.Upstream]
	if d == nil {
		return nil, fmt.Errorf("there is no upstream %q", k.To.Upstream)
	}
	to := upstream.Target{Upstream: d.upstream, Subset: c.subset(d, &k.To), Name: k.To.Name()}
	next := &Canary{Route: route.Name, To: to.Name, changes: map[string]uint64{},
		spec: health.CanarySpec{Steps: k.Steps, Hold: k.Hold, Abort: k.Abort, Window: k.Window, MinRequests: k.MinRequests}}
	if err := next.spec.Validate(); err != nil {
		if _, failed := health.ParseCondition(k.Abort); k.Abort != "" && failed != nil {
			return nil, conditionError(k, failed)
		}
		return nil, fmt.Errorf("cannot make canary: %w", err)
	}
	next.action = upstream.NewCanary(to, keySources(k.Keys))
	c.canaries = append(c.canaries, next)
	return next.action, nil
}

// placedError is one whose place in a file is known better than by its route.
type placedError struct {
	at  config.Pos
	err error
}

func (e *placedError) Error() string { return e.err.Error() }

func (e *placedError) Unwrap() error { return e.err }

// conditionError says where in the file a condition is wrong.
func conditionError(k *config.Canary, err error) error {
	at := k.AbortPos
	var c *health.ConditionError
	if errors.As(err, &c) {
		at.Column += int32(c.Offset)
	}
	return &placedError{at, err}
}

func keySources(keys []config.BalanceKey) (out []upstream.KeySource) {
	for i := range keys {
		out = append(out, keySource(&keys[i]))
	}
	return out
}

// put puts those of a configuration in force, each with the state that the one before it had, if it can go on with that.
func (s *canaries) put(all []*Canary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*Canary, len(all))
	for _, c := range all {
		s.begin(c, s.all[c.Route])
		next[c.Route] = c
	}
	s.all = next
	if len(next) > 0 && s.quit == nil {
		ctx, quit := context.WithCancel(context.Background())
		s.quit = quit
		s.done.Go(func() { s.run(ctx) })
	}
}

// begin gives c its state.
func (s *canaries) begin(c, before *Canary) {
	now := s.now()
	if before != nil && before.To == c.To {
		c.changes = before.changes
		if reflect.DeepEqual(before.spec, c.spec) {
			c.state = before.state
		} else if state, err := health.ImportCanary(c.spec, before.state.Export(now), now); err == nil {
			c.state = state
		} else {
			s.registry.log.Warn("canary begins anew", "route", c.Route, "upstream", c.To, "why", err)
		}
	}
	if c.state == nil {
		state, err := health.NewCanary(c.spec, now)
		if err != nil {
			panic("BUG: " + err.Error()) // Compile has validated it
		}
		c.state = state
		s.changed(c, "begun")
	}
	c.action.Start(c.state)
}

// run judges until ctx ends.
func (s *canaries) run(ctx context.Context) {
	each(ctx, canaryTick, func() { s.tick(s.now()) })
}

func (s *canaries) tick(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		if c.state.Tick(now) {
			what := c.state.Status().State.String()
			if what == health.Progressing.String() {
				what = "forward"
			}
			s.changed(c, what)
		}
	}
}

// changed tells of a change. The caller holds s.mu.
func (s *canaries) changed(c *Canary, what string) {
	c.changes[what]++
	st := c.state.Status()
	log := s.registry.log.Info
	if st.State == health.Aborted {
		log = s.registry.log.Warn
	}
	log("canary", "route", c.Route, "upstream", c.To, "change", what, "state", st.State.String(), "percent", st.Percent, "why", st.Why)
}

// stop ends the judging. What is in force stays as it is.
func (s *canaries) stop() {
	s.mu.Lock()
	quit := s.quit
	s.quit = nil
	s.mu.Unlock()
	if quit != nil {
		quit()
		s.done.Wait()
	}
}

// RestCanaries ends the judging of canaries, whose requests another process gets from now on. It may be called again.
func (r *Registry) RestCanaries() { r.canaries.stop() }

// CanaryStatus is what is told of a canary.
type CanaryStatus struct {
	Route, To string
	Others    []string // upstreams of the stable side
	Steps     []int
	For       time.Duration     // for how long it has been in this state or step
	Changes   map[string]uint64 // how often which has come about
	health.CanaryStatus
}

// Canaries tells of the canaries of c, in the order of the routes. It may be called from anywhere once c is in force.
func (c *Compiled) Canaries() (out []CanaryStatus) {
	s := c.judged
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range c.Config.Routes {
		r := &c.Config.Routes[i]
		k := s.all[r.Name]
		if r.Canary == nil || k == nil {
			continue
		}
		one := CanaryStatus{Route: k.Route, To: k.To, Steps: k.spec.Steps, CanaryStatus: k.state.Status(), Changes: map[string]uint64{}}
		one.For = time.Duration(s.now() - one.Since)
		for i := range r.To {
			one.Others = append(one.Others, r.To[i].Name())
		}
		for what, n := range k.changes {
			one.Changes[what] = n
		}
		out = append(out, one)
	}
	return out
}

// ChangeCanary does what an operator wants of the canary of a route: pause, resume, forward, promote or abort. It may be called from
// anywhere but a loop; when it returns, it holds for the next exchange.
func (c *Compiled) ChangeCanary(route, what string) error {
	s := c.judged
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.all[route]
	if k == nil {
		return fmt.Errorf("route %q has no canary", route)
	}
	changes := map[string]struct {
		do   func(why string, now int64) bool
		done string
	}{
		"pause": {k.state.Pause, "paused"}, "resume": {k.state.Resume, "resumed"}, "forward": {k.state.Forward, "forward"},
		"promote": {k.state.Promote, "promoted"}, "abort": {k.state.Abort, "aborted"},
	}
	f, known := changes[what]
	switch {
	case !known:
		return fmt.Errorf("unknown change %q: pause, resume, forward, promote or abort", what)
	case !f.do("by hand: "+what, s.now()):
		return fmt.Errorf("cannot %s the canary of route %q: it is %s", what, route, k.state.Status().State)
	}
	s.changed(k, f.done)
	return nil
}

// ExportedCanary is the state of a canary as another process takes it over.
type ExportedCanary struct {
	To    string          `json:"to"`
	State json.RawMessage `json:"state"` // of health.Canary
}

// ExportCanaries gives the states by route; nil: there are none.
func (c *Compiled) ExportCanaries() map[string]ExportedCanary {
	s := c.judged
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[string]ExportedCanary
	for route, k := range s.all {
		if out == nil {
			out = map[string]ExportedCanary{}
		}
		out[route] = ExportedCanary{k.To, k.state.Export(s.now())}
	}
	return out
}

// RestoreCanaries takes states over that another process has exported, before c is in force. Those of routes, upstreams or steps that
// the configuration does not have are left out; the error tells of the ones that cannot be used.
func (c *Compiled) RestoreCanaries(states map[string]ExportedCanary) error {
	var failed []error
	if len(states) == 0 {
		return nil
	}
	now := c.judged.now()
	for _, k := range c.canaries {
		from, ok := states[k.Route]
		if !ok || from.To != k.To || k.state != nil {
			continue
		}
		state, err := health.ImportCanary(k.spec, from.State, now)
		if err != nil {
			failed = append(failed, fmt.Errorf("route %q: %w", k.Route, err))
			continue
		}
		k.state = state
	}
	return errors.Join(failed...)
}
