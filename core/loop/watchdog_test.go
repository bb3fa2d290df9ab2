package loop

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// tardy is a handler that holds the loop until told.
type tardy struct{ release chan struct{} }

func (h *tardy) Serve(*Conn)    { <-h.release }
func (h *tardy) String() string { return "the tardy one" }

// lateness collects what a loop says of being held.
type lateness struct {
	mu   sync.Mutex
	by   []string
	held []time.Duration
}

func (a *lateness) late(held time.Duration, by string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by, a.held = append(a.by, by), append(a.held, held)
}

// of gives the longest hold by a name.
func (a *lateness) of(by string) (held time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.by {
		if a.by[i] == by {
			held = max(held, a.held[i])
		}
	}
	return held
}

// A loop that is held is named while it lasts, once, with the stacks of what holds it; later the culprit is named by the
// loop itself.
func TestStalledLoopIsNamed(t *testing.T) {
	var a lateness
	l, _ := start(t, Options{Index: 7, Late: a.late})
	other, _ := start(t, Options{Index: 8})
	j := &journal{}
	w := Watch([]*Loop{other, l}, 10*time.Millisecond, slog.New(j))
	defer w.Stop()
	h := &tardy{make(chan struct{})}
	defer close(h.release)
	_, peer := served(t, l, h)
	for round := 1; round <= 2; round++ {
		_, err := peer.Write([]byte("x"))
		check(t, err)
		await(t, "the stall is seen", func() bool { return w.Stalled() == 1 })
		looks := time.Now()
		await(t, "the watchdog looks again", func() bool { return time.Since(looks) > 100*time.Millisecond })
		h.release <- struct{}{}
		await(t, "the end of the stall is seen", func() bool { return w.Stalled() == 0 })
		found := j.with("loop=7")
		if w.Stalls() != round || len(found) != round || !strings.Contains(found[round-1], "(*tardy).Serve") {
			t.Fatalf("%d stalls counted, the log has: %q", w.Stalls(), j.records)
		}
		_, peer = served(t, l, h)
	}
	if len(j.with("loop=8")) != 0 {
		t.Errorf("the other loop was named: %q", j.records)
	}
	if held := a.of("the tardy one"); held < StallAfter {
		t.Errorf("the loop named the culprit with %v", held)
	}
}

// What holds a loop for longer than LateAfter is named: a task, and also a posted function, a timer, an inner task.
func TestLate(t *testing.T) {
	var a lateness
	l, _ := start(t, Options{Late: a.late})
	hold := func() {
		for end := l.Clock() + 2*int64(LateAfter); l.Clock() < end; {
		}
	}
	_, peer := served(t, l, &destroyer{hold})
	_, err := peer.Write([]byte("x"))
	check(t, err)
	expectClosed(t, peer)
	task(t, l, hold)
	on(t, l, hold)
	fired := make(chan struct{})
	on(t, l, func() {
		l.NewTimer(func() {
			hold()
			close(fired)
		}).At(1)
	})
	receive(t, fired, "the timer")
	on(t, l, func() {})
	for _, by := range []string{"the destroyer", "inner task", "posted function", "timer"} {
		if held := a.of(by); held < 2*LateAfter {
			t.Errorf("%s held the loop for %v, it says", by, held)
		}
	}
}

// A loop that has ended, or has not begun, is not held up.
func TestWatchdogOfAnEndedLoop(t *testing.T) {
	l, err := New(Options{})
	check(t, err)
	fresh, err := New(Options{})
	check(t, err)
	defer stop(t, fresh)
	l.Start()
	on(t, l, func() {})
	stop(t, l)
	if l.busySince.Load() != 0 || fresh.busySince.Load() != 0 {
		t.Error("it looks busy")
	}
}

// await waits for what another goroutine brings about.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to pass: %s", what)
		}
	}
}
