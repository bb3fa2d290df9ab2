package limits

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const (
	ms  = int64(time.Millisecond)
	sec = int64(time.Second)
)

func mustRule(t testing.TB, w Window) *rule {
	t.Helper()
	r, err := newRule(w)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// exact is the simplest model of an algorithm: it keeps whatever it needs, in exact numbers.
type exact interface {
	take(cost, now int64) (allowed bool, delay int64)
}

// bucketModel counts tokens in units of 1/(period in ns), so that filling is exact. wait is how long beyond that one may queue.
type bucketModel struct {
	limit, burst, period, wait int64
	debt, last                 int64 // debt: used tokens * period
}

func (m *bucketModel) take(cost, now int64) (bool, int64) {
	m.debt = max(0, m.debt-(now-m.last)*m.limit)
	m.last = now
	over := m.debt + cost*m.period - m.burst*m.period
	if over > m.wait*m.limit {
		return false, 0
	}
	m.debt += cost * m.period
	return true, (max(over, 0) + m.limit - 1) / m.limit
}

// windowModel keeps the count of every window.
type windowModel struct {
	limit, period int64
	sliding       bool
	counts        map[int64]int64
}

func (m *windowModel) take(cost, now int64) (bool, int64) {
	i := int64(math.Floor(float64(now) / float64(m.period)))
	used := float64(m.counts[i])
	if m.sliding {
		used = math.Ceil(used + float64(m.counts[i-1])*float64((i+1)*m.period-now)/float64(m.period))
	}
	if used+float64(cost) > float64(m.limit) {
		return false, 0
	}
	m.counts[i] += cost
	return true, 0
}

// modelled are windows whose interval is a whole number of ns, so that the model and the rule must agree to the ns.
func modelled() []Window {
	return []Window{
		{Limit: 10, Period: time.Second},
		{Limit: 100, Period: time.Minute, Burst: 7},
		{Limit: 1000, Period: time.Second, Burst: 1},
		{Limit: 3, Period: 24 * time.Hour, Burst: 3},
		{Limit: 1_000_000, Period: time.Second, Burst: 20},
		{Algorithm: LeakyBucket, Limit: 50, Period: time.Second, MaxWait: 200 * time.Millisecond},
		{Algorithm: LeakyBucket, Limit: 10, Period: time.Second, Burst: 5, MaxWait: time.Second},
		{Algorithm: FixedWindow, Limit: 20, Period: time.Second},
		{Algorithm: FixedWindow, Limit: 30, Period: 24 * time.Hour},
		{Algorithm: SlidingWindow, Limit: 20, Period: time.Second},
		{Algorithm: SlidingWindow, Limit: 60, Period: time.Minute},
	}
}

func modelOf(w Window) exact {
	switch w.Algorithm {
	case FixedWindow, SlidingWindow:
		return &windowModel{int64(w.Limit), int64(w.Period), w.Algorithm == SlidingWindow, map[int64]int64{}}
	}
	burst := int64(w.Burst)
	switch {
	case burst == 0 && w.Algorithm == LeakyBucket:
		burst = 1
	case burst == 0:
		burst = int64(w.Limit)
	}
	return &bucketModel{limit: int64(w.Limit), burst: burst, period: int64(w.Period), wait: int64(w.MaxWait)}
}

// schedule gives random times and costs, at a demand around the limit, with pauses.
func schedule(r *rand.Rand, w Window, n int, f func(cost, at int64)) {
	at := r.Int64N(int64(w.Period))
	mean := int64(w.Period) / int64(w.Limit)
	for range n {
		switch r.IntN(40) {
		case 0:
			at += r.Int64N(20 * mean)
			if r.IntN(10) == 0 {
				at += r.Int64N(3 * int64(w.Period))
			}
		case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10: // at once
		default:
			at += r.Int64N(2*mean + 1)
		}
		f(1+r.Int64N(3)*r.Int64N(2), at)
	}
}

// Each algorithm decides as its model does, at every step of random schedules.
func TestRulesAgainstModel(t *testing.T) {
	for n, w := range modelled() {
		t.Run(fmt.Sprint(n, w.Algorithm), func(t *testing.T) {
			for seed := range uint64(20) {
				r, model := mustRule(t, w), modelOf(w)
				state, refused := uint64(0), 0
				schedule(rand.New(rand.NewPCG(seed, uint64(n))), w, 2000, func(cost, at int64) {
					next, o := r.take(state, uint32(cost), at)
					allowed, delay := model.take(cost, at)
					if o.allowed != allowed || allowed && o.wait != delay {
						t.Fatalf("seed %d at %d cost %d: allowed %v delay %d, the model says %v %d", seed, at, cost, o.allowed, o.wait, allowed, delay)
					}
					if !allowed {
						refused++
						if next != state {
							t.Fatal("a refusal changed the state")
						}
						r.checkWait(t, state, uint32(cost), at, o.wait)
					}
					state = next
				})
				if refused < 20 {
					t.Fatalf("only %d were refused: the schedule tests nothing", refused)
				}
			}
		})
	}
}

// checkWait proves that a refusal's wait is the shortest.
func (r *rule) checkWait(t *testing.T, state uint64, cost uint32, now, wait int64) {
	t.Helper()
	if int64(cost) > int64(r.capacity()) {
		if wait != int64(Never) {
			t.Fatalf("cost %d can never be admitted, wait %d", cost, wait)
		}
		return
	}
	if _, o := r.take(state, cost, now+wait); !o.allowed {
		t.Fatalf("at %d: refused after the wait of %d", now, wait)
	}
	if _, o := r.take(state, cost, now+wait-1); o.allowed {
		t.Fatalf("at %d: admitted 1 ns before the wait of %d is over", now, wait)
	}
}

// What is said to remain can be taken, and not one more.
func TestRulesRemaining(t *testing.T) {
	for n, w := range modelled() {
		r, state := mustRule(t, w), uint64(0)
		schedule(rand.New(rand.NewPCG(3, uint64(n))), w, 2000, func(cost, at int64) {
			next, o := r.take(state, uint32(cost), at)
			state = next
			if _, again := r.take(state, uint32(o.remaining), at); !again.allowed {
				t.Fatalf("%v: the %d that remain cannot be taken", w, o.remaining)
			}
			if _, again := r.take(state, uint32(o.remaining)+1, at); again.allowed {
				t.Fatalf("%v: more than the %d that remain can be taken", w, o.remaining)
			}
			if _, later := r.take(state, 0, at+r.left(state, at)); later.remaining != r.capacity() {
				t.Fatalf("%v: %d remain after all has run out, want %d", w, later.remaining, r.capacity())
			}
		})
	}
}

// In any span a token bucket admits at most burst and what the rate gives, and close to that, whatever the numbers are.
func TestTokenBucketBound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		w := Window{Limit: 1 + uint32(r.Int64N(1<<r.IntN(20))), Period: time.Duration(1+r.Int64N(3600)) * time.Second, Burst: 1 + uint32(r.Int64N(1000))}
		if int64(w.Burst)*int64(w.Period)/int64(w.Limit) > int64(MaxPeriod) {
			continue
		}
		rule, state, admitted, at := mustRule(t, w), uint64(0), int64(0), r.Int64()
		span := 3 * int64(w.Period)
		for i := range int64(3000) {
			next, o := rule.take(state, 1, at+span/3000*i)
			if state = next; o.allowed {
				admitted++
			}
		}
		offered, most := 3000.0, float64(w.Burst)+float64(w.Limit)*float64(span)/float64(w.Period)
		if float64(admitted) > most || float64(admitted) < 0.97*min(most, offered)-2 {
			t.Fatalf("%+v: %d admitted of %v, the bound is %v", w, admitted, offered, most)
		}
	}
}

