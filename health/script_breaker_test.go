package health

import (
	"fmt"
	"time"
)

type breakerPlayer struct {
	breaker *Breaker
	permits map[string]Permit
}

func newBreakerPlayer(s *settings) player {
	spec := DefaultBreaker()
	s.number("errors", &spec.ErrorPercent)
	s.number("latency.percentile", &spec.SlowPercentile)
	s.duration("latency.over", &spec.SlowOver)
	s.integer("consecutive", &spec.Consecutive)
	s.duration("window", &spec.Window)
	s.integer("min_requests", &spec.MinRequests)
	s.duration("cooldown", &spec.Cooldown)
	s.number("growth", &spec.Growth)
	s.duration("max_cooldown", &spec.MaxCooldown)
	s.integer("probes", &spec.Probes)
	b, err := NewBreaker(spec)
	s.must(err)
	return &breakerPlayer{b, map[string]Permit{}}
}

// play knows `request NAME`, which asks; `NAME ok|failed|slow`, which reports; `cancel NAME`; and `ok`, `failed`, `slow` alone,
// which do both.
func (p *breakerPlayer) play(event []string, now int64) string {
	last := event[len(event)-1]
	took := 10 * time.Millisecond
	if last == "slow" {
		took = 5 * time.Second
	}
	switch {
	case event[0] == "state":
		return p.breaker.State().String()
	case event[0] == "cancel":
		p.breaker.Cancel(p.permits[event[1]])
		return ""
	case event[0] == "request" || len(event) == 1:
		permit, ok := p.breaker.Allow(now)
		if !ok {
			return fmt.Sprintf("refused, retry after %s", p.breaker.RetryAfter(now))
		}
		if event[0] == "request" {
			p.permits[last] = permit
			return "allowed, " + p.breaker.State().String()
		}
		return change(p.breaker.Report(permit, last == "failed", took, now))
	}
	return change(p.breaker.Report(p.permits[event[0]], last == "failed", took, now))
}

func change(c BreakerChange) string {
	switch {
	case !c.Changed:
		return ""
	case c.Cause == ByNothing:
		return c.To.String()
	}
	return c.To.String() + ": " + c.Cause.String()
}
