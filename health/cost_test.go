package health

import (
	"sync/atomic"
	"testing"
	"time"
)

// Nothing that a request calls allocates.
func TestRequestsAllocateNothing(t *testing.T) {
	f := func(name string, run func()) {
		t.Helper()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	d, _ := NewDetector(DefaultOutlier(), dice(0))
	e := d.Add("a", 2)
	f("Tally.Report", func() {
		for o := range Timeout + 1 {
			e.Report(1, o)
		}
	})
	now := int64(0)
	spec := DefaultBreaker()
	spec.SlowPercentile, spec.SlowOver, spec.Consecutive, spec.Cooldown = 99, time.Second, 3, 10*time.Millisecond
	b, _ := NewBreaker(spec)
	opened := 0
	f("Breaker", func() {
		now += int64(time.Second)
		for i := range 5 {
			if p, ok := b.Allow(now); ok {
				b.Report(p, i < 4, 2*time.Second, now)
			} else {
				opened++
			}
			if p, ok := b.Allow(now); ok {
				b.Cancel(p)
			}
		}
	})
	if opened == 0 {
		t.Error("the breaker was never open")
	}
	budget, _ := NewBudget(DefaultBudget(), 2)
	f("Budget", func() {
		budget.Begin(1)
		if budget.Retry(1) {
			budget.EndRetry()
		}
		budget.End(1)
	})
	limit, _ := NewConcurrency(DefaultConcurrency(), dice(0), 0)
	f("Concurrency", func() { // measurements and updates too
		now += int64(20 * time.Millisecond)
		if limit.Acquire() {
			limit.Release(now, now+int64(time.Millisecond))
		}
	})
	if limit.Least() == 0 {
		t.Error("nothing was measured")
	}
	c, _ := NewCanary(canarySpec(), 0)
	f("Canary", func() {
		if c.Percent() > 0 {
			c.Report(true, true, time.Millisecond)
		}
		c.Report(false, false, time.Millisecond)
	})
}

func BenchmarkTallyReport(b *testing.B) {
	d, _ := NewDetector(DefaultOutlier(), dice(0))
	t := d.Add("a", 2)
	b.ReportAllocs()
	for b.Loop() {
		t.Report(0, Success)
	}
}

// Each processor is a loop with a cell of its own.
func BenchmarkTallyReportAtOnce(b *testing.B) {
	d, _ := NewDetector(DefaultOutlier(), dice(0))
	t := d.Add("a", 64)
	var loops atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		loop := int(loops.Add(1)) % 64
		for p.Next() {
			t.Report(loop, Success)
		}
	})
}

// What an addition to a plain count costs, for comparison.
func BenchmarkPlainCount(b *testing.B) {
	counts := make([]uint64, 2)
	loop := 1
	for b.Loop() {
		counts[loop]++
	}
}

func BenchmarkBreakerAllow(b *testing.B) {
	breaker, _ := NewBreaker(DefaultBreaker())
	b.ReportAllocs()
	for b.Loop() {
		breaker.Allow(1)
	}
}

func BenchmarkBreakerRefuse(b *testing.B) {
	spec := DefaultBreaker()
	spec.Consecutive = 1
	breaker, _ := NewBreaker(spec)
	p, _ := breaker.Allow(0)
	breaker.Report(p, true, 0, 0)
	for b.Loop() {
		breaker.Allow(1)
	}
}

func BenchmarkBreakerReport(b *testing.B) {
	breaker, _ := NewBreaker(DefaultBreaker())
	p, _ := breaker.Allow(0)
	for b.Loop() {
		breaker.Report(p, false, time.Millisecond, 1)
	}
}

func BenchmarkBreakerReportAtOnce(b *testing.B) {
	breaker, _ := NewBreaker(DefaultBreaker())
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, _ := breaker.Allow(0)
			breaker.Report(p, false, time.Millisecond, 1)
		}
	})
}

func BenchmarkBudget(b *testing.B) {
	budget, _ := NewBudget(DefaultBudget(), 2)
	for b.Loop() {
		budget.Begin(0)
		budget.End(0)
	}
}

func BenchmarkConcurrency(b *testing.B) {
	c, _ := NewConcurrency(DefaultConcurrency(), dice(0), 0)
	for b.Loop() {
		if c.Acquire() {
			c.Release(0, 1)
		}
	}
}

func BenchmarkCanaryReport(b *testing.B) {
	c, _ := NewCanary(canarySpec(), 0)
	for b.Loop() {
		c.Report(false, false, time.Millisecond)
	}
}

// The cost of an analysis of 1,000 endpoints on 16 loops, off the path of requests.
func BenchmarkDetectorInterval(b *testing.B) {
	d, _ := NewDetector(DefaultOutlier(), dice(0))
	for range 1000 {
		d.Add("", 16)
	}
	for b.Loop() {
		for _, t := range d.tallies {
			t.cells[0].external.successes.Add(1000)
		}
		d.Interval(0)
	}
}
