package health

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// CanarySpec is how a new version gets its traffic.
type CanarySpec struct {
	Steps       []int         // percent of the traffic, rising, each 1..100; 1..32 of them
	Hold        time.Duration // at least so long at each step, 1s..30 days
	Abort       string        // a Condition; "": only a person aborts
	Window      time.Duration // over which Abort is judged, 1s..1h
	MinRequests int           // to the canary: before a step ends, and before Abort means anything; 1..1e9
}

// DefaultCanary is the spec of which a configuration changes what it names. Steps are the configuration's to give.
func DefaultCanary() CanarySpec {
	return CanarySpec{Hold: 10 * time.Minute, Window: time.Minute, MinRequests: 100}
}

const maxCanarySteps = 32

// Validate gives a *SpecError for the first setting that cannot be.
func (s *CanarySpec) Validate() error {
	var r ranges
	if len(s.Steps) == 0 || len(s.Steps) > maxCanarySteps {
		r.refuse("steps", "must be 1..%d shares in percent, not %d", maxCanarySteps, len(s.Steps))
	}
	for i, percent := range s.Steps {
		r.integer("steps", percent, 1, 100)
		if i > 0 && percent <= s.Steps[i-1] {
			r.refuse("steps", "must rise, but %d follows %d", percent, s.Steps[i-1])
		}
	}
	r.duration("hold", s.Hold, time.Second, 30*24*time.Hour)
	r.duration("window", s.Window, time.Second, time.Hour)
	r.integer("min_requests", s.MinRequests, 1, 1_000_000_000)
	if s.Abort != "" {
		if _, err := ParseCondition(s.Abort); err != nil {
			r.refuse("abort", "%s", err)
		}
	}
	return r.err
}

// CanaryState is one of four.
type CanaryState uint8

// Progressing: it goes from step to step. Paused: it stays at its step until resumed, and is still aborted by its condition.
// Promoted: it has all traffic. Aborted: it has none.
const (
	Progressing CanaryState = iota
	Paused
	Promoted
	Aborted
	canaryStates
)

func (s CanaryState) String() string {
	return [...]string{"progressing", "paused", "promoted", "aborted"}[s]
}

// CanaryStatus is what a canary says of itself.
type CanaryStatus struct {
	State   CanaryState
	Percent int    // of the traffic
	Step    int    // from 0; of Promoted and Aborted, the last it was at
	Since   int64  // when this state or step began
	Why     string // it is in this state or step, or what it waits for
	Canary  SideStatus
	Stable  SideStatus
}

// SideStatus is what one side came to since the step began.
type SideStatus struct {
	Requests, Failures uint64
	P50, P99           time.Duration
}

// Canary brings a new version into use by steps. A step ends when it has lasted Hold and the canary has had MinRequests in it. If
// Abort comes true, the canary gets nothing from then on. Abort is judged at every Tick over the last Window if the canary had
// MinRequests in it, and over the whole step if it had as many in that.
//
// Percent and Report may be called by all loops at once; the rest belongs to one goroutine. It takes 40 KB.
//
// A report in the instant of a Tick may count in the tenth of the window before it.
type Canary struct {
	spec      CanarySpec
	condition Condition
	share     atomic.Int64 // percent
	sides     [2]side      // canary, stable

	state CanaryState
	step  int
	since int64         // of the state or step
	held  time.Duration // at this step, up to `from`
	from  int64         // when the time at this step last began to run
	next  int64         // when the next tenth of the window begins
	why   string
}

// side counts one side's requests. The tenth of the window that loops add to is exchanged by Tick.
type side struct {
	current atomic.Int64
	tenths  [ringTenths]tenth
	old     sampleCounts // of the step, behind the window
	oldFail uint64
}

// tenth holds the latencies of all requests, and how many of these failed.
type tenth struct {
	latencies histogram
	failures  atomic.Uint64
}

// NewCanary gives a canary at its first step. The error is a *SpecError.
func NewCanary(spec CanarySpec, now int64) (*Canary, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	spec.Steps = slices.Clone(spec.Steps)
	c := &Canary{spec: spec}
	if spec.Abort != "" {
		c.condition, _ = ParseCondition(spec.Abort) // Validate has parsed it
	}
	c.enter(0, "begun", now)
	c.next = now + int64(spec.Window)/ringTenths
	return c, nil
}

// Percent is the canary's share of the traffic.
func (c *Canary) Percent() int { return int(c.share.Load()) }

// Report counts a request to the canary or to the stable side.
func (c *Canary) Report(canary, failed bool, took time.Duration) {
	s := &c.sides[1]
	if canary {
		s = &c.sides[0]
	}
	t := &s.tenths[s.current.Load()]
	t.latencies.add(took)
	if failed {
		t.failures.Add(1)
	}
}

