package ratelimit

import (
	"math/rand/v2"

	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

// note is what is remembered of a decision until the response.
type note struct {
	limits.Decision
	tells    bool // the client is told
	admitted bool // it took what asks say
	alone    bool // it should have been the cluster's
	at       int64
	asks     [limits.MaxLevels]limits.Ask
	chosen   [limits.MaxLevels]int // rates
}

const (
	maxFree = 1024
	// leaseKeys is for how many keys a loop holds tokens: few enough for one Settle to see all.
	leaseKeys   = 64
	settleEvery = int64(50 * 1e6)
	// settleFor is how long after the last take there may be something to settle.
	settleFor = int64(300 * 1e6)
)

// lane is what one loop has of a policy. Nobody else touches it.
type lane struct {
	loop      *loop.Loop
	branches  []*branch // by level
	hierarchy *limits.Hierarchy
	asks      []limits.Ask
	chosen    [limits.MaxLevels]int // rates, of the exchange that is decided on
	leased    bool                  // some account is
	blamed    *blamed
	free      []*note
	random    *rand.Rand

	timer *loop.Timer // settles leases while they are used
	armed bool
	used  int64 // when they last were
}

// newLane makes a lane, off the loop. It has the accounts of the lane before; move makes them ready.
func (p *Policy) newLane(l *loop.Loop, before *Policy, index, loops int) (*lane, error) {
	a := &lane{loop: l, asks: make([]limits.Ask, len(p.rates)), blamed: &blamed{}, random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	if before != nil {
		a.blamed = before.lanes[index].blamed
	}
	var levels []limits.Level
	for i := range p.rates {
		level := &p.spec.Levels[i]
		old := before.find(level.Name)
		b := &branch{counts: &Counts{}}
		if old >= 0 {
			b.counts = before.lanes[index].branches[old].counts
		}
		for j := range p.rates[i].all {
			c := &account{bucket: p.buckets[i][j]}
			if k := before.rate(old, p.rates[i].all[j].Name); k >= 0 {
				c = before.lanes[index].branches[old].accounts[k]
			} else if level.Leased {
				var err error
				if c.lease, err = limits.NewLease(c.limit, loops, leaseKeys); err != nil {
					return nil, err
				}
			}
			b.accounts = append(b.accounts, c)
		}
		b.now = b.accounts[0]
		a.leased = a.leased || level.Leased
		a.branches = append(a.branches, b)
		if len(b.accounts) == 1 { // there is nothing to choose
			levels = append(levels, b.now)
		} else {
			levels = append(levels, b)
		}
	}
	a.timer = l.NewTimer(a.settle)
	var err error
	a.hierarchy, err = limits.NewHierarchy(levels...)
	return a, err
}

// move makes the accounts go on with these buckets. What is leased goes back first.
func (a *lane) move(to [][]bucket, loops int) {
	for i, b := range a.branches {
		for j, c := range b.accounts {
			c.bucket = to[i][j]
			if c.lease != nil {
				c.lease.Move(c.limit, loops, a.loop.Wall())
			}
		}
	}
}

// choose makes level i take of the account of a rate.
func (a *lane) choose(i, rate int) {
	a.chosen[i] = rate
	a.branches[i].now = a.branches[i].accounts[rate]
}

func (a *lane) take(now int64) limits.Decision {
	if a.leased {
		a.used = a.loop.Now()
		if !a.armed {
			a.armed = true
			a.timer.At(a.used + settleEvery)
		}
	}
	if len(a.branches) > 1 {
		return a.hierarchy.Take(a.asks, now)
	}
	if a.asks[0].Cost == 0 {
		return limits.Decision{Allowed: true}
	}
	return a.branches[0].now.Take(a.asks[0].Key, a.asks[0].Cost, now)
}

// settle gives back what is not used, as long as somebody takes and a little longer.
func (a *lane) settle() {
	for _, b := range a.branches {
		for _, c := range b.accounts {
			if c.lease != nil {
				c.lease.Settle(a.loop.Wall())
			}
		}
	}
	if now := a.loop.Now(); now-a.used < settleFor {
		a.timer.At(now + settleEvery)
		return
	}
	a.armed = false
}

// noteOf notes what the exchange that is decided on asks for.
func (a *lane) noteOf() *note {
	var n *note
	if last := len(a.free) - 1; last < 0 {
		n = &note{}
	} else {
		n, a.free = a.free[last], a.free[:last]
		n.tells, n.admitted, n.alone = false, false, false
	}
	n.at = a.loop.Wall()
	copy(n.asks[:], a.asks)
	copy(n.chosen[:], a.chosen[:len(a.asks)])
	return n
}

// resume makes the exchange of n the one that is decided on: others were meanwhile.
func (a *lane) resume(n *note) {
	copy(a.asks, n.asks[:])
	for i := range a.branches {
		a.choose(i, n.chosen[i])
	}
}

func (a *lane) done(n *note) {
	if len(a.free) < maxFree {
		a.free = append(a.free, n)
	}
}
