package compile

import (
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// adaptive is the limit of an upstream that is found by how long requests take, with the spec that it goes by.
type adaptive struct {
	limit *health.Concurrency // nil: there is none
	spec  health.ConcurrencySpec
}

// concurrencySpec is what health wants of a.
func concurrencySpec(a *config.Adaptive) health.ConcurrencySpec {
	return health.ConcurrencySpec{MaxLimit: a.MaxLimit, MinConcurrency: a.MinConcurrency, UpdateInterval: a.UpdateInterval, Percentile: a.Percentile,
		MeasureInterval: a.MeasureInterval, MeasureJitter: a.MeasureJitter, MeasureRequests: a.MeasureRequests, Buffer: a.Buffer}
}

// admission makes the bounds of u, whose limit goes on with what it has learned if nothing of its spec has changed. It needs the lock.
func (d *discovered) admission(u *config.Upstream) *upstream.Admission {
	switch a := u.Adaptive; {
	case a == nil:
		d.adaptive = adaptive{}
	case d.adaptive.limit == nil || d.adaptive.spec != concurrencySpec(a):
		spec := concurrencySpec(a)
		limit, err := health.NewConcurrency(spec, source(), d.upstream.Clock())
		if err != nil {
			panic("BUG: compile: concurrency: " + err.Error()) // the grammar lets through what health takes
		}
		d.adaptive = adaptive{limit, spec}
	}
	return d.upstream.NewAdmission(u.Pool.MaxRequests, d.adaptive.limit)
}

// Limit is the limit on the requests of an upstream that is found by how long they take; nil: there is none. It may be called from any
// goroutine.
func (c *Compiled) Limit(name string) *health.Concurrency {
	d := c.found[name]
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.adaptive.limit
}
