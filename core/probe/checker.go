package probe

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// Settings are how the endpoints of an upstream are checked.
type Settings struct {
	Spec     health.CheckSpec
	Timeout  time.Duration // of one probe as a whole
	AtOnce   int           // probes under way, 1..10000
	Question *Question
	Identity string // of the question: two that have the same ask the same
}

// schedules says whether probes come at other times by s than by o, or ask something else.
func (s *Settings) schedules(o *Settings) bool {
	return s.Spec != o.Spec || s.AtOnce != o.AtOnce || s.Identity != o.Identity
}

// Result is what a probe came to.
type Result struct {
	Endpoint Endpoint
	Failure  *Failure // nil: it passed
	Healthy  bool     // what the check makes of it
	Changed  bool     // by this result; or it is certain by this result that an endpoint is unhealthy which was taken for it
}

// Counts are what the probes of an upstream came to, and how often endpoints became healthy and unhealthy.
type Counts struct {
	Probes             [Kinds]uint64
	Healthy, Unhealthy uint64
}

// Checker checks the endpoints of one upstream. Configure and Assign say how and which, at any time; Run, on one goroutine, asks.
// All methods may be called from any goroutine but a loop's.
type Checker struct {
	report func([]Result)
	ask    func(ctx context.Context, q *Question, e *Endpoint) *Failure
	epoch  time.Time
	wake   chan struct{}
	ended  chan run

	mu        sync.Mutex
	random    rand.Source
	settings  *Settings        // nil: nobody is asked
	schedule  *health.Schedule // nil likewise
	targets   map[*lb.Load]*target
	byID      map[int]*target
	lastID    int
	inherited map[string]health.CheckRecord // by address; until the first Assign
	counts    Counts
}

// target is an endpoint that is checked.
type target struct {
	endpoint Endpoint
	id       int
	check    *health.Check
	probe    *health.Probe // nil: nobody asks it
	fresh    bool          // nothing is known of it, and it gets nothing until that
	asked    int64         // when the last probe ended; 0: none has
	failure  *Failure      // of the last probe; nil: it passed
}

// run is one probe. Its result counts as long as it is still the probe of its target.
type run struct {
	target   *target
	probe    *health.Probe
	schedule *health.Schedule
	failure  *Failure
}

// NewChecker gives a checker that checks nothing yet. report hears of every result, on the goroutine of Run: of those that came
// together at once.
func NewChecker(report func([]Result)) *Checker {
	return &Checker{report: report, ask: func(ctx context.Context, q *Question, e *Endpoint) *Failure { return q.Ask(ctx, e) },
		epoch: time.Now(), wake: make(chan struct{}, 1), ended: make(chan run), random: rand.NewPCG(rand.Uint64(), rand.Uint64()),
		targets: map[*lb.Load]*target{}, byID: map[int]*target{}}
}

// now is on a monotonic clock of the checker's own.
func (c *Checker) now() int64 { return int64(time.Since(c.epoch)) + 1 }

// wall is when the clock showed t.
func (c *Checker) wall(t int64) time.Time { return c.epoch.Add(time.Duration(t)) }

// Configure puts settings in force; nil: there is no check, and what is known of endpoints is forgotten. Else it is kept. If the
// question is another, that holds until the endpoints have answered it, and they are asked as at the start.
func (c *Checker) Configure(s *Settings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.settings
	if s == nil {
		c.settings, c.schedule = nil, nil
		clear(c.targets)
		clear(c.byID)
		return nil
	}
	if err := s.Spec.Validate(); err != nil {
		return err
	}
	if before != nil && !s.schedules(before) {
		c.settings = s
		return nil
	}
	schedule, err := health.NewSchedule(s.AtOnce, c.random)
	if err != nil {
		return err
	}
	c.settings, c.schedule = s, schedule
	for _, t := range c.targets {
		_ = t.check.Reconfigure(s.Spec)
		if s.Identity != before.Identity {
			c.doubt(t)
		}
		if t.probe != nil {
			if t.probe, err = schedule.Add(t.id, t.check.Interval(), c.now()); err != nil {
				return err
			}
		}
	}
	c.nudge()
	return nil
}

// doubt keeps what is known of t until results confirm or change it.
func (c *Checker) doubt(t *target) {
	now := c.now()
	r := t.check.Record(now)
	r.Settled = false
	_ = t.check.Restore(r, now)
}

