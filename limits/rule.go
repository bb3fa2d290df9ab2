package limits

import (
	"fmt"
	"math"
	"time"
)

// Algorithm is how a Window counts.
type Algorithm uint8

// The algorithms. Each is a pure function of (state, rule, cost, now) in the file of its name.
const (
	TokenBucket   Algorithm = iota // gcra.go
	SlidingWindow                  // slidingwindow.go
	FixedWindow                    // fixedwindow.go
	LeakyBucket                    // leakybucket.go
	inFlight                       // concurrency.go
)

// String is the name of the algorithm in a configuration.
func (a Algorithm) String() string {
	switch a {
	case TokenBucket:
		return "token_bucket"
	case SlidingWindow:
		return "sliding_window"
	case FixedWindow:
		return "fixed_window"
	case LeakyBucket:
		return "leaky_bucket"
	}
	return "concurrency"
}

const (
	// MaxRate is the most tokens a second of a Window. The time between two tokens is kept in quarters of a nanosecond,
	// rounded up: up to this rate a limit is kept to within 1/400 below itself, at 100,000/s to within 1/40,000.
	MaxRate = 10_000_000
	// MaxPeriod is the longest period of a Window, and the longest time that a bucket may take to fill.
	MaxPeriod = 90 * 24 * time.Hour
	// MaxWindowCount is the most that a sliding window or a concurrency limit can count.
	MaxWindowCount = pairMax
	// Never is the RetryAfter of a cost that is greater than the bucket.
	Never = time.Duration(math.MaxInt64)
)

// Window is one bound of a Limit. It is plain data; NewLimit checks it.
type Window struct {
	Algorithm Algorithm
	Limit     uint32        // tokens in a Period, at least 1
	Period    time.Duration // at least 1 ms, at most MaxPeriod
	// Burst is how much may come at once. Token bucket: 0 stands for Limit. Leaky bucket: what passes without delay, 0
	// stands for 1. The window algorithms have none.
	Burst uint32
	// MaxWait is the longest delay that a leaky bucket may ask for; what would wait longer is refused.
	MaxWait time.Duration
}

// stateShift is how many low bits of a state word the algorithms leave to the table: see bucket.go. They get a state with
// those bits zero and give one back. 0 is the state of a key that was not seen yet.
const stateShift = 6

// A tick is 1/256 ns. A time in ticks, cut to quarters of a nanosecond for the bits that the table needs, wraps after
// 2.28 years; times are compared by their difference, which is right for half of that, and two MaxPeriods are less.
const (
	ticksPerNano = 256
	minTicks     = 1 << stateShift // the least step that survives the cut, 1/4 ns
)

// rule is a Window made ready for the path of a request. Immutable.
type rule struct {
	Window
	limit, burst uint64
	period       int64 // ns
	interval     int64 // ticks from one token to the next
	depth        int64 // ticks in which an empty bucket fills: burst * interval
	patience     int64 // ticks of MaxWait
	deepest      int64 // ticks that a bucket may be from full: what charges may owe is one depth more
}

// outcome is what an algorithm says of one cost. Times are in ns. It has four fields because that is what the compiler keeps in
// registers.
type outcome struct {
	allowed   bool
	remaining uint64 // tokens that could still be taken now
	reset     int64  // until everything may be taken again, or a window ends
	wait      int64  // refused: until this cost would be admitted if nobody else came; allowed: how long it is to be delayed
}

