package server

import (
	"strings"
	"testing"
	"time"
)

// TestClockSteps sets a clock forward and back, and lets it be kept in step by small amounts.
func TestClockSteps(t *testing.T) {
	var c clockWatch
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := func(wall, passed, want time.Duration) {
		t.Helper()
		at = at.Add(wall)
		if got := c.stepAfter(at, passed); got != want {
			t.Errorf("%v later, after %v: %v, want %v", wall, passed, got, want)
		}
	}
	f(0, 0, 0)
	f(250*time.Millisecond, 250*time.Millisecond, 0)
	f(time.Minute, time.Minute, 0) // a goroutine that was kept from looking
	f(900*time.Millisecond, 250*time.Millisecond, 0)
	f(time.Hour, 250*time.Millisecond, time.Hour-250*time.Millisecond)
	f(250*time.Millisecond, 250*time.Millisecond, 0)
	f(-24*time.Hour, 250*time.Millisecond, -24*time.Hour-250*time.Millisecond)
	f(250*time.Millisecond, 250*time.Millisecond, 0)
	c.step(time.Now())
	if step := c.step(time.Now()); step != 0 {
		t.Errorf("the host's own clock is said to jump by %v", step)
	}
}

// TestClockIsTold has a gateway tell of a clock that was set: in its log, with what to look at, and in its metrics.
func TestClockIsTold(t *testing.T) {
	g := newGate(t, strings.Replace(pong, " SOCKET", "", 1))
	log := g.options.Stderr.(*journal)
	has := func(line string) {
		t.Helper()
		var metrics strings.Builder
		if err := g.observer.WriteMetrics(&metrics); err != nil || !strings.Contains(metrics.String(), line) {
			t.Errorf("%v: metrics lack %s", err, line)
		}
	}
	has("sluice_clock_steps_total 0\n")
	c := clockWatch{last: time.Now().Add(time.Hour).Round(0)}
	g.watchClock(&c, time.Now()) // without a monotonic reading an hour has passed back by both
	has("sluice_clock_steps_total 0\n")
	g.tellClock(-time.Hour)
	has("sluice_clock_steps_total 1\n")
	for _, want := range []string{"the host's clock was set, or the host slept", "by=-1h0m0s", "timedatectl"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}
