package upstream

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/health"
)

// Gate is what exchanges with an upstream, or of a route, pass, and what answers while it is shut. Immutable.
type Gate struct {
	Breaker  *Breaker
	Fallback Fallback
}

// Fallback answers in the place of what a breaker stands before: one of the two, or nothing, and then the answer is a 503.
type Fallback struct {
	Respond core.Action // which asks nobody
	To      *Upstream
}

// maxFallbacks bounds the upstreams that stand in for each other. The configuration has no circles, but an exchange that sees one reload
// come and another go may.
const maxFallbacks = 8

// Breaker is a health.Breaker that tells of its changes. It outlives configurations as long as its spec does, and all loops use it.
type Breaker struct {
	state *health.Breaker
	told  func(BreakerChange) // on a loop: it must not block
	spell atomic.Uint32       // the half-open spell that was told of last

	opened    [causes]atomic.Uint64
	half      atomic.Uint64
	closed    atomic.Uint64
	refused   atomic.Uint64
	fallbacks atomic.Uint64
}

// causes are the values of health.BreakerCause.
const causes = int(health.ByProbe) + 1

// BreakerChange is a change of state, with what it rests on: the exchanges of the window when the breaker opened.
type BreakerChange struct {
	health.BreakerChange
	Requests, Failures, Slow int64
	Cooldown                 time.Duration // to come, of one that has opened
}

// BreakerStats are a breaker's state and what it has counted.
type BreakerStats struct {
	State              health.BreakerState
	Left               time.Duration  // of the cooldown; 0: it is not open, or a request may try
	Opened             [causes]uint64 // by health.BreakerCause
	HalfOpened, Closed uint64
	Refused            uint64 // exchanges, those included that had a fallback
	Fallbacks          uint64
}

// NewBreaker gives a closed breaker, which calls told, on a loop, when it changes. The error is a *health.SpecError.
func NewBreaker(spec health.BreakerSpec, told func(BreakerChange)) (*Breaker, error) {
	b, err := health.NewBreaker(spec)
	return &Breaker{state: b, told: told}, err
}

// Stats gives them at an instant of the clock of loads. It may be called from any goroutine.
func (b *Breaker) Stats(now int64) BreakerStats {
	s := BreakerStats{State: b.state.State(), Left: b.state.RetryAfter(now), HalfOpened: b.half.Load(), Closed: b.closed.Load(),
		Refused: b.refused.Load(), Fallbacks: b.fallbacks.Load()}
	for i := range s.Opened {
		s.Opened[i] = b.opened[i].Load()
	}
	return s
}

// Record gives the state for another process. It may be called from any goroutine.
func (b *Breaker) Record(now int64) health.BreakerRecord { return b.state.Record(now) }

// Restore puts a recorded state in force, before anybody uses b.
func (b *Breaker) Restore(r health.BreakerRecord, now int64) error { return b.state.Restore(r, now) }

// pass is an exchange that a breaker has let through.
type pass struct {
	breaker *Breaker // nil: none was asked
	permit  health.Permit
	began   int64
}

// enter lets x pass, or not.
func (b *Breaker) enter(x *core.Exchange) (pass, bool) {
	now := x.Worker.Loop.Now()
	p, ok := b.state.Allow(now)
	if !ok {
		b.refused.Add(1)
		return pass{}, false
	}
	if b.state.State() == health.HalfOpen && b.spell.Swap(uint32(p)) != uint32(p) {
		b.half.Add(1)
		b.told(BreakerChange{BreakerChange: health.BreakerChange{Changed: true, To: health.HalfOpen}})
	}
	return pass{b, p, now}, true
}

// leave says what x came to in the end, once there is the head of an answer or none will come. asked is false if x was refused here, which
// says nothing.
func (p *pass) leave(x *core.Exchange, asked bool) {
	b := p.breaker
	if b == nil {
		return
	}
	failed, says := verdict(x)
	if !asked || !says {
		b.state.Cancel(p.permit)
		return
	}
	now := x.Worker.Loop.Now()
	took := now - p.began
	if x.Err == nil {
		took = x.Times.Head - p.began
	}
	c := b.state.Report(p.permit, failed, time.Duration(took), now)
	if !c.Changed {
		return
	}
	change := BreakerChange{BreakerChange: c}
	if c.To == health.Open {
		b.opened[c.Cause].Add(1)
		change.Cooldown = b.state.RetryAfter(now)
		change.Requests, change.Failures, change.Slow = b.state.Counts()
	} else {
		b.closed.Add(1)
	}
	b.told(change)
}

// verdict says whether x failed, as far as those are to blame who were asked; says is false if nothing can be said.
func verdict(x *core.Exchange) (failed, says bool) {
	if x.Err != nil && x.Err.Side == core.SideUpstream && x.Err.Retry == core.RetryRefused {
		return true, true // by every endpoint that was tried
	}
	o, says := outcome(x, x.Err, x.Err == nil)
	return o != health.Success, says
}

var (
	errBreakerOpen = &core.Error{Status: 503, Reason: "breaker_open", Side: core.SideUpstream}
	breakerRefusal = core.NewRefusal(errBreakerOpen.Status, errBreakerOpen.Reason, "", nil)
)

// standIn answers x while g's breaker does not let it pass; asked is whether an upstream was asked.
func (p *Proxy) standIn(x *core.Exchange, g *Gate, given *cookies, depth int) (asked bool) {
	switch f := &g.Fallback; {
	case f.To != nil && depth < maxFallbacks:
		g.Breaker.fallbacks.Add(1)
		blame(x)
		return p.ask(x, f.To.whole, given, depth+1)
	case f.Respond != nil:
		g.Breaker.fallbacks.Add(1)
		f.Respond.Answer(x)
		x.Err = errBreakerOpen // for the log: the client is not told
		return false
	}
	breakerRefusal.Answer(x, errBreakerOpen)
	if left := g.Breaker.state.RetryAfter(x.Worker.Loop.Now()); !x.Request.GRPC {
		line := x.Response.Begin(core.FieldRetryAfter.String())
		line.SetBuffer(strconv.AppendInt(line.Buffer(), max(1, int64((left+time.Second-1)/time.Second)), 10))
		line.End(core.FieldRetryAfter)
	}
	return false
}