func newRule(w Window) (rule, error) {
	r := rule{Window: w, limit: uint64(w.Limit), burst: uint64(w.Burst), period: int64(w.Period)}
	switch {
	case w.Algorithm > inFlight:
		return rule{}, fmt.Errorf("algorithm %d is not known", w.Algorithm)
	case w.Limit == 0:
		return rule{}, fmt.Errorf("limit is 0, at least 1 is needed")
	case w.Period < time.Millisecond || w.Period > MaxPeriod:
		return rule{}, fmt.Errorf("period %v is not within 1ms and %v", w.Period, MaxPeriod)
	case w.MaxWait < 0 || w.MaxWait > MaxPeriod:
		return rule{}, fmt.Errorf("max wait %v is not within 0 and %v", w.MaxWait, MaxPeriod)
	case w.MaxWait > 0 && w.Algorithm != LeakyBucket:
		return rule{}, fmt.Errorf("%s has no max wait: only leaky_bucket delays", w.Algorithm)
	}
	switch w.Algorithm {
	case SlidingWindow, FixedWindow, inFlight:
		if w.Burst != 0 {
			return rule{}, fmt.Errorf("%s has no burst", w.Algorithm)
		}
		if w.Algorithm != FixedWindow && w.Limit > MaxWindowCount {
			return rule{}, fmt.Errorf("limit %d of %s is above %d: use token_bucket", w.Limit, w.Algorithm, MaxWindowCount)
		}
		return r, nil
	}
	if float64(w.Limit)/w.Period.Seconds() > MaxRate {
		return rule{}, fmt.Errorf("limit %d in %v is above %d a second", w.Limit, w.Period, MaxRate)
	}
	switch {
	case w.Burst == 0 && w.Algorithm == LeakyBucket:
		r.burst = 1
	case w.Burst == 0:
		r.burst = r.limit
	}
	// Rounded up, so that never more than Limit is admitted. Four MaxPeriods, so rounded, are less than 2^63 ticks.
	r.interval = (r.period*ticksPerNano + int64(r.limit) - 1) / int64(r.limit)
	r.interval = (r.interval + minTicks - 1) &^ (minTicks - 1)
	if float64(r.burst)*float64(r.period)/float64(r.limit) > float64(MaxPeriod) {
		return rule{}, fmt.Errorf("burst %d at %d in %v takes longer than %v to fill", r.burst, w.Limit, w.Period, MaxPeriod)
	}
	r.depth = int64(r.burst) * r.interval
	r.patience = int64(w.MaxWait) * ticksPerNano
	r.deepest = 2*r.depth + r.patience
	return r, nil
}

// take admits cost or refuses it. next is state if nothing is to be written.
func (r *rule) take(state uint64, cost uint32, now int64) (next uint64, o outcome) {
	switch r.Algorithm {
	case TokenBucket:
		return gcra(state, r, cost, now)
	case SlidingWindow:
		return slidingWindow(state, r, cost, now)
	case FixedWindow:
		return fixedWindow(state, r, cost, now)
	case LeakyBucket:
		return leakyBucket(state, r, cost, now)
	}
	return concurrency(state, r, cost, now)
}

// refund undoes a take of cost at the time at. What the bucket has regained since, or what belongs to a window that has
// passed, is not given back: tokens are moved, never made.
func (r *rule) refund(state uint64, cost uint32, at, now int64) uint64 {
	switch r.Algorithm {
	case TokenBucket, LeakyBucket:
		return gcraRefund(state, r, cost, now)
	case FixedWindow:
		return fixedRefund(state, r, cost, at)
	}
	return pairRefund(state, cost, at, r.period)
}

// charge takes cost although it may not be there. A bucket then owes what it did not have, up to as much as it holds; more is forgiven.
// If it owed nothing, whoever comes for a token at a time would never pay what his requests cost beyond it. A window is used up, and
// owes nothing to the next.
func (r *rule) charge(state uint64, cost uint32, now int64) uint64 {
	used, before := r.used(state, now)
	most := int64(r.limit)
	switch {
	case r.interval > 0:
		most = r.deepest
	case r.Algorithm == inFlight:
		most = pairMax // what is in flight is, whatever the limit has become
	}
	used = max(used, min(most, used+min(int64(cost), int64(r.capacity()))*r.unit()))
	return r.filled(used, before, now)
}

// capacity is the greatest cost that could ever be admitted.
func (r *rule) capacity() uint64 {
	switch r.Algorithm {
	case TokenBucket:
		return r.burst
	case LeakyBucket:
		return uint64((r.depth + r.patience) / r.interval)
	}
	return r.limit
}

