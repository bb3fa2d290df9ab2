// Package concurrency is the policy that bounds how many requests are in flight, for each key: from when a request meets it until
// its exchange is over, however it ends. The mechanism is limits.Concurrency.
//
// What is in flight is held on a lease, so that one whose end is missed does not keep its place for ever. Long exchanges, such
// as tunnels, are renewed by a timer of their loop.
package concurrency

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

// Missing is what becomes of a request that lacks the key.
type Missing uint8

// What may be done: all such requests share a bucket, they are not counted, or they are refused.
const (
	Shared Missing = iota
	Allow
	Deny
)

// Spec is what a Policy is made of.
type Spec struct {
	Limit    uint32
	Hold     time.Duration // a second at least
	Keys     *core.KeyRecipe
	Capacity int // keys
	Missing  Missing
	DryRun   bool // nobody is refused
	Refusal  *core.Refusal
	Err      *core.Error
}

// Policy is the policy. Start makes it ready. From then on it is immutable, but for its lanes, each of which belongs to one loop.
type Policy struct {
	spec   Spec
	flight *limits.Concurrency
	lanes  []*lane // by loop
}

// New makes a policy. It takes no memory for keys before Start.
func New(s Spec) *Policy {
	if s.Keys.One() {
		s.Capacity = limits.MinCapacity
	}
	return &Policy{spec: s}
}

// Check says whether Start will be able to make the limit.
func (p *Policy) Check() error {
	_, err := limits.NewConcurrency(p.spec.Limit, p.spec.Hold, 0)
	return err
}

// Bytes is the memory that the table takes.
func (p *Policy) Bytes() int { return limits.TableBytes(p.spec.Capacity) }

// Limit is how many may be in flight for a key.
func (p *Policy) Limit() uint32 { return p.spec.Limit }

// Keys says whose key it is.
func (p *Policy) Keys() *core.KeyRecipe { return p.spec.Keys }

// Err is what a refused request fails with.
func (p *Policy) Err() *core.Error { return p.spec.Err }

// Start makes p ready, off the loops, with what is in flight by the policy before; nil: there is none. p is in use once what Start
// has posted to the loops has run.
func (p *Policy) Start(workers []*core.Worker, before *Policy, now int64) (err error) {
	if before == nil {
		p.flight, err = limits.NewConcurrency(p.spec.Limit, p.spec.Hold, p.spec.Capacity)
	} else {
		p.flight, err = before.flight.Reconfigure(p.spec.Limit, p.spec.Hold, p.spec.Capacity, now)
	}
	if err != nil {
		return err
	}
	for i, w := range workers {
		a := &lane{loop: w.Loop, flight: p.flight, pause: int64(p.spec.Hold / 2), counts: &Counts{}}
		a.timer = w.Loop.NewTimer(a.renew)
		p.lanes = append(p.lanes, a)
		if before != nil {
			w.Loop.Post(func() { a.counts, a.top = before.lanes[i].counts, before.lanes[i].top })
		}
	}
	return nil
}

// Retire says that p is in force no more, which may be called once Start has been, off the loops. Its memory is not kept for longer than what
// is in flight by it.
func (p *Policy) Retire() {
	for _, a := range p.lanes {
		a.loop.Post(func() {
			a.retired = true
			a.rest()
		})
	}
}

// OnRequest takes a place, or refuses.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	a := p.lanes[x.Worker.Loop.Index()]
	key, missing := p.spec.Keys.Key(x)
	var d limits.Decision
	if missing && p.spec.Missing != Shared {
		if p.spec.Missing == Allow {
			return core.Continue
		}
	} else {
		var t limits.Ticket
		if t, d = p.flight.Begin(key, 1, x.Worker.Loop.Wall()); d.Allowed {
			a.counts.Allowed++
			x.Keep(a.hold(t))
			return core.Continue
		}
	}
	a.blame(key, p.spec.Keys, x)
	if p.spec.DryRun {
		a.counts.Passed++
		return core.Continue
	}
	a.counts.Refused++
	p.spec.Refusal.Answer(x, p.spec.Err)
	return core.Respond
}

