package upstream

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// Balancing is how an upstream's endpoints are chosen. Immutable.
type Balancing struct {
	Spec lb.Spec     // must pass its Check
	Keys []KeySource // for algorithms that go by a key; the first that has something counts
}

// spec is the settings' own, else that of a round robin.
func (s *Settings) spec() *lb.Spec {
	if s.Balancing != nil {
		return &s.Balancing.Spec
	}
	spec := lb.Defaults(lb.RoundRobin)
	return &spec
}

// clock is the clock of loads: that of the first loop, from which others differ by as much as they were made later.
func (u *Upstream) clock() int64 {
	if len(u.shares) == 0 {
		return 0
	}
	return u.shares[0].worker.Loop.Clock()
}

// Rebalance puts in force what weights, flags and the time make of the endpoints' shares now: another set, and pickers over it.
// It must follow every change of a Load, and may be called as Assign may, which does the same.
func (u *Upstream) Rebalance(apply func(w *core.Worker, f func())) {
	u.rebalance(apply, u.Endpoints(), nil)
}

// rebalance has each loop run after, which may be nil, with the change.
func (u *Upstream) rebalance(apply func(w *core.Worker, f func()), endpoints []*Endpoint, after func(index int)) {
	list := make([]*lb.Endpoint, len(endpoints))
	for i, e := range endpoints {
		list[i] = e.Described()
	}
	choices := make([]choice, 1, 1+len(u.subsets))
	choices[0] = u.whole.choose(list)
	for _, s := range u.subsets {
		choices = append(choices, s.choose(list))
	}
	for i, s := range u.shares {
		seed := rand.Uint64()
		apply(s.worker, func() {
			for j := range choices {
				c := &choices[j]
				c.subset.shares[i].assign(c, seed)
			}
			s.queue.wake()
			if after != nil {
				after(i)
			}
		})
	}
}

// Due is in how many nanoseconds slow start needs the next Rebalance; 0: there is none, else at least 1.
func (u *Upstream) Due() int64 {
	set := u.whole.set.Load()
	if set == nil || set.Due() == 0 {
		return 0
	}
	return max(1, set.Due()-u.clock())
}

// Shares is what part of the requests each endpoint is meant to get; one that is not in it gets none.
func (u *Upstream) Shares() map[*Endpoint]float64 {
	shares := map[*Endpoint]float64{}
	if set := u.whole.set.Load(); set != nil {
		for i := range set.Len() {
			e, share := set.Share(i)
			shares[of(e)] = share
		}
	}
	return shares
}

// Latency is the average of e's latencies as it stands now; 0 where the algorithm keeps none.
func (u *Upstream) Latency(e *Endpoint) time.Duration { return e.Load.Latency(u.clock()) }

// Override is a change of endpoints at run time. It holds until the configuration changes the endpoint, or no longer has it.
type Override uint8

const (
	Drain   Override = iota // nothing new comes to it; what it has may end
	Disable                 // likewise, and nobody asks how it is
	Enable                  // takes both back
)

// Override changes e, which a Rebalance must follow. It may be called from any goroutine.
func (u *Upstream) Override(e *Endpoint, o Override) {
	switch o {
	case Drain:
		e.Load.Raise(lb.Draining) // first, so that it is not available in between
		e.Load.Clear(lb.Disabled, u.clock())
	case Disable:
		e.Load.Raise(lb.Disabled)
		e.Load.Clear(lb.Draining, u.clock())
	default:
		e.Load.Clear(lb.Draining|lb.Disabled, u.clock())
	}
}

// Flag makes those of mask that are in flags the flags of e, and says whether that changed any, which a Rebalance must follow. It may
// be called from any goroutine; each flag has one owner.
func (u *Upstream) Flag(e *Endpoint, mask, flags lb.Flag) bool {
	has := e.Load.Flags() & mask
	e.Load.Raise(flags) // first, so that it is not available in between
	e.Load.Clear(has&^flags, u.clock())
	return has != flags
}

// Panic says that health is disregarded, because too few endpoints are healthy.
func (u *Upstream) Panic() bool {
	set := u.whole.set.Load()
	return set != nil && set.Panic()
}

// of is the endpoint that a picker's choice describes.
func of(e *lb.Endpoint) *Endpoint { return e.State.(*Endpoint) }