// The same schedule gets the same answers wherever the clock stands: before zero, over the wraps of the states.
func TestRulesAnywhereOnTheClock(t *testing.T) {
	for n, w := range modelled() {
		run := func(base int64) string {
			var b strings.Builder
			r, state := mustRule(t, w), uint64(0)
			schedule(rand.New(rand.NewPCG(9, uint64(n))), w, 1000, func(cost, at int64) {
				next, o := r.take(state, uint32(cost), base+at)
				fmt.Fprintln(&b, o)
				state = next
			})
			return b.String()
		}
		want := run(0)
		day := int64(24 * time.Hour)
		bases := []int64{-day, -1000 * day, 834 * day, 1 << 56 / day * day, (1<<56/day - 1) * day, 1 << 62 / day * day, math.MinInt64 / day * day}
		if w.Period <= time.Minute {
			for _, bits := range []int{pairIndexBits, fixedIndexBits} {
				bases = append(bases, int64(w.Period)*(1<<bits-3), int64(w.Period)*(1<<bits-50))
			}
		}
		for _, base := range bases {
			if got := run(base); got != want {
				t.Errorf("%+v: other answers from %d on", w, base)
			}
		}
	}
}

// A clock that goes back gives nobody anything, and locks nobody out for longer than an empty bucket or a full window would.
func TestRulesClockBack(t *testing.T) {
	for _, w := range modelled() {
		for _, back := range []int64{1, ms, sec, 60 * sec, int64(w.Period), 10 * int64(w.Period), 300 * 24 * 3600 * sec} {
			if w.Algorithm == SlidingWindow && back > int64(w.Period)<<(pairIndexBits-1) {
				continue // further than the window's number reaches
			}
			r, state, now := mustRule(t, w), uint64(0), 5000*24*3600*sec+17
			for {
				next, o := r.take(state, 1, now)
				if !o.allowed {
					break
				}
				state = next
			}
			now -= back
			next, o := r.take(state, 1, now)
			if o.allowed {
				t.Fatalf("%+v: the clock went back by %d, and it was admitted", w, back)
			}
			if most := int64(w.Period) + r.depth/ticksPerNano + int64(w.MaxWait) + sec + min(back, int64(w.Period)); o.wait > most {
				t.Fatalf("%+v: the clock went back by %d, and the wait is %d", w, back, o.wait)
			}
			state = next
			if _, o = r.take(state, 1, now+o.wait); !o.allowed {
				t.Fatalf("%+v: back by %d: refused after the wait", w, back)
			}
			if _, o = r.take(state, 1, now+3*int64(w.Period)+r.depth/ticksPerNano+int64(w.MaxWait)+2*sec); !o.allowed {
				t.Fatalf("%+v: back by %d: locked out", w, back)
			}
		}
	}
}

