// Package ratelimit is the policy that bounds requests in time: the mechanism is package limits, this one asks it for each
// request, and tells the client.
//
// A policy has one level or several, from the outermost to the innermost, such as the whole gateway and a client. All of them
// are one decision. Levels of which many requests take, because there is one key for all or one for a route, are asked
// through leases of their loop; the others directly.
package ratelimit

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

// Missing is what becomes of a request that lacks the key of a level.
type Missing uint8

// What may be done: all such requests share a bucket, they are not counted there, or they are refused.
const (
	Shared Missing = iota
	Allow
	Deny
)

// Level is one bound, as it is configured.
type Level struct {
	Name    string // in metrics
	Windows []limits.Window
	Keys    *core.KeyRecipe
	Leased  bool        // many requests take of few keys
	Err     *core.Error // of those that it refuses
	Titles  []string    // what clients call its windows: one for each
}

// Spec is what a Policy is made of. It is copied.
type Spec struct {
	Levels        []Level // 1 to limits.MaxLevels
	Capacity      int     // keys of a level that has more than one
	Cost          uint32
	Missing       Missing
	HideHeaders   bool
	LegacyHeaders bool    // X-RateLimit-* too
	Share         float64 // of the requests over a limit that are refused: 1 all of them
	DryRun        bool    // none is, and no header tells of the limit
	Refusal       *core.Refusal
}

// Policy is the policy. Start makes it ready. From then on it is immutable, but for its lanes, each of which belongs to one loop.
type Policy struct {
	spec   Spec
	limits []*limits.Limit // by level
	texts  texts
	lanes  []*lane // by loop
}

// New makes a policy. It takes no memory for keys before Start.
func New(s Spec) *Policy {
	p := &Policy{spec: s}
	p.spec.Levels = append([]Level(nil), s.Levels...)
	p.texts = newTexts(p.spec.Levels)
	return p
}

// Check says whether Start will be able to make the limits.
func (p *Policy) Check() error {
	for i := range p.spec.Levels {
		if _, err := limits.NewLimit(limits.Spec{Windows: p.spec.Levels[i].Windows}); err != nil {
			return err
		}
	}
	return nil
}

// capacity is how many keys a level has room for.
func (p *Policy) capacity(l *Level) int {
	if l.Keys.One() {
		return limits.MinCapacity
	}
	return p.spec.Capacity
}

// Bytes is the memory that the tables of level i take.
func (p *Policy) Bytes(i int) int { return limits.TableBytes(p.capacity(&p.spec.Levels[i])) }

// Levels is how many there are.
func (p *Policy) Levels() int { return len(p.spec.Levels) }

// Level is how level i is configured.
func (p *Policy) Level(i int) *Level { return &p.spec.Levels[i] }

// Start makes p ready, off the loops, with what before has counted: levels of one name keep their buckets, though their rates be
// others. nil: there is none. p is in use once what Start has posted to the loops has run.
func (p *Policy) Start(workers []*core.Worker, before *Policy, now int64) error {
	from := make([]int, len(p.spec.Levels)) // the level of before; -1: none
	for i := range p.spec.Levels {
		l := &p.spec.Levels[i]
		s := limits.Spec{Windows: l.Windows, Capacity: p.capacity(l)}
		var limit *limits.Limit
		var err error
		if from[i] = before.find(l.Name); from[i] >= 0 {
			limit, err = before.limits[from[i]].Reconfigure(s, now)
		} else {
			limit, err = limits.NewLimit(s)
		}
		if err != nil {
			return err
		}
		p.limits = append(p.limits, limit)
	}
	for i, w := range workers {
		var old *lane
		if before != nil {
			old = before.lanes[i]
		}
		a, err := p.newLane(w.Loop, old, from, len(workers))
		if err != nil {
			return err
		}
		p.lanes = append(p.lanes, a)
		w.Loop.Post(func() { a.move(p.limits, len(workers)) })
	}
	return nil
}

func (p *Policy) find(name string) int {
	if p == nil {
		return -1
	}
	for i := range p.spec.Levels {
		if p.spec.Levels[i].Name == name {
			return i
		}
	}
	return -1
}

// OnRequest takes of all levels, or refuses.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	l := x.Worker.Loop
	a := p.lanes[l.Index()]
	lacks := -1
	for i := range p.spec.Levels {
		key, missing := p.spec.Levels[i].Keys.Key(x)
		a.asks[i] = limits.Ask{Key: key, Cost: p.spec.Cost}
		if missing && p.spec.Missing != Shared {
			a.asks[i].Cost = 0
			if p.spec.Missing == Deny && lacks < 0 {
				lacks = i
			}
		}
	}
	var d limits.Decision
	if lacks >= 0 {
		d.Level = uint8(lacks)
	} else {
		d = a.take(l.Wall())
	}
	if !d.Allowed {
		return p.refuse(x, a, d)
	}
	for i, c := range a.accounts {
		if a.asks[i].Cost > 0 {
			c.counts.Allowed++
		}
	}
	if !p.spec.HideHeaders && !p.spec.DryRun && d.Limit > 0 {
		x.Keep(a.note(d))
	}
	if d.Delay > 0 && !p.spec.DryRun {
		a.blamed.delayed++
		return wait(x, d.Delay)
	}
	return core.Continue
}

