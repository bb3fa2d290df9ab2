package health

import (
	"math"
	"sync/atomic"
	"time"
)

// BreakerSpec is when a Breaker opens, and how it closes again. At least one of ErrorPercent, SlowPercentile and Consecutive must
// be above zero; any that is met opens it.
type BreakerSpec struct {
	ErrorPercent   float64       // opens at that share of failures in Window, 0.01..100; 0: never by it
	SlowPercentile float64       // opens if this percentile of the times is above SlowOver, 50..99.99; 0: never by time
	SlowOver       time.Duration // 1ms..10m
	Consecutive    int           // failures in a row that open it, 0..10000

	Window      time.Duration // 1s..10m
	MinRequests int           // in Window, before ErrorPercent and SlowPercentile mean anything, 1..1e6

	Cooldown    time.Duration // open, before requests try, 10ms..1h
	Growth      float64       // by which the cooldown grows when it opens again at once, 1..10
	MaxCooldown time.Duration // Cooldown..24h
	Probes      int           // requests that try, and must all succeed, 1..1000
}

// DefaultBreaker is the spec of which a configuration changes what it names: half of at least 20 requests of 30 s failed.
func DefaultBreaker() BreakerSpec {
	return BreakerSpec{ErrorPercent: 50, Window: 30 * time.Second, MinRequests: 20, Cooldown: time.Minute, Growth: 2,
		MaxCooldown: 10 * time.Minute, Probes: 3}
}

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *BreakerSpec) Validate() error {
	var r ranges
	if s.ErrorPercent != 0 {
		r.number("errors", s.ErrorPercent, 0.01, 100)
	}
	if s.SlowPercentile != 0 {
		r.number("latency.percentile", s.SlowPercentile, 50, 99.99)
		r.duration("latency.over", s.SlowOver, time.Millisecond, 10*time.Minute)
	}
	r.integer("consecutive", s.Consecutive, 0, 10_000)
	if s.ErrorPercent == 0 && s.SlowPercentile == 0 && s.Consecutive == 0 {
		r.refuse("errors", "must be above 0 unless latency or consecutive is given")
	}
	r.duration("window", s.Window, time.Second, 10*time.Minute)
	r.integer("min_requests", s.MinRequests, 1, 1_000_000)
	r.duration("cooldown", s.Cooldown, 10*time.Millisecond, time.Hour)
	r.number("growth", s.Growth, 1, 10)
	if r.err == nil {
		r.duration("max_cooldown", s.MaxCooldown, s.Cooldown, 24*time.Hour)
	}
	r.integer("probes", s.Probes, 1, maxBreakerProbes)
	return r.err
}

// BreakerState is one of three.
type BreakerState uint8

// Closed: requests pass and are counted. Open: they are refused. HalfOpen: a few try.
const (
	Closed BreakerState = iota
	Open
	HalfOpen
)

func (s BreakerState) String() string { return [...]string{"closed", "open", "half-open", "?"}[s] }

// BreakerCause is why a breaker opened.
type BreakerCause uint8

// ByNothing: it did not. ByProbe: a request that tried failed.
const (
	ByNothing BreakerCause = iota
	ByErrors
	BySlowness
	ByConsecutive
	ByProbe
)

func (c BreakerCause) String() string {
	return [...]string{"", "errors", "latency", "consecutive", "probe"}[c]
}

// BreakerChange is a change of state that a report brought about.
type BreakerChange struct {
	Changed bool
	To      BreakerState
	Cause   BreakerCause // if it opened
}

// Permit is what a request that was allowed holds until it reports. It says in which spell of which state it was allowed, so that
// a late report does not count in another.
type Permit uint32

const (
	maxBreakerProbes = 1000
	maxLevel         = 31 // of cooldowns that have grown; 1.25^31 is a thousandfold
)

