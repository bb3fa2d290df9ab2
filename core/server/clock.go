package server

import "time"

// clockSlack is how far the host's clock may part from the time that has passed, between two looks, before it counts as set: what
// keeps clocks in step by small amounts is no step.
const clockSlack = time.Second

// clockWatch finds out that the host's clock was set, or the host slept. It is used by one goroutine.
type clockWatch struct {
	last time.Time // with both readings; zero: there was no look yet
}

// step is by how much the clock was set since the last look, forward above zero; 0: it was not. now has both readings, as time.Now gives.
func (c *clockWatch) step(now time.Time) time.Duration { return c.stepAfter(now, now.Sub(c.last)) }

// stepAfter is step where so much time has passed.
func (c *clockWatch) stepAfter(now time.Time, passed time.Duration) time.Duration {
	last := c.last
	if c.last = now; last.IsZero() {
		return 0
	}
	step := now.Round(0).Sub(last.Round(0)) - passed // Round takes the monotonic reading off
	if step.Abs() < clockSlack {
		return 0
	}
	return step
}

// watchClock tells of a clock that was set: intervals, timeouts and limits go by another, which does not jump; what stands in
// certificates and tokens, and what the logs say, does not.
func (s *Server) watchClock(c *clockWatch, now time.Time) {
	if step := c.step(now); step != 0 {
		s.tellClock(step)
	}
}

func (s *Server) tellClock(step time.Duration) {
	s.fitted.clockSteps.Add(1)
	s.log.Warn("the host's clock was set, or the host slept: certificates and tokens may count as expired or as not valid yet; see timedatectl, chronyc tracking",
		"by", step.Round(time.Millisecond))
}
