package health

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ConcurrencySpec is how the limit of a Concurrency is found. The settings are those of Envoy's adaptive concurrency filter.
type ConcurrencySpec struct {
	MaxLimit       int           // max_concurrency_limit, MinConcurrency..1e6
	MinConcurrency int           // the least limit, and the limit while the least latency is measured, 1..100000
	UpdateInterval time.Duration // concurrency_update_interval, 10ms..10m
	Percentile     float64       // sample_aggregate_percentile: by which the latencies of an interval are summed up, 1..99.99

	MeasureInterval time.Duration // min_rtt_calc_params.interval: between measurements, 1s..24h
	MeasureJitter   float64       // percent of MeasureInterval by which a measurement is late at most, 0..100
	MeasureRequests int           // request_count: requests of a measurement, 1..100000
	Buffer          float64       // percent by which latency may be above the least without lowering the limit, 0..1000
}

// DefaultConcurrency is Envoy's default, with the intervals of the example in its documentation.
func DefaultConcurrency() ConcurrencySpec {
	return ConcurrencySpec{MaxLimit: 1000, MinConcurrency: 3, UpdateInterval: 100 * time.Millisecond, Percentile: 50,
		MeasureInterval: time.Minute, MeasureJitter: 15, MeasureRequests: 50, Buffer: 25}
}

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *ConcurrencySpec) Validate() error {
	var r ranges
	r.integer("min_concurrency", s.MinConcurrency, 1, 100_000)
	if r.err == nil {
		r.integer("max_limit", s.MaxLimit, s.MinConcurrency, 1_000_000)
	}
	r.duration("update_interval", s.UpdateInterval, 10*time.Millisecond, 10*time.Minute)
	r.number("percentile", s.Percentile, 1, 99.99)
	r.duration("measure_interval", s.MeasureInterval, time.Second, 24*time.Hour)
	r.number("measure_jitter", s.MeasureJitter, 0, 100)
	r.integer("measure_requests", s.MeasureRequests, 1, 100_000)
	r.number("buffer", s.Buffer, 0, 1000)
	return r.err
}

// lowestUpdates in a row at the least limit are taken for a sign that the least latency has changed: it is measured at once.
const lowestUpdates = 5

// Concurrency finds how many requests an upstream takes at once before they queue inside of it, and refuses the rest. The
// limit is multiplied, at each update, by the gradient: the least latency over the present one, within 0.5 and 2, and then
// has its square root added, so that there is always a short queue by which to notice room. The least latency is measured
// from time to time, at the least concurrency, where nothing queues; while all requests fail, that goes on until enough have
// succeeded. The algorithm is that of Envoy's gradient controller; the gradient and the root are from Netflix's
// concurrency-limits, as is the rule that a limit which is not made use of does not grow.
//
// All loops may use it at once. The limit is exact: Acquire never lets more be under way, though it may refuse one
// too many in an instant when others are refused. A limit that falls leaves what is under way alone. It takes 5 KB.
type Concurrency struct {
	spec   ConcurrencySpec
	random rand.Source // of who is busy

	_        [64]byte
	inFlight atomic.Int64
	peak     atomic.Int64 // the most in flight since the last update
	_        [64]byte
	limit    atomic.Int64
	due      atomic.Int64 // when there is something to update
	epoch    atomic.Int64 // requests that began before it are not sampled
	pending  atomic.Int64 // samples that the measurement still needs
	least    atomic.Int64 // nanoseconds
	busy     atomic.Bool  // somebody updates; the others go on
	samples  histogram

	// Of who is busy.
	counts    sampleCounts
	measuring bool
	deferred  int64 // the limit after the measurement
	measureAt int64
	lowest    int // updates in a row that left the limit at its least
}

// NewConcurrency gives a limit that begins with a measurement. The error is a *SpecError.
func NewConcurrency(spec ConcurrencySpec, random rand.Source, now int64) (*Concurrency, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	c := &Concurrency{spec: spec, random: random}
	c.limit.Store(int64(spec.MinConcurrency))
	c.measure(now)
	return c, nil
}