// refuse answers, unless the request is one of those that are only counted.
func (p *Policy) refuse(x *core.Exchange, a *lane, d limits.Decision) core.Verdict {
	level := &p.spec.Levels[d.Level]
	a.blamed.add(a.asks[d.Level].Key, level.Keys, x)
	if p.spec.DryRun || p.spec.Share < 1 && a.random.Float64() >= p.spec.Share {
		a.accounts[d.Level].counts.Passed++
		return core.Continue
	}
	a.accounts[d.Level].counts.Refused++
	x.Keep(a.note(d))
	p.spec.Refusal.Answer(x, level.Err)
	return core.Respond
}

// wait delays a request that a leaky bucket has admitted. A client who leaves meanwhile keeps his place in the queue, so that those
// behind him leave when they were told to.
func wait(x *core.Exchange, delay time.Duration) core.Verdict {
	l := x.Worker.Loop
	until := l.Now() + int64(delay)
	l.Watch(x.Downstream.Conn())
	var err error
	for err == nil { // whoever wakes the task before its time wants something else of it
		err = l.Park(until)
	}
	l.Watch(nil)
	switch err {
	case loop.ErrTimeout:
		return core.Continue
	case loop.ErrHangup:
		x.Fail(core.ErrClientGone)
	default:
		x.Fail(core.ErrStopping)
	}
	return core.Respond
}

// OnResponse tells the client of the limit.
func (p *Policy) OnResponse(x *core.Exchange) {
	if n, ok := x.Kept().(*note); ok {
		p.tell(&x.Response, &n.Decision)
	}
}

// OnEnd takes back what OnRequest noted.
func (p *Policy) OnEnd(x *core.Exchange) {
	if n, ok := x.Kept().(*note); ok {
		p.lanes[x.Worker.Loop.Index()].done(n)
	}
}

// note is what is remembered of a decision until the response.
type note struct{ limits.Decision }

const (
	maxFree = 1024
	// leaseKeys is for how many keys a loop holds tokens: few enough for one Settle to see all.
	leaseKeys   = 64
	settleEvery = int64(50 * time.Millisecond)
	// settleFor is how long after the last take there may be something to settle.
	settleFor = int64(300 * time.Millisecond)
)

// lane is what one loop has of a policy. Nobody else touches it.
type lane struct {
	loop      *loop.Loop
	accounts  []*account // by level, shared with the policies before and after
	hierarchy *limits.Hierarchy
	asks      []limits.Ask
	leased    bool // some account is
	blamed    *blamed
	free      []*note
	random    *rand.Rand

	timer *loop.Timer // settles leases while they are used
	armed bool
	used  int64 // when they last were
}

// newLane makes a lane, off the loop. It has the accounts of the lane before; move makes them ready.
func (p *Policy) newLane(l *loop.Loop, before *lane, from []int, loops int) (*lane, error) {
	a := &lane{loop: l, asks: make([]limits.Ask, len(from)), blamed: &blamed{}, random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	if before != nil {
		a.blamed = before.blamed
	}
	var levels []limits.Level
	for i, j := range from {
		c := &account{limit: p.limits[i]}
		if j >= 0 {
			c = before.accounts[j]
		} else if p.spec.Levels[i].Leased {
			var err error
			if c.lease, err = limits.NewLease(p.limits[i], loops, leaseKeys); err != nil {
				return nil, err
			}
		}
		a.leased = a.leased || p.spec.Levels[i].Leased
		a.accounts, levels = append(a.accounts, c), append(levels, c)
	}
	a.timer = l.NewTimer(a.settle)
	var err error
	a.hierarchy, err = limits.NewHierarchy(levels...)
	return a, err
}

// move makes the accounts go on with these limits. What is leased goes back first.
func (a *lane) move(to []*limits.Limit, loops int) {
	for i, c := range a.accounts {
		c.limit = to[i]
		if c.lease != nil {
			c.lease.Move(to[i], loops, a.loop.Wall())
		}
	}
}

func (a *lane) take(now int64) limits.Decision {
	if a.leased {
		a.used = a.loop.Now()
		if !a.armed {
			a.armed = true
			a.timer.At(a.used + settleEvery)
		}
	}
	if len(a.accounts) > 1 {
		return a.hierarchy.Take(a.asks, now)
	}
	if a.asks[0].Cost == 0 {
		return limits.Decision{Allowed: true}
	}
	return a.accounts[0].Take(a.asks[0].Key, a.asks[0].Cost, now)
}

// settle gives back what is not used, as long as somebody takes and a little longer.
func (a *lane) settle() {
	for _, c := range a.accounts {
		if c.lease != nil {
			c.lease.Settle(a.loop.Wall())
		}
	}
	if now := a.loop.Now(); now-a.used < settleFor {
		a.timer.At(now + settleEvery)
		return
	}
	a.armed = false
}

func (a *lane) note(d limits.Decision) *note {
	last := len(a.free) - 1
	if last < 0 {
		return &note{d}
	}
	n := a.free[last]
	n.Decision, a.free = d, a.free[:last]
	return n
}

func (a *lane) done(n *note) {
	if len(a.free) < maxFree {
		a.free = append(a.free, n)
	}
}
