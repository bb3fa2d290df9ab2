package health

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// queueingServer serves so many at once, each for about `service`, and lets the rest queue. ends are when its places are free.
type queueingServer struct {
	random  *rand.Rand
	service time.Duration
	free    []int64
}

// serve gives when a request that comes now is answered.
func (s *queueingServer) serve(now int64) int64 {
	first := 0
	for i := range s.free {
		if s.free[i] < s.free[first] {
			first = i
		}
	}
	s.free[first] = max(s.free[first], now) + int64(float64(s.service)*(0.8+0.4*s.random.Float64()))
	return s.free[first]
}

type flight struct{ began, end int64 }

type flights []flight

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].end < f[j].end }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// overload offers so many requests a second for so long, and gives how many were answered and the worst time of the second half.
func overload(t *testing.T, c *Concurrency, s *queueingServer, rate float64, from, to int64) (answered int, worst time.Duration) {
	t.Helper()
	var out flights
	for now := from; now < to; now += int64(s.random.ExpFloat64() / rate * 1e9) {
		for len(out) > 0 && out[0].end <= now {
			f := heap.Pop(&out).(flight)
			c.Release(f.began, f.end)
			answered++
			if f.end > (from+to)/2 {
				worst = max(worst, time.Duration(f.end-f.began))
			}
		}
		if c.InFlight() != len(out) {
			t.Fatalf("%d in flight, want %d", c.InFlight(), len(out))
		}
		limit := c.Limit()
		if c.Acquire() {
			heap.Push(&out, flight{now, s.serve(now)})
			if len(out) > limit {
				t.Fatalf("%d in flight over a limit of %d", len(out), limit)
			}
		} else if len(out) < limit {
			t.Fatalf("refused with %d of %d in flight", len(out), limit)
		}
	}
	for _, f := range out {
		c.Release(f.began, f.end)
	}
	return answered, worst
}

// A server of 20 places at 10 ms answers 2,000 a second. Offered half as many again, the limit keeps it busy and its queue short;
// when it becomes three times as slow, the next measurement finds that out.
func TestConcurrencyFindsTheLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	spec := DefaultConcurrency()
	spec.MeasureInterval = 10 * time.Second
	c, err := NewConcurrency(spec, r, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &queueingServer{random: r, service: 10 * time.Millisecond, free: make([]int64, 20)}
	second := int64(time.Second)
	answered, worst := overload(t, c, s, 3000, 0, 20*second)
	if answered < 20*1700 || worst > 40*time.Millisecond || c.Limit() < 20 || c.Limit() > 60 {
		t.Errorf("%d answered in 20s, the slowest in %v, limit %d", answered, worst, c.Limit())
	}
	if least := c.Least(); least < 9*time.Millisecond || least > 11*time.Millisecond {
		t.Errorf("least latency %v", least)
	}
	s.service = 30 * time.Millisecond
	answered, worst = overload(t, c, s, 3000, 20*second, 60*second)
	if answered < 40*550 || worst > 120*time.Millisecond || c.Limit() < 20 || c.Limit() > 60 {
		t.Errorf("slower: %d answered in 40s, the slowest in %v, limit %d", answered, worst, c.Limit())
	}
	if least := c.Least(); least < 27*time.Millisecond || least > 33*time.Millisecond {
		t.Errorf("least latency %v", least)
	}
	s.service = 5 * time.Millisecond
	overload(t, c, s, 3000, 60*second, 80*second)
	if least := c.Least(); least < 4500*time.Microsecond || least > 5500*time.Microsecond {
		t.Errorf("faster: least latency %v", least)
	}
}

// A limit that is not made use of does not grow, one that is grows up to the maximum while latency stays.
func TestConcurrencyGrowth(t *testing.T) {
	for _, f := range []struct{ inFlight, least, most int }{{3, 3, 30}, {200, 200, 200}} {
		spec := DefaultConcurrency()
		spec.MaxLimit = 200
		c, _ := NewConcurrency(spec, dice(0), 0)
		for now := int64(0); now < int64(20*time.Second); now += int64(10 * time.Millisecond) {
			n := 0
			for n < f.inFlight && c.Acquire() {
				n++
			}
			for range n {
				c.Release(now, now+int64(10*time.Millisecond))
			}
		}
		if c.Limit() < f.least || c.Limit() > f.most {
			t.Errorf("%d in flight: limit %d, want %d..%d", f.inFlight, c.Limit(), f.least, f.most)
		}
	}
}

