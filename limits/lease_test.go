package limits

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// admissions are the times at which something was admitted, in order.
type admissions []int64

// most is the greatest number of admissions in any span of that length.
func (a admissions) most(span int64) (most int) {
	from := 0
	for i := range a {
		for a[i]-a[from] >= span {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// between counts the admissions of a span.
func (a admissions) between(from, to int64) (n int) {
	for _, at := range a {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

// demand says to which loop the n-th request of a time comes.
type demand struct {
	name string
	loop func(r *rand.Rand, loops int, now int64) int
}

func demands() []demand {
	return []demand{
		{"uniform", func(r *rand.Rand, loops int, _ int64) int { return r.IntN(loops) }},
		{"one loop", func(*rand.Rand, int, int64) int { return 0 }},
		{"skewed", func(r *rand.Rand, loops int, _ int64) int { return min(int(r.ExpFloat64()*float64(loops)/8), loops-1) }},
		{"wandering", func(r *rand.Rand, loops int, now int64) int { return int(now/(70*ms)) % loops }},
	}
}

// The bound of the lease, measured: with 2 to 64 loops and any spread of the demand, no span of a period sees more than the
// algorithm's own bound and 1 % of the limit, or one token a loop; and under demand no second gets less than 97 %.
func TestLeaseBound(t *testing.T) {
	const limit, seconds = 4000, 4
	for _, w := range []Window{
		{Limit: limit, Period: time.Second, Burst: 1000},
		{Limit: limit, Period: time.Second},
		{Limit: limit / 40, Period: time.Second, Burst: 10},
		{Algorithm: FixedWindow, Limit: limit, Period: time.Second},
		{Algorithm: SlidingWindow, Limit: limit, Period: time.Second},
	} {
		for _, loops := range []int{2, 3, 8, 64} {
			for _, d := range demands() {
				t.Run(fmt.Sprint(w.Algorithm, w.Limit, "/", w.Burst, " on ", loops, " ", d.name), func(t *testing.T) {
					testLeaseBound(t, w, loops, d, seconds)
				})
			}
		}
	}
}

func testLeaseBound(t *testing.T, w Window, loops int, d demand, seconds int64) {
	l := mustLimit(t, 0, w)
	k, r := key(1), rand.New(rand.NewPCG(1, uint64(loops)))
	all := make([]*Lease, loops)
	for i := range all {
		all[i], _ = NewLease(l, loops, 1)
	}
	var got admissions
	held, settled := uint32(0), int64(0)
	step := sec / int64(w.Limit) / 4 // four times the limit is asked for
	for now := int64(0); now < seconds*sec; now += 1 + r.Int64N(2*step) {
		if now-settled > 50*ms {
			settled = now
			sum := uint32(0)
			for _, e := range all {
				sum += e.Held(k)
				e.Settle(now)
			}
			held = max(held, sum)
		}
		if all[d.loop(r, loops, now)].Take(k, 1, now).Allowed {
			got = append(got, now)
		}
	}
	slack := max(int(w.Limit)/100, loops)
	most := int(w.Limit) + slack
	switch w.Algorithm {
	case TokenBucket:
		most += int(mustRule(t, w).burst)
	case FixedWindow:
		most = 2*int(w.Limit) + 1 // around a boundary; each window by itself is checked below
	case SlidingWindow:
		most = int(float64(w.Limit)*1.30) + slack // the demand is even but for the first window, which it fills early
	}
	if n := got.most(sec); n > most {
		t.Errorf("%d were admitted within a period, at most %d may be", n, most)
	}
	if held > uint32(slack) {
		t.Errorf("the loops held %d tokens, at most %d may be", held, slack)
	}
	for s := int64(1); s < seconds; s++ {
		n := got.between(s*sec, (s+1)*sec)
		if float64(n) < 0.97*float64(w.Limit) {
			t.Errorf("second %d: %d admitted, less than 97 %% of %d", s, n, w.Limit)
		}
		if w.Algorithm == FixedWindow && n > int(w.Limit) {
			t.Errorf("window %d: %d admitted of %d", s, n, w.Limit)
		}
	}
	misses, hits := uint64(0), uint64(0)
	for _, e := range all {
		misses, hits = misses+e.Stats().Misses, hits+e.Stats().Hits
	}
	if all[0].batch > 8 && misses > hits {
		t.Errorf("%d of %d takes asked the limit: the lease saves nothing", misses, hits+misses)
	}
}

// What a loop holds and does not use returns to the others.
func TestLeaseReturnsWhenIdle(t *testing.T) {
	l := mustLimit(t, 1000, Window{Limit: 1000, Period: time.Hour})
	k := key(1)
	e, err := NewLease(l, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	if !e.Take(k, 1, 0).Allowed || e.Held(k) != 9 || taken(l, k, 0) != 10 {
		t.Fatalf("%d held, %d taken", e.Held(k), taken(l, k, 0))
	}
	e.Settle(50 * ms)
	if e.Held(k) != 9 {
		t.Fatal("given back too early")
	}
	e.Settle(100 * ms)
	if e.Held(k) != 0 || taken(l, k, 100*ms) != 1 {
		t.Fatalf("%d held, %d taken after it was idle", e.Held(k), taken(l, k, 100*ms))
	}
	e.Take(k, 1, 200*ms)
	e.Take(k, 1, 200*ms)
	e.Move(l, 1, 200*ms)
	if e.Held(k) != 0 || taken(l, k, 200*ms) != 3 {
		t.Fatalf("%d held, %d taken after the move", e.Held(k), taken(l, k, 200*ms))
	}
	// More keys than there is room for: what is displaced is given back, so nothing gets lost.
	for i := range 100 {
		e.Take(key(i), 1, 300*ms)
	}
	e.Move(l, 1, 300*ms)
	for i := range 100 {
		want := uint32(1)
		if i == 1 {
			want = 4
		}
		if n := taken(l, key(i), 300*ms); n != want {
			t.Fatalf("key %d: %d taken, want %d", i, n, want)
		}
	}
}

// A small limit is taken token by token, and is exact.
func TestLeaseOfSmallLimits(t *testing.T) {
	l := mustLimit(t, 0, Window{Limit: 100, Period: time.Minute})
	var all [4]*Lease
	for i := range all {
		all[i], _ = NewLease(l, len(all), 1)
	}
	n := 0
	for i := range 1000 {
		if all[i%4].Take(Key{}, 1, 0).Allowed {
			n++
		}
		if all[i%4].Held(Key{}) != 0 {
			t.Fatal("tokens of a small limit are held")
		}
	}
	if n != 100 {
		t.Fatalf("%d admitted of 100", n)
	}
}

// Costs, refunds and refusals through a lease leave the limit as if they had been its own.
func TestLeaseCosts(t *testing.T) {
	l := mustLimit(t, 0, Window{Limit: 10_000, Period: time.Hour})
	e, _ := NewLease(l, 2, 4)
	r, k, used := rand.New(rand.NewPCG(2, 2)), key(1), uint32(0)
	for range 5000 {
		cost := uint32(r.IntN(80))
		want := used+cost <= 10_000
		peek := e.Peek(k, cost, 0)
		d := e.Take(k, cost, 0)
		if d.Allowed != want || peek.Allowed != want || d.Remaining != 10_000-used-cost*b2u(want) {
			t.Fatalf("used %d cost %d: take %+v, peek %+v", used, cost, d, peek)
		}
		if d.Allowed {
			used += cost
			if r.IntN(4) == 0 {
				e.Refund(k, cost, 0, 0)
				used -= cost
			}
		}
		if e.Held(k) >= 50 {
			t.Fatalf("%d held", e.Held(k))
		}
	}
	e.Move(l, 2, 0)
	if n := taken(l, k, 0); n != used || used < 9_900 {
		t.Fatalf("%d taken, want %d", n, used)
	}
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Tokens of a window that has ended are not spent in the next one.
func TestLeaseDropsOldWindow(t *testing.T) {
	l := mustLimit(t, 0, Window{Algorithm: FixedWindow, Limit: 1000, Period: time.Second})
	e, _ := NewLease(l, 1, 1)
	e.Take(Key{}, 1, sec-1)
	second := 0
	for range 2000 {
		if e.Take(Key{}, 1, sec).Allowed {
			second++
		}
	}
	if second != 1000 {
		t.Fatalf("%d of 1000 in the window after one of which tokens were held", second)
	}
	if d := e.Take(Key{}, 1, sec+1); d.Allowed || d.RetryAfter != time.Second-1 {
		t.Fatalf("%+v", d)
	}
	n := 0
	for range 2000 {
		if e.Take(Key{}, 1, 2*sec).Allowed {
			n++
		}
	}
	if n != 1000 {
		t.Fatalf("%d of 1000 in a window", n)
	}
}

// Real loops, at once: what all admit at one instant is what there was.
func TestLeaseRace(t *testing.T) {
	const loops, limit = 4, 20_000
	l := mustLimit(t, 0, Window{Limit: limit, Period: time.Hour}, Window{Algorithm: FixedWindow, Limit: limit + 500, Period: time.Hour})
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for n := range loops {
		wg.Go(func() {
			e, _ := NewLease(l, loops, 2)
			r := rand.New(rand.NewPCG(3, uint64(n)))
			for range limit {
				if e.Take(key(9), 1, 0).Allowed {
					if r.IntN(8) == 0 {
						e.Refund(key(9), 1, 0, 0)
					} else {
						admitted.Add(1)
					}
				}
			}
			e.Move(l, loops, 0)
		})
	}
	wg.Wait()
	d := l.Peek(key(9), 0, 0)
	if n := admitted.Load(); n+int64(d.Remaining) != limit || n < limit*97/100 {
		t.Fatalf("%d admitted and %d remain of %d", n, d.Remaining, limit)
	}
}