// What is refunded was as if it had never been taken, and never more than that.
func TestRulesRefund(t *testing.T) {
	for n, w := range modelled() {
		r, state, without := mustRule(t, w), uint64(0), uint64(0)
		random := rand.New(rand.NewPCG(5, uint64(n)))
		schedule(random, w, 3000, func(cost, at int64) {
			// Something else is taken and given back at once around each take.
			extra := uint32(1 + random.IntN(3))
			if tmp, o := r.take(state, extra, at); o.allowed {
				state = r.refund(tmp, extra, at, at)
			}
			next, o := r.take(state, uint32(cost), at)
			plain, want := r.take(without, uint32(cost), at)
			if o != want {
				t.Fatalf("%+v at %d: %+v, without refunds %+v", w, at, o, want)
			}
			state, without = next, plain
		})
		if got := r.refund(state, math.MaxUint32, 0, 1<<50); got != state && r.left(got, 1<<50) > r.left(state, 1<<50) {
			t.Fatalf("%+v: a refund took something", w)
		}
		_, full := r.take(r.refund(r.refund(state, 5, 0, 0), math.MaxUint32, 0, 0), 0, 0)
		if full.remaining > r.capacity() {
			t.Fatalf("%+v: %d remain after too large a refund", w, full.remaining)
		}
	}
	// Of a window that has passed nothing is given back to the next one.
	r := mustRule(t, Window{Algorithm: FixedWindow, Limit: 10, Period: time.Second})
	state, _ := r.take(0, 10, 0)
	state, _ = r.take(state, 10, sec)
	if _, o := r.take(r.refund(state, 10, 0, sec), 1, sec); o.allowed {
		t.Fatal("a refund of the last window was given to this one")
	}
}

// used and filled are inverse to one another, on whatever clock.
func TestRulesUsedFilled(t *testing.T) {
	for n, w := range modelled() {
		r, state := mustRule(t, w), uint64(0)
		schedule(rand.New(rand.NewPCG(7, uint64(n))), w, 500, func(cost, at int64) {
			state, _ = r.take(state, uint32(cost), at)
			used, before := r.used(state, at)
			elsewhere := at + 77*int64(w.Period)
			if u, b := r.used(r.filled(used, before, elsewhere), elsewhere); u != used || b != before {
				t.Fatalf("%+v: %d %d became %d %d", w, used, before, u, b)
			}
			_, o := r.take(state, 0, at)
			if _, moved := r.take(r.filled(used, before, elsewhere), 0, elsewhere); moved != o {
				t.Fatalf("%+v: %+v became %+v", w, o, moved)
			}
		})
	}
}

func TestRuleRefusals(t *testing.T) {
	f := func(w Window, want string) {
		t.Helper()
		if _, err := newRule(w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", w, err, want)
		}
	}
	f(Window{Period: time.Second}, "limit is 0")
	f(Window{Limit: 1}, "period 0s")
	f(Window{Limit: 1, Period: MaxPeriod + 1}, "period")
	f(Window{Limit: 1, Period: -time.Second}, "period")
	f(Window{Limit: MaxRate + 1, Period: time.Second}, "above 10000000 a second")
	f(Window{Limit: 1, Burst: 100, Period: 24 * time.Hour}, "to fill")
	f(Window{Limit: 1, Period: time.Second, MaxWait: 1}, "only leaky_bucket delays")
	f(Window{Algorithm: LeakyBucket, Limit: 1, Period: time.Second, MaxWait: -1}, "max wait")
	f(Window{Algorithm: FixedWindow, Limit: 1, Period: time.Second, Burst: 2}, "has no burst")
	f(Window{Algorithm: SlidingWindow, Limit: MaxWindowCount + 1, Period: time.Second}, "use token_bucket")
	f(Window{Algorithm: 99, Limit: 1, Period: time.Second}, "algorithm 99")
	// The extremes that are admitted do not overflow.
	for _, w := range []Window{
		{Limit: 1, Period: MaxPeriod},
		{Algorithm: LeakyBucket, Limit: 1, Period: MaxPeriod, MaxWait: MaxPeriod},
		{Limit: math.MaxUint32, Period: MaxPeriod, Burst: math.MaxUint32},
		{Limit: MaxRate, Period: time.Second},
		{Algorithm: FixedWindow, Limit: math.MaxUint32, Period: time.Millisecond},
	} {
		r := mustRule(t, w)
		whole := uint32(r.capacity())
		state, o := r.take(0, whole, 12345*sec)
		if _, then := r.take(state, 1, 12345*sec); !o.allowed || o.remaining != 0 || then.allowed {
			t.Errorf("%+v: the whole bucket: %+v, then %+v", w, o, then)
		}
	}
}
