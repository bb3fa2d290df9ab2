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
	b := p.lanes[loop].branches[i]
	r := Report{Counts: *b.counts}
	for _, c := range b.accounts {
		if c.lease != nil {
			s := c.lease.Stats()
			r.Leases.Hits += s.Hits
			r.Leases.Misses += s.Misses
		}
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

// Stats are of the tables of level i together. They may be read from anywhere.
func (p *Policy) Stats(i int) (sum limits.Stats) {
	add := func(s limits.Stats) {
		sum.Capacity += s.Capacity
		sum.Bytes += s.Bytes
		sum.Slots += s.Slots
		sum.Used += s.Used
		sum.Evicted += s.Evicted
		sum.Untracked += s.Untracked
	}
	for j := range p.buckets[i] {
		b := &p.buckets[i][j]
		add(b.limit.Stats())
		if b.cluster != nil {
			add(b.cluster.Table())
		}
	}
	return sum
}

// Shared is what the cluster's part of level i has counted; false: it has none that leases. It may be called from anywhere.
func (p *Policy) Shared(i int) (sum limits.ClusterStats, away, ok bool) {
	for j := range p.buckets[i] {
		c := p.buckets[i][j].cluster
		if c == nil {
			continue
		}
		s := c.Stats()
		sum.Asks += s.Asks
		sum.Unasked += s.Unasked
		sum.Granted += s.Granted
		sum.Failures += s.Failures
		sum.Alone += s.Alone
		away, ok = away || c.Gone(), true
	}
	return sum, away, ok
}

// Rates are those of level i: the level's own first.
func (p *Policy) Rates(i int) []Rate { return p.rates[i].all }

// Peek says what remains of a rate of level i for the key of these values: of the cluster's bucket, where it is one, and if the cluster
// answers in time. It may be called from anywhere but a loop, and takes nothing. What loops hold of it counts as taken.
func (p *Policy) Peek(i, rate int, values []string, now int64) (d limits.Decision, ok bool) {
	key, ok := p.spec.Levels[i].Keys.Named(values)
	if !ok {
		return d, false
	}
	if b := p.rates[i].all[rate].Buckets; b != nil {
		if d, err := b.Peek(key); err == nil {
			return d, true
		}
	}
	return p.buckets[i][rate].limit.Peek(key, 0, now), true
}

// Settle gives back all that the loop holds. It is called on the loop.
func (p *Policy) Settle(loop int) { p.lanes[loop].move(p.buckets, len(p.lanes)) }

// Forget makes the key of these values one of which nothing is taken, at all rates of level i, and in the cluster. It may be called from
// anywhere but a loop, after Settle on every loop.
func (p *Policy) Forget(i int, values []string) (known, ok bool, err error) {
	key, ok := p.spec.Levels[i].Keys.Named(values)
	if !ok {
		return false, false, nil
	}
	for j := range p.buckets[i] {
		b := &p.buckets[i][j]
		known = b.limit.Forget(key) || known
		if b.cluster != nil {
			known = b.cluster.Forget(key) || known
		}
		if there := p.rates[i].all[j].Buckets; there != nil {
			used, failed := there.Forget(key)
			known = known || used
			if failed != nil {
				err = failed
			}
		}
	}
	return known, true, err
}