// A measurement lowers the limit for as long as it lasts, and leaves it as it was.
func TestConcurrencyComesBack(t *testing.T) {
	spec := DefaultConcurrency()
	spec.MaxLimit = 100
	c, _ := NewConcurrency(spec, dice(0), 0)
	step, end := int64(10*time.Millisecond), int64(3*time.Minute)
	var limits []int
	for now := int64(0); now < end; now += step {
		n := 0
		for c.Acquire() {
			n++
		}
		for range n {
			c.Release(now, now+step)
		}
		if limit := c.Limit(); len(limits) == 0 || limits[len(limits)-1] != limit {
			limits = append(limits, limit)
		}
	}
	grown := slices.Index(limits, 100)
	if grown < 0 || !slices.Equal(limits[grown:], []int{100, 3, 100, 3, 100}) {
		t.Errorf("limits were %v", limits)
	}
}

// What began before a measurement, or was cancelled, says nothing about the least latency.
func TestConcurrencyMeasuresOnlyItsOwn(t *testing.T) {
	spec := DefaultConcurrency()
	spec.MeasureRequests = 3
	c, _ := NewConcurrency(spec, dice(0), 1000)
	for range 10 {
		c.Acquire()
		c.Release(999, int64(time.Hour)) // began earlier
		c.Acquire()
		c.Cancel()
	}
	if c.Least() != 0 || c.InFlight() != 0 {
		t.Fatalf("measured %v, %d in flight", c.Least(), c.InFlight())
	}
	for range 3 {
		c.Acquire()
		c.Release(1000, 1000+int64(5*time.Millisecond))
	}
	if least := c.Least(); least < 4700*time.Microsecond || least > 5300*time.Microsecond {
		t.Errorf("measured %v", least)
	}
}

// The last place goes to one of two who come at once, and what both bring at once is counted twice.
func TestConcurrencyLastPlace(t *testing.T) {
	spec := DefaultConcurrency()
	spec.MinConcurrency, spec.MaxLimit, spec.MeasureRequests = 1, 1, 100_000
	c, _ := NewConcurrency(spec, dice(0), 0)
	var admitted, both atomic.Int64
	rounds := duel(50_000, func(int) {
		if c.Acquire() {
			admitted.Add(1)
		}
	}, func(round int) {
		n := admitted.Swap(0)
		both.Add(n)
		if n > 1 || int64(c.InFlight()) != n {
			t.Fatalf("round %d: %d admitted, %d in flight", round, n, c.InFlight())
		}
		for range n {
			c.Release(0, 1)
		}
	})
	if both.Load() < int64(rounds)/2 {
		t.Errorf("%d were admitted in %d rounds", both.Load(), rounds)
	}
}

// All loops at once: never more in flight than the limit may be, and nothing is left.
func TestConcurrencyAtOnce(t *testing.T) {
	spec := DefaultConcurrency()
	spec.MaxLimit, spec.MeasureRequests, spec.UpdateInterval, spec.MeasureInterval = 10, 20, 10*time.Millisecond, time.Second
	c, _ := NewConcurrency(spec, rand.NewPCG(1, 2), 0)
	var clock, in, refused atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 5000 {
				var began [4]int64
				n := 0
				for n < 4 && c.Acquire() {
					if in.Add(1) > 10 {
						t.Error("more than MaxLimit in flight")
					}
					began[n] = clock.Load()
					n++
				}
				if n < 4 {
					refused.Add(1)
				}
				for i := range n {
					in.Add(-1)
					c.Release(began[i], clock.Add(int64(time.Millisecond)))
				}
			}
		})
	}
	wg.Wait()
	if c.InFlight() != 0 || c.Least() == 0 || c.Limit() < 3 || c.Limit() > 10 {
		t.Errorf("%d in flight, least %v, limit %d", c.InFlight(), c.Least(), c.Limit())
	}
}