// unit is what one token is in the numbers of used and filled.
func (r *rule) unit() int64 {
	if r.interval > 0 {
		return r.interval
	}
	return 1
}

// used reads a state as an amount that does not depend on the clock: ticks until the bucket is full, or tokens of the
// current window and of the one before. It is what is kept over a change of rule, and handed to another process.
func (r *rule) used(state uint64, now int64) (used, before int64) {
	switch r.Algorithm {
	case TokenBucket, LeakyBucket:
		ahead, _ := gcraAhead(state, r, now)
		return ahead, 0
	case FixedWindow:
		return int64(fixedUsed(state, r.period, now)), 0
	}
	p := pairAt(state, r.period, now)
	return int64(p.current), int64(p.previous)
}

// filled is the state in which used and before have been used: the inverse of used, cut to what the rule can hold.
func (r *rule) filled(used, before, now int64) uint64 {
	used, before = max(used, 0), max(before, 0)
	if used == 0 && before == 0 {
		return 0
	}
	switch r.Algorithm {
	case TokenBucket, LeakyBucket:
		return gcraState((min(used, r.deepest)+minTicks-1)&^(minTicks-1), now)
	case FixedWindow:
		return fixedState(r.period, uint64(min(used, int64(r.limit))), now)
	}
	return pair{index: pairIndex(now, r.period), current: uint64(min(used, pairMax)), previous: uint64(min(before, pairMax))}.state()
}

// convert gives a state under r the meaning that it had under old: as many tokens stay used, rounded up.
func (r *rule) convert(old *rule, state uint64, now int64) uint64 {
	if state == 0 || *old == *r {
		return state
	}
	used, before := old.used(state, now)
	if old.unit() != r.unit() {
		used, before = scale(used, old.unit(), r.unit()), scale(before, old.unit(), r.unit())
	}
	switch {
	case r.Algorithm == inFlight:
		return r.filled(used, before, now)
	case r.interval > 0: // what was owed under another rule is forgiven
		used = min(used, r.depth+r.patience)
	}
	return r.filled(used, min(before, int64(r.limit)), now)
}

// scale is v*to/from, rounded up, without overflow: both units are positive, v is not negative.
func scale(v, from, to int64) int64 {
	whole, rest := v/from, v%from
	if whole > (math.MaxInt64>>1)/to {
		return math.MaxInt64 >> 1
	}
	return whole*to + int64(math.Ceil(float64(rest)/float64(from)*float64(to)))
}

// weight is what would be forgotten with a state: the time until it is as that of a key which was never seen, in ns, for
// window algorithms by the part of the limit that is used. 0: nothing, for that time has come.
func (r *rule) weight(state uint64, now int64) int64 {
	left := r.left(state, now)
	if left <= 0 || r.interval > 0 {
		return max(left, 0)
	}
	used, before := r.used(state, now)
	return max(1, int64(float64(left)*float64(used+before)/float64(r.limit)))
}

// left is how long, in ns, a state still differs from that of a key which was never seen; <= 0: not any more.
func (r *rule) left(state uint64, now int64) int64 {
	if state == 0 {
		return 0
	}
	switch r.Algorithm {
	case TokenBucket, LeakyBucket:
		ahead, _ := gcraAhead(state, r, now)
		return nanosUp(ahead)
	case FixedWindow:
		if fixedUsed(state, r.period, now) == 0 {
			return 0
		}
		return r.period - phase(now, r.period)
	}
	p := pairAt(state, r.period, now)
	switch {
	case p.current > 0:
		return 2*r.period - phase(now, r.period)
	case p.previous > 0:
		return r.period - phase(now, r.period)
	}
	return 0
}

// phase is how far now is into its window. Windows begin at the multiples of the period, before the clock's zero too.
func phase(now, period int64) int64 {
	p := now % period
	if p < 0 {
		p += period
	}
	return p
}

// windowIndex is the number of now's window.
func windowIndex(now, period int64) int64 { return (now - phase(now, period)) / period }
