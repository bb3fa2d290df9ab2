package health

import "time"

// CheckSpec is how endpoints of an upstream are checked.
type CheckSpec struct {
	Interval          time.Duration // between checks of a healthy endpoint, 10ms..1h
	UnhealthyInterval time.Duration // of an unhealthy one, 10ms..1h; 0: Interval
	StartInterval     time.Duration // until its state rests on results, 10ms..1h; 0: Interval
	JitterPercent     int           // 0..50: each check is up to that share of its interval late
	Healthy           int           // passes in a row that bring an endpoint back, 1..100
	Unhealthy         int           // failures in a row that take it out, 1..100
	InitiallyHealthy  bool          // whether it gets requests before its first result
}

// DefaultCheck is the spec of the short form `health: /path`.
func DefaultCheck() CheckSpec {
	return CheckSpec{Interval: 10 * time.Second, StartInterval: time.Second, JitterPercent: 10,
		Healthy: 2, Unhealthy: 3, InitiallyHealthy: true}
}

const (
	minCheckInterval = 10 * time.Millisecond
	maxCheckInterval = time.Hour
	maxThreshold     = 100
	maxCheckJitter   = 50
)

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *CheckSpec) Validate() error {
	var r ranges
	r.duration("interval", s.Interval, minCheckInterval, maxCheckInterval)
	if s.UnhealthyInterval != 0 {
		r.duration("unhealthy_interval", s.UnhealthyInterval, minCheckInterval, maxCheckInterval)
	}
	if s.StartInterval != 0 {
		r.duration("start_interval", s.StartInterval, minCheckInterval, maxCheckInterval)
	}
	r.integer("jitter", s.JitterPercent, 0, maxCheckJitter)
	r.integer("healthy", s.Healthy, 1, maxThreshold)
	r.integer("unhealthy", s.Unhealthy, 1, maxThreshold)
	return r.err
}

// Check is the state of one endpoint by its active checks: healthy or unhealthy. It belongs to whoever runs the checks.
//
// A state changes after as many contrary results in a row as its threshold says. There is one exception, which is Envoy's: if
// the very first result is a pass, an endpoint that waits for it is healthy at once, so that a start need not wait for several.
type Check struct {
	spec     CheckSpec
	healthy  bool
	settled  bool // the state rests on results
	known    bool // there was a result
	passes   int  // in a row
	failures int  // in a row
	since    int64
}

// NewCheck gives the check of an endpoint without results. The error is a *SpecError.
func NewCheck(spec CheckSpec, now int64) (*Check, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return &Check{spec: spec, healthy: spec.InitiallyHealthy, since: now}, nil
}

// Reconfigure puts another spec in force. The state stays until results under the new thresholds change it.
func (c *Check) Reconfigure(spec CheckSpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	c.spec = spec
	return nil
}

// Healthy says whether the endpoint may get requests.
func (c *Check) Healthy() bool { return c.healthy }

// Settled says whether the state rests on results, rather than on what was assumed at the start.
func (c *Check) Settled() bool { return c.settled }

// Since is when the state began.
func (c *Check) Since() int64 { return c.since }

// Result takes the result of a check. True: the state changed.
func (c *Check) Result(passed bool, now int64) bool {
	first := !c.known
	c.known = true
	if passed {
		c.passes, c.failures = c.passes+1, 0
		if !c.healthy && (first || c.passes >= c.spec.Healthy) {
			return c.become(true, now)
		}
		c.settled = c.settled || c.healthy
		return false
	}
	c.passes, c.failures = 0, c.failures+1
	if c.failures < c.spec.Unhealthy {
		return false
	}
	if c.healthy {
		return c.become(false, now)
	}
	c.settled = true
	return false
}

func (c *Check) become(healthy bool, now int64) bool {
	c.healthy, c.settled, c.since = healthy, true, now
	return true
}

// Interval is the time between this check and the next.
func (c *Check) Interval() time.Duration {
	switch {
	case !c.settled && c.spec.StartInterval != 0:
		return c.spec.StartInterval
	case !c.healthy && c.spec.UnhealthyInterval != 0:
		return c.spec.UnhealthyInterval
	}
	return c.spec.Interval
}

// Jitter is by how much the next check may be late.
func (c *Check) Jitter() time.Duration {
	return c.Interval() * time.Duration(c.spec.JitterPercent) / 100
}