// find looks for a connection that was kept or can be shared, and where there is none for a place at an endpoint to which one may
// be made. ErrQueueFull: there are endpoints, and all have the connections they may have.
func (s *share) find(x *core.Exchange, set *Settings, fresh bool) (seat, *core.Error) {
	look := &s.look // a copy: what is full was not tried. On the stack it would escape
	*look = x.Attempt
	look.Now = s.worker.Loop.Now()
	full := false
	for range lb.MaxTried - look.Count() { // more would be forgotten
		picked := s.picker.Pick(look)
		if picked == nil {
			break
		}
		x.Sent.Endpoint = picked
		if found, ok := s.sit(x, of(picked), set, fresh); ok {
			return found, nil
		}
		full = true
		look.Tried(picked) // or a picker that goes by a key would give it again
	}
	if !full {
		return seat{}, core.ErrNoEndpoint
	}
	if len(s.usable) > lb.MaxTried-x.Attempt.Count() {
		if found, ok := s.walk(x, set, fresh); ok {
			return found, nil
		}
	}
	return seat{}, core.ErrQueueFull
}

// walk looks at all endpoints for one that is not full. Each walk begins where the last one ended.
func (s *share) walk(x *core.Exchange, set *Settings, fresh bool) (seat, bool) {
	for range s.usable {
		e := s.usable[s.walked]
		if s.walked++; s.walked == len(s.usable) {
			s.walked = 0
		}
		if x.Attempt.Has(e) {
			continue
		}
		if found, ok := s.sit(x, of(e), set, fresh); ok {
			x.Sent.Endpoint = e
			return found, true
		}
	}
	return seat{}, false
}

// sit finds a way to e; false: it has all the connections that it may have.
func (s *share) sit(x *core.Exchange, e *Endpoint, set *Settings, fresh bool) (seat, bool) {
	if e.protocol.shared() {
		m := s.join(e, set, fresh)
		return seat{mux: m}, m != nil
	}
	if !fresh {
		if c := s.reuse(e, x); c != nil {
			return seat{conn: c}, true
		}
	}
	if e.take(set) || (fresh || e.proxy != ProxyNone) && s.evict(e, set) {
		return seat{place: e}, true
	}
	return seat{}, false
}

// endpoint is where a seat leads.
func (t *seat) endpoint() *Endpoint {
	switch {
	case t.conn != nil:
		return t.conn.endpoint
	case t.mux != nil:
		return t.mux.endpoint
	}
	return t.place
}

// flight is an attempt as the load of its endpoint counts it: from the choice of the endpoint until the answer has ended.
type flight struct {
	to    *Endpoint // nil: there is none, or it has ended
	start int64
	took  int64 // of a passage: how long the connection took; else 0
	kept  bool  // over a connection that has served before
}

// depart begins an attempt at e.
func (s *share) depart(e *Endpoint) flight {
	e.Load.Begin()
	return flight{to: e, start: s.worker.Loop.Now()}
}

// land ends the attempt, of which x has the answer if failure is not the upstream's. Endpoints are to blame for what the gateway
// could not get from them, and for their own 5xx. It may be called again, without effect.
func (f *flight) land(x *core.Exchange, failure *core.Error) {
	e, now := f.to, x.Worker.Loop.Now()
	if e == nil {
		return
	}
	f.to = nil
	answered := x.Times.Head >= f.start
	closed := f.kept && failure != nil && failure.Retry == core.RetryIfReused // as an endpoint may close what is idle
	if w := e.watch.Load(); w != nil && !closed {
		if o, ok := outcome(x, failure, answered); ok {
			w.report(x.Worker.Loop.Index(), o)
		}
	}
	switch {
	case failure != nil && failure.Side == core.SideUpstream:
		e.Load.End(now, now-f.start, true)
	case answered:
		e.Load.End(now, x.Times.Head-x.Times.Sent, x.Response.Status >= 500)
	default:
		e.Load.Leave(now, now-f.start)
	}
}

// settle notes that a passage has its connection, which is all that can be said of the endpoint.
func (f *flight) settle(x *core.Exchange) {
	l := x.Worker.Loop
	f.took = max(1, l.Now()-f.start)
	if w := f.to.watch.Load(); w != nil {
		w.report(l.Index(), health.Success)
	}
}

// drop ends an attempt of which nobody tells how it was: a passage, or an exchange that ended in a panic.
func (f *flight) drop(now int64) {
	e := f.to
	switch f.to = nil; {
	case e == nil:
	case f.took > 0:
		e.Load.End(now, f.took, false)
	default:
		e.Load.Leave(now, now-f.start)
	}
}
