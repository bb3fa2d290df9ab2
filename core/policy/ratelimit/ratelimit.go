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
		a, err := p.newLane(w.Loop, len(workers))
		if err != nil {
			return err
		}
		p.lanes = append(p.lanes, a)
		if before != nil {
			w.Loop.Post(func() { a.inherit(before.lanes[i], from, len(workers)) })
		}
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
	for i, c := range a.counts {
		if a.asks[i].Cost > 0 {
			c.Allowed++
		}
	}
	if !p.spec.HideHeaders && !p.spec.DryRun && d.Limit > 0 {
		x.Keep(a.note(d))
	}
	if d.Delay > 0 && !p.spec.DryRun {
		a.delayed++
		return wait(x, d.Delay)
	}
	return core.Continue
}

// refuse answers, unless the request is one of those that are only counted.
func (p *Policy) refuse(x *core.Exchange, a *lane, d limits.Decision) core.Verdict {
	level := &p.spec.Levels[d.Level]
	a.blame(a.asks[d.Level].Key, level.Keys, x)
	if p.spec.DryRun || p.spec.Share < 1 && a.random.Float64() >= p.spec.Share {
		a.counts[d.Level].Passed++
		return core.Continue
	}
	a.counts[d.Level].Refused++
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

// Counts are of one level, on one loop.
type Counts struct {
	Allowed uint64 // took of it
	Refused uint64 // because of it
	Passed  uint64 // would have been refused but for dry_run or share
}

const (
	maxFree = 1024
	topKeys = 32 // refused most often that are remembered
	// leaseKeys is for how many keys a loop holds tokens: few enough for one Settle to see all.
	leaseKeys   = 64
	settleEvery = int64(50 * time.Millisecond)
	// settleFor is how long after the last take there may be something to settle.
	settleFor = int64(300 * time.Millisecond)
)

// lane is what one loop has of a policy. Nobody else touches it.
type lane struct {
	loop      *loop.Loop
	limits    []*limits.Limit // by level
	levels    []limits.Level  // likewise: the limit, or the loop's lease of it
	hierarchy *limits.Hierarchy
	asks      []limits.Ask
	leases    []*limits.Lease // by level; nil: it has none
	leased    bool
	past      []limits.LeaseStats // by level, of the policies before
	counts    []*Counts           // by level, shared with the policies before
	delayed   uint64
	top       *limits.Top // made when somebody is refused
	label     []byte      // memory for a key's text
	free      []*note
	random    *rand.Rand

	timer *loop.Timer // settles leases while they are used
	armed bool
	used  int64 // when they last were
}

func (p *Policy) newLane(l *loop.Loop, loops int) (*lane, error) {
	n := len(p.spec.Levels)
	a := &lane{loop: l, limits: p.limits, asks: make([]limits.Ask, n), leases: make([]*limits.Lease, n), past: make([]limits.LeaseStats, n),
		random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	for i := range p.spec.Levels {
		var level limits.Level = p.limits[i]
		if p.spec.Levels[i].Leased {
			e, err := limits.NewLease(p.limits[i], loops, leaseKeys)
			if err != nil {
				return nil, err
			}
			level, a.leases[i], a.leased = e, e, true
		}
		a.levels = append(a.levels, level)
		a.counts = append(a.counts, &Counts{})
	}
	a.timer = l.NewTimer(a.settle)
	var err error
	a.hierarchy, err = limits.NewHierarchy(a.levels...)
	return a, err
}

// inherit goes on where the lane of the policy before has stopped, which gives back what it holds.
func (a *lane) inherit(before *lane, from []int, loops int) {
	a.top, a.delayed = before.top, before.delayed
	for i, j := range from {
		if j >= 0 {
			a.counts[i] = before.counts[j]
			a.past[i] = before.leaseStats(j)
		}
	}
	before.end(loops)
}

// end gives back what the leases hold. Exchanges that began before may still take of them: the timer sees to what is left.
func (a *lane) end(loops int) {
	for i, e := range a.leases {
		if e != nil {
			e.Move(a.limits[i], loops, a.loop.Wall())
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
	if len(a.levels) > 1 {
		return a.hierarchy.Take(a.asks, now)
	}
	if a.asks[0].Cost == 0 {
		return limits.Decision{Allowed: true}
	}
	return a.levels[0].Take(a.asks[0].Key, a.asks[0].Cost, now)
}

// settle gives back what is not used, as long as somebody takes and a little longer.
func (a *lane) settle() {
	for _, e := range a.leases {
		if e != nil {
			e.Settle(a.loop.Wall())
		}
	}
	if now := a.loop.Now(); now-a.used < settleFor {
		a.timer.At(now + settleEvery)
		return
	}
	a.armed = false
}

// blame remembers whom a level has refused.
func (a *lane) blame(key limits.Key, keys *core.KeyRecipe, x *core.Exchange) {
	if a.top == nil {
		a.top, _ = limits.NewTop(topKeys) // fails only for a number out of range
	}
	a.label = keys.AppendText(a.label[:0], x)
	a.top.Add(key, a.label)
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