// Acquire says whether one more request may begin. One that may ends with one Release or Cancel.
func (c *Concurrency) Acquire() bool {
	n := c.inFlight.Add(1)
	if n > c.limit.Load() {
		c.inFlight.Add(-1)
		return false
	}
	for {
		peak := c.peak.Load()
		if n <= peak || c.peak.CompareAndSwap(peak, n) {
			return true
		}
	}
}

// Release ends a request that began at `began` and was answered now.
func (c *Concurrency) Release(began, now int64) { c.ReleaseAnswered(began, now, now) }

// ReleaseAnswered ends a request that began at `began`, was answered at `answered`, and ends now, for instance because its client has taken
// the whole of a long body. What it says about latency is the time to the answer.
func (c *Concurrency) ReleaseAnswered(began, answered, now int64) {
	c.inFlight.Add(-1)
	if began >= c.epoch.Load() {
		c.samples.add(time.Duration(answered - began))
		if c.pending.Load() > 0 && c.pending.Add(-1) == 0 {
			c.due.Store(now)
		}
	}
	if now >= c.due.Load() && c.busy.CompareAndSwap(false, true) {
		c.update(now)
		c.busy.Store(false)
	}
}

// Cancel ends a request that says nothing about latency: it failed, or its client left.
func (c *Concurrency) Cancel() { c.inFlight.Add(-1) }

// Limit is how many requests may be under way now.
func (c *Concurrency) Limit() int { return int(c.limit.Load()) }

// InFlight is how many are.
func (c *Concurrency) InFlight() int { return int(c.inFlight.Load()) }

// Least is the latency that was measured without load; 0: not yet.
func (c *Concurrency) Least() time.Duration { return time.Duration(c.least.Load()) }

// measure begins to measure the least latency.
func (c *Concurrency) measure(now int64) {
	c.measuring, c.deferred = true, c.limit.Load()
	c.limit.Store(int64(c.spec.MinConcurrency))
	clear(c.counts[:])
	c.samples.drain(&c.counts)
	c.epoch.Store(now)
	c.due.Store(math.MaxInt64) // whoever brings the last sample sets it
	c.pending.Store(int64(c.spec.MeasureRequests))
}

// measured ends the measurement.
func (c *Concurrency) measured(now int64) {
	clear(c.counts[:])
	c.samples.drain(&c.counts)
	c.least.Store(max(int64(c.counts.percentile(c.spec.Percentile)), 1))
	c.limit.Store(c.deferred)
	c.peak.Store(c.inFlight.Load())
	c.measuring, c.lowest = false, 0
	jitter := time.Duration(c.spec.MeasureJitter / 100 * float64(c.spec.MeasureInterval))
	c.measureAt = now + int64(c.spec.MeasureInterval) + upTo(c.random, jitter)
	c.due.Store(now + int64(c.spec.UpdateInterval))
}

func (c *Concurrency) update(now int64) {
	switch {
	case now < c.due.Load(): // somebody else was quicker
		return
	case c.measuring:
		c.measured(now)
		return
	case now >= c.measureAt || c.lowest >= lowestUpdates:
		c.measure(now)
		return
	}
	c.due.Store(now + int64(c.spec.UpdateInterval))
	clear(c.counts[:])
	if c.samples.drain(&c.counts) == 0 {
		return
	}
	old := c.limit.Load()
	next := c.next(old, max(float64(c.counts.percentile(c.spec.Percentile)), 1))
	c.limit.Store(next)
	c.peak.Store(c.inFlight.Load())
	if least := int64(c.spec.MinConcurrency); old == least && next == least {
		c.lowest++
	} else {
		c.lowest = 0
	}
}

// next is the limit after old, when requests took that long.
func (c *Concurrency) next(old int64, latency float64) int64 {
	gradient := min(max(float64(c.least.Load())*(1+c.spec.Buffer/100)/latency, 0.5), 2)
	limit := float64(old) * gradient
	limit += math.Sqrt(limit)
	if limit > float64(old) && float64(c.peak.Load())+math.Sqrt(float64(old)) < float64(old) {
		return old
	}
	return min(max(int64(limit), int64(c.spec.MinConcurrency)), int64(c.spec.MaxLimit))
}