// Breaker stands before an upstream or a route. All loops may use it at once; it takes 1.2 KB.
//
//	closed    --enough failures-->                open
//	open      --cooldown over, a request comes--> half-open
//	half-open --a probe fails-->                  open, for longer
//	half-open --all probes succeed-->             closed
//
// The state is one word that changes by compare-and-swap: exactly Probes requests are allowed in a half-open spell. If they
// have not all reported when a cooldown has passed again, a new spell begins, so that probes which never end do not hold it
// half-open. Requests that were allowed while it was closed and end later are not counted.
//
// The cooldown grows each time that a probe fails, and when the breaker opens again within a cooldown of having closed;
// otherwise it begins anew.
type Breaker struct {
	spec      BreakerSpec
	failShare int64               // of 10000 requests, that may not fail
	slowShare int64               // of 10000 requests, that may be slower than SlowOver
	cooldowns [maxLevel + 1]int64 // by level

	_        [64]byte // what is read only is kept off what is written
	word     atomic.Uint64
	until    atomic.Int64 // when the cooldown ends; only of use while open
	patience atomic.Int64 // when probes that have not reported are given up; only of use while half-open
	closedAt atomic.Int64
	_        [64]byte
	run      run
	window   ring
}

// NewBreaker gives a closed breaker. The error is a *SpecError.
func NewBreaker(spec BreakerSpec) (*Breaker, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	b := &Breaker{spec: spec, failShare: hundredths(spec.ErrorPercent), slowShare: hundredths(100 - spec.SlowPercentile)}
	b.run.limit = uint32(spec.Consecutive)
	b.window.width = int64(spec.Window) / ringTenths
	for level, d := 0, float64(spec.Cooldown); level <= maxLevel; level++ {
		b.cooldowns[level] = int64(min(d, float64(spec.MaxCooldown)))
		d *= spec.Growth
	}
	b.closedAt.Store(math.MinInt64 / 2)
	return b, nil
}

// hundredths gives a percentage as parts of 10000, for comparisons without rounding.
func hundredths(percent float64) int64 { return int64(math.Round(percent * 100)) }

// Allow says whether a request may pass. One that may ends with one Report or Cancel of its permit.
func (b *Breaker) Allow(now int64) (Permit, bool) {
	if w := breakerWord(b.word.Load()); w.state() == Closed {
		return w.spell(), true
	}
	return b.try(now)
}

// try lets a request through a breaker that is open or half-open, if it is its turn.
func (b *Breaker) try(now int64) (Permit, bool) {
	for {
		w := breakerWord(b.word.Load())
		next := w
		switch s := w.state(); {
		case s == Closed:
			return w.spell(), true
		case s == HalfOpen && w.begun() < b.spec.Probes:
			next = w.withProbes(w.begun()+1, w.passed())
		case s == Open && now < b.until.Load(), s == HalfOpen && now < b.patience.Load():
			return 0, false
		default:
			// Several may store this; they store nearly the same, before the one whose spell it is.
			b.patience.Store(now + b.cooldowns[w.level()])
			next = w.next(HalfOpen, w.level()).withProbes(1, 0)
		}
		if b.word.CompareAndSwap(uint64(w), uint64(next)) {
			return next.spell(), true
		}
	}
}

// Report ends a request that was allowed: whether it failed, and how long it took.
func (b *Breaker) Report(p Permit, failed bool, took time.Duration, now int64) BreakerChange {
	w := breakerWord(b.word.Load())
	if w.spell() != p {
		return BreakerChange{}
	}
	slow := b.spec.SlowPercentile != 0 && took > b.spec.SlowOver
	if w.state() == HalfOpen {
		return b.reportProbe(w, failed || slow, now)
	}
	b.window.add(failed, slow, now)
	full := false
	if failed {
		full = b.run.fail()
	} else {
		b.run.end()
	}
	cause := ByConsecutive
	if !full {
		// Asked twice, for a loop that loses its processor between the sums it compares sees new failures over old requests.
		if cause = b.tripped(); cause == ByNothing || b.tripped() == ByNothing {
			return BreakerChange{}
		}
	}
	level := 0
	if now-b.closedAt.Load() <= b.cooldowns[w.level()] {
		level = w.level() + 1
	}
	return b.open(w, level, cause, now)
}