// OnEnd gives the place back.
func (p *Policy) OnEnd(x *core.Exchange) {
	if h, ok := x.Kept().(*held); ok {
		p.lanes[x.Worker.Loop.Index()].release(h)
	}
}

// Counts are of one loop.
type Counts struct {
	Allowed uint64
	Refused uint64
	Passed  uint64 // would have been refused but for dry_run
}

// held is a place that is taken.
type held struct {
	ticket     limits.Ticket
	renewed    int64 // on the loop's clock
	prev, next *held // in the order of renewed
}

const (
	maxFree = 1024
	topKeys = 32 // refused most often that are remembered
	// renewStep bounds the work of one timer, and renewAgain is the pause before it goes on.
	renewStep  = 512
	renewAgain = int64(time.Millisecond)
)

// lane is what one loop has of a policy. Nobody else touches it.
type lane struct {
	loop         *loop.Loop
	flight       *limits.Concurrency
	pause        int64 // ns after which a place is renewed: less than a term
	oldest, last *held // of those that are taken
	timer        *loop.Timer
	armed        bool
	retired      bool
	counts       *Counts     // shared with the policies before
	top          *limits.Top // made when somebody is refused
	label        []byte      // memory for a key's text
	free         []*held
}

func (a *lane) hold(t limits.Ticket) *held {
	var h *held
	if n := len(a.free) - 1; n >= 0 {
		h, a.free = a.free[n], a.free[:n]
	} else {
		h = &held{}
	}
	h.ticket = t
	a.append(h)
	if !a.armed {
		a.armed = true
		a.timer.At(h.renewed + a.pause)
	}
	return h
}

func (a *lane) append(h *held) {
	h.renewed, h.prev, h.next = a.loop.Now(), a.last, nil
	if a.last != nil {
		a.last.next = h
	} else {
		a.oldest = h
	}
	a.last = h
}

func (a *lane) remove(h *held) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		a.oldest = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		a.last = h.prev
	}
}

func (a *lane) release(h *held) {
	a.flight.Release(h.ticket, a.loop.Wall())
	a.remove(h)
	if a.retired {
		a.rest()
	}
	*h = held{}
	if len(a.free) < maxFree {
		a.free = append(a.free, h)
	}
}

// rest stops the timer, which else runs on for a while when nothing is taken.
func (a *lane) rest() {
	if a.oldest == nil {
		a.armed = false
		a.timer.Stop()
	}
}

// renew renews the places that were taken, or renewed, half a term ago.
func (a *lane) renew() {
	now, wall := a.loop.Now(), a.loop.Wall()
	for range renewStep {
		h := a.oldest
		switch {
		case h == nil:
			a.armed = false
			return
		case h.renewed+a.pause > now:
			a.timer.At(h.renewed + a.pause)
			return
		}
		h.ticket = a.flight.Renew(h.ticket, wall)
		a.remove(h)
		a.append(h)
	}
	a.timer.At(now + renewAgain)
}

// blame remembers who was refused.
func (a *lane) blame(key limits.Key, keys *core.KeyRecipe, x *core.Exchange) {
	if a.top == nil {
		a.top, _ = limits.NewTop(topKeys) // fails only for a number out of range
	}
	a.label = keys.AppendText(a.label[:0], x)
	a.top.Add(key, a.label)
}

// Report is what the loop has counted, with what policies of that name before counted there. It is called on the loop.
func (p *Policy) Report(loop int) Counts { return *p.lanes[loop].counts }

// Top gives a copy of who was refused most, nil: nobody was. It is called on the loop.
func (p *Policy) Top(loop int) *limits.Top {
	a := p.lanes[loop]
	if a.top == nil {
		return nil
	}
	t, _ := limits.NewTop(topKeys) // fails only for a number out of range
	t.Merge(a.top)
	return t
}

// Stats are of the table. They may be read from anywhere.
func (p *Policy) Stats() limits.Stats { return p.flight.Stats() }

// InFlight is how many places are taken by the key of these values; false: they are none of a key. It may be called from anywhere.
func (p *Policy) InFlight(values []string, now int64) (n uint32, ok bool) {
	key, ok := p.spec.Keys.Named(values)
	if !ok {
		return 0, false
	}
	return p.flight.InFlight(key, now), true
}
