package ratelimit

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// maxLeased is the most that a limits.Cluster can hold of a bucket. Of one that is larger it is told the same rate, of less time.
const maxLeased = 1 << 16

// scaled is a window's rate, as a limits.Cluster can be told of it.
func scaled(w limits.Window) (limit uint32, period time.Duration) {
	if w.Limit <= maxLeased {
		return w.Limit, w.Period
	}
	return maxLeased, max(time.Duration(float64(w.Period)*maxLeased/float64(w.Limit)), time.Millisecond)
}

// awayRetry is what those are told who are refused because the cluster is away.
const awayRetry = time.Second

// takeStrict takes of the cluster's buckets, or does what is to be done while it is away: then nobody waits.
func (p *Policy) takeStrict(x *core.Exchange, a *lane, n *note) limits.Decision {
	var levels [limits.MaxLevels]*redis.Buckets // one of its own, for that of await outlives it
	p.shared(n, &levels)
	if p.spec.Cluster.AwayFor(levels[:len(p.rates)], n.asks[:len(p.rates)]) {
		p.spec.Cluster.CountAlone()
	} else if d, err := p.await(x, a, n); err == nil {
		return d
	}
	n.alone = true
	switch p.spec.Away {
	case limits.AwayLocal:
		return a.take(x.Worker.Loop.Wall())
	case limits.AwayAllow:
		return limits.Decision{Allowed: true}
	}
	return limits.Decision{RetryAfter: awayRetry}
}

// await asks the cluster beside the loop. n holds what is asked, for others are decided on meanwhile.
func (p *Policy) await(x *core.Exchange, a *lane, n *note) (d limits.Decision, err error) {
	var levels [limits.MaxLevels]*redis.Buckets
	p.shared(n, &levels)
	x.Worker.Loop.Await(func() { d, err = p.spec.Cluster.Take(levels[:len(p.rates)], n.asks[:len(p.rates)]) })
	a.resume(n)
	return d, err
}

// shared are the cluster's buckets of what was chosen for a request.
func (p *Policy) shared(n *note, to *[limits.MaxLevels]*redis.Buckets) {
	for i := range p.rates {
		to[i] = p.rates[i].all[n.chosen[i]].Buckets
	}
}

// settle takes what the response says that its request has cost, less what was taken before; or gives back what that was too much. A
// response that says nothing, or no number, has cost what was taken.
func (p *Policy) settle(x *core.Exchange, n *note) {
	after := p.spec.After
	cost, ok := costOf(&x.Response, after)
	if after.Remove {
		x.Response.RemoveName(after.Header)
	}
	if !ok || !n.admitted || cost == p.spec.Cost || n.alone && p.spec.Away != limits.AwayLocal {
		return
	}
	n.admitted = false // of one exchange once
	if cost > p.spec.Cost {
		n.Remaining -= min(n.Remaining, cost-p.spec.Cost)
	} else {
		n.Remaining += p.spec.Cost - cost
	}
	a, now := p.lanes[x.Worker.Loop.Index()], x.Worker.Loop.Wall()
	for i := range p.rates {
		ask := &n.asks[i]
		if ask.Cost == 0 {
			continue
		}
		if p.spec.Mode == Strict && !n.alone {
			if b := p.rates[i].all[n.chosen[i]].Buckets; cost > ask.Cost {
				b.Charge(ask.Key, cost-ask.Cost)
			} else {
				b.Refund(ask.Key, ask.Cost-cost)
			}
			continue
		}
		if c := a.branches[i].accounts[n.chosen[i]]; cost > ask.Cost {
			c.charge(ask.Key, cost-ask.Cost, now)
		} else {
			c.Refund(ask.Key, ask.Cost-cost, n.at, now)
		}
	}
}

// costOf reads the one field that tells the cost; false: there is none, or it is no number.
func costOf(m *core.Message, after *After) (cost uint32, ok bool) {
	v, n := m.Single(after.Header)
	if n != 1 || len(v) == 0 {
		return 0, false
	}
	sum := uint64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		sum = min(10*sum+uint64(c-'0'), uint64(after.Max)) // the bound keeps it from wrapping
	}
	return uint32(sum), true
}