// Cancel ends a request that was allowed and says nothing about the upstream, for instance because its client left.
func (b *Breaker) Cancel(p Permit) {
	for {
		w := breakerWord(b.word.Load())
		if w.spell() != p || w.state() != HalfOpen || w.begun() <= w.passed() {
			return
		}
		if b.word.CompareAndSwap(uint64(w), uint64(w.withProbes(w.begun()-1, w.passed()))) {
			return
		}
	}
}

// State is the state now. A breaker whose cooldown is over stays open until a request comes to try.
func (b *Breaker) State() BreakerState { return breakerWord(b.word.Load()).state() }

// Counts are the requests of the window, and how many of them failed and were slow. While requests end they are near to each other, no
// more.
func (b *Breaker) Counts() (requests, failures, slow int64) {
	s := &b.window.sum
	failures, slow = s.failures.Load(), s.slow.Load()
	return s.requests.Load(), failures, slow
}

// RetryAfter is how long requests will still be refused; 0 if they are not, or nobody can tell.
func (b *Breaker) RetryAfter(now int64) time.Duration {
	if b.State() != Open {
		return 0
	}
	return time.Duration(max(b.until.Load()-now, 0))
}

// tripped says why a closed breaker should open by its window.
func (b *Breaker) tripped() BreakerCause {
	n := b.window.sum.requests.Load()
	if n < int64(b.spec.MinRequests) {
		return ByNothing
	}
	if b.failShare > 0 && b.window.sum.failures.Load()*10_000 >= b.failShare*n {
		return ByErrors
	}
	if b.spec.SlowPercentile != 0 && b.window.sum.slow.Load()*10_000 > b.slowShare*n {
		return BySlowness
	}
	return ByNothing
}

func (b *Breaker) reportProbe(w breakerWord, failed bool, now int64) BreakerChange {
	spell := w.spell()
	for ; w.spell() == spell; w = breakerWord(b.word.Load()) {
		if failed {
			return b.open(w, w.level()+1, ByProbe, now)
		}
		if w.passed()+1 < b.spec.Probes {
			if b.word.CompareAndSwap(uint64(w), uint64(w.withProbes(w.begun(), w.passed()+1))) {
				return BreakerChange{}
			}
			continue
		}
		b.window.clear()
		b.run.failures.Store(0)
		b.closedAt.Store(now)
		if b.word.CompareAndSwap(uint64(w), uint64(w.next(Closed, w.level()))) {
			return BreakerChange{Changed: true, To: Closed}
		}
	}
	return BreakerChange{}
}

// open opens the breaker unless the spell has ended meanwhile.
func (b *Breaker) open(w breakerWord, level int, cause BreakerCause, now int64) BreakerChange {
	level = min(level, maxLevel)
	for spell := w.spell(); w.spell() == spell; w = breakerWord(b.word.Load()) {
		b.until.Store(now + b.cooldowns[level])
		if b.word.CompareAndSwap(uint64(w), uint64(w.next(Open, level))) {
			return BreakerChange{Changed: true, To: Open, Cause: cause}
		}
	}
	return BreakerChange{}
}

// breakerWord is a breaker's state: 2 bits of state, 6 of level, 12 each of probes begun and passed, 32 of the spell's number.
type breakerWord uint64

func (w breakerWord) state() BreakerState { return BreakerState(w & 3) }
func (w breakerWord) level() int          { return int(w >> 2 & 63) }
func (w breakerWord) begun() int          { return int(w >> 8 & 0xfff) }
func (w breakerWord) passed() int         { return int(w >> 20 & 0xfff) }
func (w breakerWord) spell() Permit       { return Permit(w >> 32) }

func (w breakerWord) withProbes(begun, passed int) breakerWord {
	return w&^(0xffffff<<8) | breakerWord(begun)<<8 | breakerWord(passed)<<20
}

// next begins a new spell.
func (w breakerWord) next(s BreakerState, level int) breakerWord {
	return breakerWord(s) | breakerWord(level)<<2 | breakerWord(w.spell()+1)<<32
}