// Tick judges the canary, and then lets the window go on; the owner calls it about every second. True: the state or the step changed,
// and Status says why.
func (c *Canary) Tick(now int64) bool {
	if c.state == Promoted || c.state == Aborted {
		return false
	}
	defer c.move(now)
	var window, step [2]figures
	for i := range c.sides {
		window[i], step[i] = c.sides[i].figures()
	}
	if why, breached := c.breached(&window, c.spec.Window.String()); breached {
		return c.end(Aborted, why, now)
	}
	if why, breached := c.breached(&step, "the step"); breached {
		return c.end(Aborted, why, now)
	}
	if c.state == Paused {
		return false
	}
	switch requests, held := step[0].requests, c.heldAt(now); {
	case held < c.spec.Hold:
		c.why = fmt.Sprintf("holds %d%% for %s more", c.Percent(), (c.spec.Hold - held).Round(time.Millisecond))
	case requests < uint64(c.spec.MinRequests):
		c.why = fmt.Sprintf("waits at %d%% for requests: %d of %d", c.Percent(), requests, c.spec.MinRequests)
	case c.step+1 == len(c.spec.Steps):
		return c.end(Promoted, fmt.Sprintf("held %d%% for %s over %d requests", c.Percent(), c.spec.Hold, requests), now)
	default:
		c.enter(c.step+1, fmt.Sprintf("held %d%% for %s over %d requests", c.Percent(), c.spec.Hold, requests), now)
		return true
	}
	return false
}

// Abort takes all traffic from the canary, from any state. False: it was so already.
func (c *Canary) Abort(why string, now int64) bool {
	return c.state != Aborted && c.end(Aborted, why, now)
}

// Promote gives the canary all traffic, from any state but Aborted. False: nothing changed.
func (c *Canary) Promote(why string, now int64) bool {
	return c.state != Aborted && c.state != Promoted && c.end(Promoted, why, now)
}

// Pause keeps the canary at its step; the time it has held does not go on. False: it does not progress.
func (c *Canary) Pause(why string, now int64) bool {
	if c.state != Progressing {
		return false
	}
	c.held = c.heldAt(now)
	c.state, c.since, c.why = Paused, now, why
	return true
}

// Resume lets a paused canary go on. False: it is not paused.
func (c *Canary) Resume(why string, now int64) bool {
	if c.state != Paused {
		return false
	}
	c.state, c.since, c.from, c.why = Progressing, now, now, why
	return true
}

// Forward goes to the next step at once; from the last one the canary is promoted. False: it neither progresses nor is paused.
func (c *Canary) Forward(why string, now int64) bool {
	if c.state != Progressing && c.state != Paused {
		return false
	}
	if c.step+1 == len(c.spec.Steps) {
		return c.end(Promoted, why, now)
	}
	c.enter(c.step+1, why, now)
	return true
}

// Status is what the canary says of itself.
func (c *Canary) Status() CanaryStatus {
	s := CanaryStatus{State: c.state, Percent: c.Percent(), Step: c.step, Since: c.since, Why: c.why}
	for i, to := range []*SideStatus{&s.Canary, &s.Stable} {
		_, f := c.sides[i].figures()
		*to = SideStatus{f.requests, f.failures, f.latencies.percentile(50), f.latencies.percentile(99)}
	}
	return s
}

func (c *Canary) breached(over *[2]figures, span string) (why string, breached bool) {
	least := uint64(c.spec.MinRequests)
	if over[0].requests < least {
		return "", false
	}
	stable := &over[1]
	if stable.requests < least {
		stable = nil
	}
	if why, breached = c.condition.breached(&over[0], stable); breached {
		why += fmt.Sprintf(" in %d requests of %s at %d%%", over[0].requests, span, c.Percent())
	}
	return why, breached
}

// move lets the window go on, after it was judged: what came since the last Tick is in it, however late this one is.
func (c *Canary) move(now int64) {
	for i := 0; i < ringTenths && now >= c.next; i++ {
		c.sides[0].rotate()
		c.sides[1].rotate()
		c.next += int64(c.spec.Window) / ringTenths
	}
	c.next = max(c.next, now)
}

// heldAt is how long the canary has been at its step, pauses not counted.
func (c *Canary) heldAt(now int64) time.Duration {
	if c.state == Paused {
		return c.held
	}
	return c.held + time.Duration(min(max(now-c.from, 0), math.MaxInt64/2))
}

// enter begins a step, for which everything is counted anew. A paused canary stays paused.
func (c *Canary) enter(step int, why string, now int64) {
	c.step, c.since, c.from, c.held, c.why = step, now, now, 0, why
	for i := range c.sides {
		c.sides[i].clear()
	}
	c.share.Store(int64(c.spec.Steps[step]))
}

func (c *Canary) end(s CanaryState, why string, now int64) bool {
	c.state, c.since, c.why = s, now, why
	c.share.Store(0)
	if s == Promoted {
		c.share.Store(100)
	}
	return true
}

// rotate begins a tenth, with the one that is a window old, whose counts go to those of the step.
func (s *side) rotate() {
	next := (s.current.Load() + 1) % ringTenths
	t := &s.tenths[next]
	t.latencies.drain(&s.old)
	s.oldFail += t.failures.Swap(0)
	s.current.Store(next)
}

// clear forgets all counts.
func (s *side) clear() {
	for i := range s.tenths {
		s.tenths[i].latencies.drain(&s.old)
		s.tenths[i].failures.Store(0)
	}
	clear(s.old[:])
	s.oldFail = 0
}

// figures sums up the window and the step. Failures are read first, and added last, so that none is seen without its request.
func (s *side) figures() (window, step figures) {
	window.latencies, step.latencies = new(sampleCounts), new(sampleCounts)
	for i := range s.tenths {
		window.failures += s.tenths[i].failures.Load()
		s.tenths[i].latencies.addTo(window.latencies)
	}
	window.requests = window.latencies.total()
	window.failures = min(window.failures, window.requests)
	for i := range step.latencies {
		step.latencies[i] = window.latencies[i] + s.old[i]
	}
	step.requests = step.latencies.total()
	step.failures = min(window.failures+s.oldFail, step.requests)
	return window, step
}
