package health

import (
	"math"
	"testing"
	"time"
)

func TestCheckRecord(t *testing.T) {
	spec := DefaultCheck()
	old, _ := NewCheck(spec, 0)
	for i := range 3 {
		old.Result(false, int64(i))
	}
	c, _ := NewCheck(spec, 1000)
	if err := c.Restore(old.Record(102), 1000); err != nil {
		t.Fatal(err)
	}
	if c.Healthy() || !c.Settled() || c.Since() != 900 {
		t.Errorf("%+v", c)
	}
	if c.Result(true, 1001) || !c.Result(true, 1002) {
		t.Error("a restored endpoint needs two passes")
	}
	for _, age := range []time.Duration{-1, math.MaxInt64} {
		if c.Restore(CheckRecord{Age: age}, 0) == nil {
			t.Errorf("an age of %d was taken", age)
		}
	}
}

// An ejection ends after a restart when it would have ended before, and the next is longer.
func TestEjectionRecord(t *testing.T) {
	eject := func(d *Detector, e *Tally, now int64) Event {
		t.Helper()
		for range 4 {
			e.Report(0, ServerError)
		}
		events := d.Triggered(e, e.Report(0, ServerError), now)
		if len(events) != 1 || events[0].Action != Ejected {
			t.Fatalf("%+v", events)
		}
		return events[0]
	}
	second := int64(time.Second)
	spec := DefaultOutlier()
	old, _ := NewDetector(spec, dice(0))
	a, b := old.Add("a", 1), old.Add("b", 1)
	eject(old, a, 100*second)

	d, _ := NewDetector(spec, dice(0))
	a2, b2 := d.Add("a", 1), d.Add("b", 1)
	for _, err := range []error{d.Restore(a2, old.Record(a, 110*second), 5*second), d.Restore(b2, old.Record(b, 110*second), 5*second)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !a2.Ejected() || b2.Ejected() || d.Stats().Active != 1 {
		t.Fatal("a is ejected, b is not")
	}
	if events := d.Interval(24 * second); len(events) != 0 {
		t.Errorf("29s after the ejection: %+v", events)
	}
	if events := d.Interval(25 * second); len(events) != 1 || events[0].Action != Returned || events[0].Tally != a2 || events[0].Cause != CauseConsecutive5xx {
		t.Errorf("30s after the ejection: %+v", events)
	}
	third, _ := NewDetector(spec, dice(0))
	a3 := third.Add("a", 1)
	third.Add("b", 1)
	if err := third.Restore(a3, d.Record(a2, 26*second), 0); err != nil {
		t.Fatal(err)
	}
	if e := eject(third, a3, second); e.For != time.Minute {
		t.Errorf("the second ejection is for %v", e.For)
	}
	if third.Restore(a3, EjectionRecord{}, 0) == nil {
		t.Error("the state of an ejected endpoint was replaced")
	}
	fresh, _ := NewDetector(spec, dice(0))
	for _, r := range []EjectionRecord{{Cause: Causes}, {Multiplier: -1}, {Multiplier: 1<<20 + 1}, {Ejected: true}, {Age: -1}, {Jitter: -1}, {Age: math.MaxInt64}} {
		if fresh.Restore(fresh.Add("", 1), r, 0) == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	// A multiplier from another spec is brought to what this one's could be: 11 times 30s would be above 5m.
	e := fresh.Add("", 1)
	if err := fresh.Restore(e, EjectionRecord{Ejected: true, Multiplier: 1 << 20, Jitter: time.Hour}, 0); err != nil || e.backoff != 11 || e.jitter != 0 {
		t.Errorf("%v, multiplier %d, jitter %d", err, e.backoff, e.jitter)
	}
}

func TestBreakerRecord(t *testing.T) {
	spec := DefaultBreaker()
	spec.Consecutive, spec.Cooldown, spec.Probes = 1, 10*time.Second, 1
	second := int64(time.Second)
	old, _ := NewBreaker(spec)
	p, _ := old.Allow(0)
	old.Report(p, true, 0, 0)
	restored := func(now int64) *Breaker {
		t.Helper()
		b, _ := NewBreaker(spec)
		if err := b.Restore(old.Record(now), 100*second); err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := restored(4 * second)
	if left := b.RetryAfter(100 * second); left != 6*time.Second {
		t.Errorf("open for %v", left)
	}
	p, _ = old.Allow(10 * second)
	b = restored(10 * second) // half-open
	q, ok := b.Allow(100 * second)
	if b.State() != HalfOpen || !ok {
		t.Error("half-open, it lets a probe of its own pass")
	}
	b.Report(q, true, 0, 100*second)
	if left := b.RetryAfter(100 * second); left != 20*time.Second {
		t.Errorf("then open for %v, want twice the cooldown", left)
	}
	old.Report(p, false, 0, 10*second)
	if b = restored(11 * second); b.State() != Closed {
		t.Errorf("closed became %v", b.State())
	}
	for _, r := range []BreakerRecord{{State: HalfOpen}, {State: 3}, {Level: -1}, {Level: 32}, {State: Open, Left: -1}, {State: Open, Left: math.MaxInt64}} {
		if b.Restore(r, 0) == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	if err := b.Restore(BreakerRecord{State: Open, Left: time.Hour}, 0); err != nil || b.RetryAfter(0) != 10*time.Second {
		t.Errorf("%v, open for %v", err, b.RetryAfter(0))
	}
}
