package limits

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustHierarchy(t testing.TB, levels ...Level) *Hierarchy {
	t.Helper()
	h, err := NewHierarchy(levels...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// All levels are taken or none, and the outermost that refuses is named: against a model that counts three levels, with
// leases on the outer ones and without.
func TestHierarchyAgainstModel(t *testing.T) {
	for _, leased := range []bool{false, true} {
		for seed := range uint64(10) {
			limits := []uint32{3000, 700, 60}
			var shared [3]*Limit
			levels := make([]Level, 3)
			for i, n := range limits {
				shared[i] = mustLimit(t, 1000, Window{Limit: n, Period: time.Hour})
				levels[i] = shared[i]
				if leased && i < 2 {
					levels[i], _ = NewLease(shared[i], 1, 8)
				}
			}
			h := mustHierarchy(t, levels...)
			used := map[[2]int]uint32{}
			r, refused := rand.New(rand.NewPCG(seed, 0)), [3]int{}
			for range 8000 {
				who := [3]int{0, r.IntN(r.IntN(8) + 1), r.IntN(100)}
				asks := make([]Ask, 3)
				want := -1
				for i, n := range who {
					cost := uint32(r.IntN(4)) // 0: not concerned
					asks[i] = Ask{key(n), cost}
					if want < 0 && cost > 0 && used[[2]int{i, n}]+cost > limits[i] {
						want = i
					}
				}
				d := h.Take(asks, 0)
				if d.Allowed != (want < 0) || want >= 0 && int(d.Level) != want {
					t.Fatalf("leased %v seed %d: %+v, want a refusal of level %d", leased, seed, d, want)
				}
				if want >= 0 {
					refused[want]++
					continue
				}
				if r.IntN(10) == 0 {
					h.Refund(asks, 0, 0)
					continue
				}
				for i, n := range who {
					used[[2]int{i, n}] += asks[i].Cost
				}
			}
			for i := range refused {
				if e, ok := levels[i].(*Lease); ok {
					e.Move(shared[i], 1, 0)
				}
				for n := range 100 {
					if got := taken(shared[i], key(n), 0); got != used[[2]int{i, n}] {
						t.Fatalf("leased %v: level %d key %d: %d taken, want %d", leased, i, n, got, used[[2]int{i, n}])
					}
				}
				if refused[i] == 0 {
					t.Fatalf("level %d never refused: the test tests nothing", i)
				}
			}
		}
	}
}

// An inner level that refuses costs the outer ones nothing, also while others take at the same time: what is gone of each
// level is exactly what was admitted.
func TestHierarchyRace(t *testing.T) {
	const workers, rounds = 4, 20_000
	global := mustLimit(t, 0, Window{Limit: 30_000, Period: 24 * time.Hour}, Window{Algorithm: FixedWindow, Limit: 35_000, Period: 24 * time.Hour})
	tenant := mustLimit(t, 100, Window{Algorithm: SlidingWindow, Limit: 9000, Period: 24 * time.Hour})
	client := mustLimit(t, 1000, Window{Limit: 300, Period: 24 * time.Hour})
	var admitted [3][100]atomic.Int64
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			levels := []Level{global, tenant, client}
			if n%2 == 0 { // some loops lease, some do not
				one, _ := NewLease(global, workers, 1)
				two, _ := NewLease(tenant, workers, 4)
				levels[0], levels[1] = one, two
				defer func() { one.Move(global, workers, 0); two.Move(tenant, workers, 0) }()
			}
			h := mustHierarchy(t, levels...)
			r := rand.New(rand.NewPCG(4, uint64(n)))
			for range rounds {
				who := [3]int{0, r.IntN(4), r.IntN(100)}
				asks := []Ask{{key(0), 1}, {key(who[1]), 1}, {key(who[2]), 1}}
				if h.Take(asks, 0).Allowed {
					for i, k := range who {
						admitted[i][k].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	sum := int64(0)
	for i, l := range []*Limit{global, tenant, client} {
		for n := range 100 {
			if got, want := taken(l, key(n), 0), admitted[i][n].Load(); int64(got) != want {
				t.Errorf("level %d key %d: %d taken, %d admitted", i, n, got, want)
			}
			if i == 2 {
				sum += admitted[i][n].Load()
			}
		}
	}
	if sum < 29_000 || sum > 30_000 {
		t.Errorf("%d admitted in all, of 30000", sum)
	}
}

// rival is a level of which another loop takes everything as soon as one has looked at it.
type rival struct{ *Limit }

func (r rival) Peek(key Key, cost uint32, now int64) Decision {
	d := r.Limit.Peek(key, cost, now)
	r.Take(key, d.Remaining+cost, now)
	return d
}

// A race that is lost after the look gives everything back.
func TestHierarchyLostRace(t *testing.T) {
	outer, middle, inner := mustLimit(t, 0, Window{Limit: 100, Period: time.Hour}), mustLimit(t, 0, Window{Limit: 50, Period: time.Hour}), mustLimit(t, 0, Window{Limit: 10, Period: time.Hour})
	h := mustHierarchy(t, outer, rival{middle}, inner)
	asks := []Ask{{Key{}, 2}, {Key{}, 3}, {Key{}, 4}}
	if d := h.Take(asks, 0); d.Allowed || d.Level != 1 {
		t.Fatalf("%+v", d)
	}
	for i, l := range []*Limit{outer, middle, inner} {
		if n, want := taken(l, Key{}, 0), []uint32{0, 50, 0}[i]; n != want {
			t.Errorf("level %d: %d taken, want %d", i, n, want)
		}
	}
}

// The same within a limit: when the second window refuses in a race, the first has lost nothing.
func TestLimitWindowsRace(t *testing.T) {
	const workers = 3
	l := mustLimit(t, 0, Window{Limit: 100_000, Period: 24 * time.Hour}, Window{Algorithm: FixedWindow, Limit: 1, Period: 24 * time.Hour})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range 100_000 {
				if l.Take(Key{}, 1, 0).Allowed {
					l.Refund(Key{}, 1, 0, 0)
				}
			}
		})
	}
	wg.Wait()
	if got := taken(l, Key{}, 0); got != 0 {
		t.Fatalf("%d taken of the first window after all was refunded", got)
	}
}

// The delays of a leaky level and the scarcest level are told.
func TestHierarchyDecision(t *testing.T) {
	queue := mustLimit(t, 0, Window{Algorithm: LeakyBucket, Limit: 10, Period: time.Second, MaxWait: time.Second})
	plenty := mustLimit(t, 0, Window{Limit: 1000, Period: time.Second})
	h := mustHierarchy(t, queue, plenty)
	asks := []Ask{{Key{}, 1}, {Key{}, 1}}
	h.Take(asks, 0)
	if d := h.Take(asks, 0); !d.Allowed || d.Level != 0 || d.Delay != 100*time.Millisecond || d.Limit != 10 || d.Remaining != 9 {
		t.Fatalf("%+v", d)
	}
	scarce := mustHierarchy(t, mustLimit(t, 0, Window{Limit: 5, Period: time.Second}), queue)
	if d := scarce.Take(asks, 0); !d.Allowed || d.Level != 0 || d.Delay != 200*time.Millisecond || d.Remaining != 4 {
		t.Fatalf("the delay of another level than the scarcest: %+v", d)
	}
	if d := h.Take([]Ask{{}, {}}, 0); !d.Allowed || d.Limit != 0 {
		t.Fatalf("nobody is concerned: %+v", d)
	}
	if d := h.Take([]Ask{{}, {Key{}, 1}}, 0); !d.Allowed || d.Level != 1 || d.Remaining != 997 {
		t.Fatalf("%+v", d)
	}
	for _, n := range []int{0, MaxLevels + 1} {
		if _, err := NewHierarchy(make([]Level, n)...); err == nil {
			t.Fatalf("%d levels were admitted", n)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("another number of asks than levels went unnoticed")
			}
		}()
		h.Take(asks[:1], 0)
	}()
}

// Several windows of one limit: none is taken of when one refuses, and the one that refuses is named.
func TestLimitWindows(t *testing.T) {
	l := mustLimit(t, 0, Window{Limit: 10, Period: time.Second}, Window{Algorithm: FixedWindow, Limit: 25, Period: time.Hour}, Window{Algorithm: SlidingWindow, Limit: 1000, Period: time.Hour})
	n := 0
	for i := range int64(5) {
		for range 20 {
			d := l.Take(Key{}, 1, i*sec)
			if d.Allowed {
				n++
				if left := uint32(25 - n); d.Remaining > left || d.Remaining == left && left < 9 && d.Window != 1 {
					t.Fatalf("%d are left of the hour: %+v", left, d)
				}
			} else if want := uint8(b2u(n == 25)); d.Window != want || (want == 0) != (d.RetryAfter <= 100*time.Millisecond) || d.Limit != []uint32{10, 25}[want] {
				t.Fatalf("after %d: %+v", n, d)
			}
		}
	}
	s := l.memory.find(Key{})
	for i, want := range []int64{0, 25, 25} {
		if used, _ := l.rules[i].used(l.state(s.state(i).Load(), s, i, 5*sec), 5*sec); used != want {
			t.Errorf("window %d: %d used, want %d: a refusal took something", i, used, want)
		}
	}
	if n != 25 {
		t.Fatalf("%d admitted", n)
	}
	if d := l.Take(Key{}, 26, 7200*sec); d.Allowed || d.RetryAfter != Never {
		t.Fatalf("a cost above the limit: %+v", d)
	}
}

func TestLimitCharge(t *testing.T) {
	for _, a := range []Algorithm{TokenBucket, FixedWindow, SlidingWindow, LeakyBucket} {
		w := Window{Algorithm: a, Limit: 10, Period: time.Second}
		if a == LeakyBucket {
			w.MaxWait = 900 * time.Millisecond
		}
		l := mustLimit(t, 0, w)
		l.Charge(Key{}, 4, 0)
		if d := l.Take(Key{}, 1, 0); !d.Allowed || d.Remaining != 5 {
			t.Errorf("%v: %+v after a charge of 4", a, d)
		}
		l.Charge(Key{}, 1<<31, 0)
		if d := l.Take(Key{}, 1, 0); d.Allowed || d.RetryAfter > 2*time.Second {
			t.Errorf("%v: %+v after a charge of more than the bucket", a, d)
		}
		if d := l.Take(Key{}, 1, 2*sec); !d.Allowed {
			t.Errorf("%v: what was beyond the bucket is remembered: %+v", a, d)
		}
	}
}

func TestLimitAllocs(t *testing.T) {
	l := mustLimit(t, 1000, Window{Limit: 1000, Period: time.Second}, Window{Algorithm: SlidingWindow, Limit: 1000, Period: time.Second})
	c, _ := NewConcurrency(3, time.Second, 100)
	e, _ := NewLease(l, 1, 16)
	h := mustHierarchy(t, e, l)
	top, _ := NewTop(16)
	_, nodes := clusterOf(t, 1, 10, 10, AwayLocal)
	nodes[0].source = askFunc(func(Key, uint32, int64) bool { return false })
	seed, text, asks, n := NewSeed(), []byte("192.0.2.1"), make([]Ask, 2), 0
	var keys [2000]Key
	for i := range keys {
		keys[i] = key(i)
	}
	if n := testing.AllocsPerRun(1000, func() {
		n++
		k := seed.With(seed.Key(text), text)
		now := int64(n) * ms
		l.Take(keys[n], 1, now)
		l.Charge(keys[n], 1, now)
		nodes[0].Take(keys[n], 1, now)
		nodes[0].Refund(keys[n], 1, now, now)
		nodes[0].Grant(keys[n], 1, now)
		l.Refund(k, 1, now, now)
		asks[0], asks[1] = Ask{k, 1}, Ask{k, 2}
		h.Take(asks, now)
		e.Settle(now)
		ticket, _ := c.Begin(k, 1, now)
		c.Release(ticket, now)
		top.Add(Key{uint64(n), 0}, text)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
