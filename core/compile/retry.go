package compile

import (
	"strconv"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// retryPolicy is what r says of attempts that fail.
func retryPolicy(r *config.Retry) *upstream.RetryPolicy {
	p := &upstream.RetryPolicy{
		Attempts:       r.Attempts,
		PerTry:         r.PerTry,
		Methods:        r.Methods,
		IdempotencyKey: r.IdempotencyKey,
		Base:           r.Backoff.Base,
		Max:            r.Backoff.Max,
		Even:           r.Backoff.Jitter == "none",
		RetryAfter:     r.RetryAfter,
		SameEndpoint:   !r.OtherEndpoint,
	}
	for _, name := range r.On {
		switch name {
		case "connect":
			p.On |= upstream.CausesOf(upstream.CauseConnect)
		case "refused":
			p.On |= upstream.CausesOf(upstream.CauseRefused)
		case "stale":
			p.On |= upstream.CausesOf(upstream.CauseStale)
		case "reset":
			p.On |= upstream.CausesOf(upstream.CauseStale, upstream.CauseReset)
		case "timeout":
			p.On |= upstream.CausesOf(upstream.CauseTimeout)
		case "gateway_error":
			p.On |= upstream.CausesOf(upstream.CauseMalformed)
			repeatStatuses(p, 502, 504)
		case "5xx":
			repeatStatuses(p, 500, 599)
		default:
			if status, err := strconv.Atoi(name); err == nil {
				repeatStatuses(p, status, status)
			} else {
				p.On |= upstream.CausesOf(upstream.CauseGRPC)
				p.GRPC |= 1 << core.GRPCStatusNamed(name)
			}
		}
	}
	return p
}

func repeatStatuses(p *upstream.RetryPolicy, from, to int) {
	p.On |= upstream.CausesOf(upstream.CauseStatus)
	for status := from; status <= to; status++ {
		p.Statuses.Add(status)
	}
}

func hedgePolicy(h *config.Hedge) *upstream.HedgePolicy {
	return &upstream.HedgePolicy{After: h.After, Percentile: h.Percentile}
}

// routeLimits are what a route has in the place of its upstreams'.
func routeLimits(spec *config.Route) upstream.Limits {
	var l upstream.Limits
	if t := spec.Timeouts; t != nil {
		l.Header, l.Idle, l.PerTry = t.Header, t.Idle, t.PerTry
	}
	if spec.Retry != nil {
		l.Retry = retryPolicy(spec.Retry)
	}
	if spec.Hedge != nil {
		l.Hedge = hedgePolicy(spec.Hedge)
	}
	switch spec.RequestTimeout {
	case "header":
		l.RequestTimeout = upstream.RequestTimeoutHeader
	case "ignore":
		l.RequestTimeout = upstream.RequestTimeoutIgnore
	}
	return l
}

// budget is that of an upstream's retries, with the spec that it goes by.
type budget struct {
	*health.Budget // nil: there is none yet
	spec           health.BudgetSpec
}

// budgetOf is the budget of d's upstream, which stays the same as long as the configuration says the same of it. The grammar lets
// nothing through that health would refuse.
func (d *discovered) budgetOf(u *config.Upstream) *health.Budget {
	if u.RetryBudget.Off {
		return nil
	}
	if spec := (health.BudgetSpec{Percent: u.RetryBudget.Percent, Floor: u.RetryBudget.Floor}); d.budget.Budget == nil || d.budget.spec != spec {
		b, err := health.NewBudget(spec, len(d.registry.workers))
		if err != nil {
			panic("BUG: compile: " + err.Error())
		}
		d.budget = budget{b, spec}
	}
	return d.budget.Budget
}