// Assign makes these the endpoints. What is known of those that stay, by their Load, stays; others are forgotten. The error says
// that there are too many; those that were too much are taken for what the settings assume.
func (c *Checker) Assign(endpoints []Endpoint) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings == nil {
		c.inherited = nil
		return nil
	}
	stays := make(map[*lb.Load]bool, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		stays[e.Load] = true
		t := c.targets[e.Load]
		if t == nil {
			t = c.newTarget(e)
		} else if t.probe == nil && !e.Off {
			c.doubt(t) // it was off, and nobody knows what became of it
		}
		t.endpoint = *e
		switch {
		case e.Off && t.probe != nil:
			c.schedule.Remove(t.probe)
			t.probe = nil
		case !e.Off && t.probe == nil:
			var full error
			if t.probe, full = c.schedule.Add(t.id, t.check.Interval(), c.now()); full != nil {
				t.probe, err = nil, full
			}
		}
	}
	for load, t := range c.targets {
		if !stays[load] {
			if t.probe != nil {
				c.schedule.Remove(t.probe)
				t.probe = nil
			}
			delete(c.targets, load)
			delete(c.byID, t.id)
		}
	}
	c.inherited = nil
	c.nudge()
	return err
}

// newTarget begins to check e. The caller holds c.mu.
func (c *Checker) newTarget(e *Endpoint) *target {
	now := c.now()
	check, err := health.NewCheck(c.settings.Spec, now)
	if err != nil {
		panic("BUG: probe: " + err.Error()) // Configure has validated it
	}
	if r, ok := c.inherited[e.Address]; ok {
		_ = check.Restore(r, now) // Inherit has found it valid
	} else if e.Serves {
		_ = check.Restore(health.CheckRecord{Healthy: true}, now)
	}
	c.lastID++
	t := &target{id: c.lastID, check: check}
	t.fresh = !check.Healthy() && !check.Settled()
	c.targets[e.Load], c.byID[t.id] = t, t
	return t
}

// nudge makes Run look again.
func (c *Checker) nudge() {
	select {
	case c.wake <- struct{}{}:
	default: // it will
	}
}

// Run asks until ctx ends, and then until its probes have ended, whose results do not count.
func (c *Checker) Run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(c.begin(ctx, &probes))
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		case r := <-c.ended:
			if results := c.take(c.gather(r)); len(results) > 0 {
				c.report(results)
			}
		}
	}
}

// gather adds to one run those that have ended too.
func (c *Checker) gather(first run) []run {
	all := []run{first}
	for {
		select {
		case r := <-c.ended:
			all = append(all, r)
		default:
			return all
		}
	}
}

// begin begins the probes that are due, and says when to look again.
func (c *Checker) begin(ctx context.Context, probes *sync.WaitGroup) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.schedule != nil {
		now := c.now()
		p, at := c.schedule.Next(now)
		if p == nil {
			if at == math.MaxInt64 {
				break // until a probe has ended
			}
			return time.Duration(at - now)
		}
		r, s := run{target: c.byID[p.ID], probe: p, schedule: c.schedule}, c.settings
		e := r.target.endpoint
		probes.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, s.Timeout)
			r.failure = c.ask(bounded, s.Question, &e)
			cancel()
			select {
			case c.ended <- r:
			case <-ctx.Done():
			}
		})
	}
	return time.Hour
}

// take makes results of probes that have ended, less those whose endpoint has gone or is asked something else by now.
func (c *Checker) take(runs []run) (results []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range runs {
		t, now := r.target, c.now()
		current := t.probe == r.probe && c.targets[t.endpoint.Load] == t
		result := Result{Failure: r.failure}
		if current {
			result = c.judge(t, r.failure, now)
		}
		r.schedule.Done(r.probe, t.check.Interval(), t.check.Jitter(), now)
		if current {
			results = append(results, result)
		}
	}
	return results
}

// judge takes the result of a probe of t. The caller holds c.mu.
func (c *Checker) judge(t *target, f *Failure, now int64) Result {
	kind := Passed
	if f != nil {
		kind = f.Kind
	}
	c.counts.Probes[kind]++
	certain := t.check.Settled()
	changed := t.check.Result(f == nil, now)
	healthy := t.check.Healthy()
	if changed && healthy {
		c.counts.Healthy++
	} else if changed {
		c.counts.Unhealthy++
	}
	if t.check.Settled() {
		if !certain && !healthy && t.fresh {
			changed = true
		}
		t.fresh = false
	}
	t.asked, t.failure = now, f
	return Result{Endpoint: t.endpoint, Failure: f, Healthy: healthy, Changed: changed}
}
