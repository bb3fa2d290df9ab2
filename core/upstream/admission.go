package upstream

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/health"
)

// Admission bounds what an upstream has under way: exchanges, from before an endpoint is chosen until the answer has ended, whether they
// wait, are asked again or stream. It belongs to one configuration; the counts are the upstream's, or the limit's own.
type Admission struct {
	upstream *Upstream
	most     int64               // 0: no bound
	limit    *health.Concurrency // nil: none
}

// NewAdmission gives the bounds of a configuration; nil: there are none. Of maxRequests 0 is no bound, and of limit nil.
func (u *Upstream) NewAdmission(maxRequests int, limit *health.Concurrency) *Admission {
	if maxRequests == 0 && limit == nil {
		return nil
	}
	return &Admission{upstream: u, most: int64(maxRequests), limit: limit}
}

// Active is the number of exchanges under way, as long as they are bounded.
func (u *Upstream) Active() int { return int(u.active.Load()) }

var (
	errMaxRequests   = &core.Error{Status: 503, Reason: "max_requests", Side: core.SideUpstream}
	errConcurrency   = &core.Error{Status: 503, Reason: "concurrency_limit", Side: core.SideUpstream}
	requestsRefusal  = core.NewRefusal(errMaxRequests.Status, errMaxRequests.Reason, "", nil)
	concurrencyLimit = core.NewRefusal(errConcurrency.Status, errConcurrency.Reason, "", nil)
)

// enter takes x in, which then holds its place until it has ended, or refuses it at once.
func (a *Admission) enter(x *core.Exchange) bool {
	if a.most > 0 && a.upstream.active.Add(1) > a.most {
		a.upstream.active.Add(-1)
		requestsRefusal.Answer(x, errMaxRequests)
		return false
	}
	if a.limit != nil && !a.limit.Acquire() {
		if a.most > 0 {
			a.upstream.active.Add(-1)
		}
		concurrencyLimit.Answer(x, errConcurrency)
		return false
	}
	x.Hold, x.Times.Admitted = a, x.Worker.Loop.Now()
	return true
}

// OnEnd gives back what x holds. What it came to tells how long the upstream takes, but for failures and those who left.
func (a *Admission) OnEnd(x *core.Exchange) {
	if a.most > 0 {
		a.upstream.active.Add(-1)
	}
	switch t := &x.Times; {
	case a.limit == nil:
	case x.Err != nil || x.Response.Status >= 500 || t.Head < t.Admitted:
		a.limit.Cancel()
	default:
		a.limit.ReleaseAnswered(t.Admitted, t.Head, x.Worker.Loop.Now())
	}
}
