package ratelimit

import (
	"github.com/sluice-gateway/sluice/limits"
)

// Report is what one loop has counted of a level, with what policies of that name before counted there.
type Report struct {
	Counts
	Leases limits.LeaseStats
}

// Report tells of level i. It is called on the loop.
func (p *Policy) Report(loop, i int) Report {
	c := p.lanes[loop].accounts[i]
	r := Report{Counts: c.counts}
	if c.lease != nil {
		r.Leases = c.lease.Stats()
	}
	return r
}

// Delayed is how many requests a leaky bucket made wait. It is called on the loop.
func (p *Policy) Delayed(loop int) uint64 { return p.lanes[loop].blamed.delayed }

// Top gives a copy of who was refused most, nil: nobody was. It is called on the loop.
func (p *Policy) Top(loop int) *limits.Top {
	b := p.lanes[loop].blamed
	if b.top == nil {
		return nil
	}
	t, _ := limits.NewTop(topKeys) // fails only for a number out of range
	t.Merge(b.top)
	return t
}

// Stats are of the table of level i. They may be read from anywhere.
func (p *Policy) Stats(i int) limits.Stats { return p.limits[i].Stats() }

// Peek says what remains of level i for the key of these values. It may be called from anywhere, and takes nothing. What loops hold
// of it counts as taken.
func (p *Policy) Peek(i int, values []string, now int64) (d limits.Decision, ok bool) {
	key, ok := p.spec.Levels[i].Keys.Named(values)
	if !ok {
		return d, false
	}
	return p.limits[i].Peek(key, 0, now), true
}

// Settle gives back all that the loop holds. It is called on the loop.
func (p *Policy) Settle(loop int) { p.lanes[loop].move(p.limits, len(p.lanes)) }

// Forget makes the key of these values one of which nothing is taken. It may be called from anywhere, after Settle on every loop.
func (p *Policy) Forget(i int, values []string) (known, ok bool) {
	key, ok := p.spec.Levels[i].Keys.Named(values)
	if !ok {
		return false, false
	}
	return p.limits[i].Forget(key), true
}
