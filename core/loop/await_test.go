package loop

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// While many tasks wait for functions that block, the loop serves others; each task gets its own function's result.
func TestAwaitUnderLoad(t *testing.T) {
	const tasks, rounds = 50, 20
	l, _ := start(t, Options{})
	c := dialed(t, accepting(t, l, serve(echo)))
	release := make(chan struct{})
	var blocked atomic.Int32
	done := make([]chan struct{}, tasks)
	for i := range tasks {
		done[i] = spawn(l, func() {
			got := 0
			l.Await(func() {
				blocked.Add(1)
				<-release
				got = i
			})
			for round := range rounds {
				l.Await(func() { got += round })
			}
			if want := i + rounds*(rounds-1)/2; got != want {
				t.Errorf("task %d got %d, want %d", i, got, want)
			}
		})
	}
	eventually(t, l, "all are blocked", func() bool { return blocked.Load() == tasks && l.awaits == tasks })
	for i := range 100 {
		check(t, exchange(c, 1, int64(i)*100, 100))
	}
	close(release)
	for _, d := range done {
		receive(t, d, "a task's end")
	}
	on(t, l, func() {
		if l.awaits != 0 {
			t.Errorf("%d awaited functions are still counted", l.awaits)
		}
	})
}

// lag is how late a task of the loop gets its turn at worst, while f runs.
func lag(t *testing.T, l *Loop, f func()) (worst time.Duration) {
	running, turns := true, 0
	measured := spawn(l, func() {
		for running {
			at := l.Clock()
			l.Yield()
			worst = max(worst, time.Duration(l.Clock()-at))
			turns++
		}
	})
	task(t, l, f)
	on(t, l, func() { running = false })
	receive(t, measured, "the measuring task")
	if turns < 2 {
		t.Errorf("the measuring task had %d turns", turns)
	}
	return worst
}

// With a single processor, a function that computes in Await shares it with the loop, which goes on meanwhile; one that
// blocks costs nothing. The best of some measurements counts: other work of the machine only adds to them.
func TestAwaitWithOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l, _ := start(t, Options{})
	const busy = 300 * time.Millisecond
	compute := func() {
		for end := time.Now().Add(busy); time.Now().Before(end); {
		}
	}
	best := func(what string, most time.Duration, measure func() time.Duration) {
		t.Helper()
		least := patience
		for range 5 {
			if least = min(least, measure()); least <= most {
				t.Logf("%s: %v", what, least)
				return
			}
		}
		t.Errorf("%s: %v", what, least)
	}
	best("the loop was away while a function computed", busy/2, func() time.Duration {
		return lag(t, l, func() { l.Await(compute) })
	})
	// Functions get the processor at once also when the loop always has something to do.
	best("a function that does nothing took", 5*time.Millisecond, func() (each time.Duration) {
		lag(t, l, func() {
			begun := l.Clock()
			for range 20 {
				l.Await(func() {})
			}
			each = time.Duration(l.Clock()-begun) / 20
		})
		return each
	})
	// An idle loop, which parks, is woken in time as well.
	c := dialed(t, accepting(t, l, serve(echo)))
	best("meanwhile an echo took", busy/2, func() time.Duration {
		runs := make(chan struct{})
		over := spawn(l, func() {
			l.Await(func() {
				close(runs)
				compute()
			})
		})
		receive(t, runs, "the function")
		begun := time.Now()
		check(t, exchange(c, 1, 0, 100))
		took := time.Since(begun)
		receive(t, over, "the end of the function")
		return took
	})
}

// A panic in an awaited function is one of the calling task, with the stack of the function; a Goexit is, too.
func TestPanicAndGoexitInAwait(t *testing.T) {
	count := 0
	l, log := start(t, Options{Panicked: func() { count++ }})
	for _, how := range []func(){panicHere, runtime.Goexit} {
		c, peer := served(t, l, serve(func(c *Conn) { l.Await(how) }))
		_, err := peer.Write([]byte("x"))
		check(t, err)
		expectClosed(t, peer)
		eventually(t, l, "the connection is closed", c.Closed)
	}
	on(t, l, func() {
		if count != 2 || len(log.with("panicHere")) != 1 || len(log.with("by Goexit")) != 1 || l.awaits != 0 {
			t.Errorf("%d counted, %d awaited, the log has: %q", count, l.awaits, log.records)
		}
	})
	task(t, l, func() { // the task may go on
		defer func() {
			if p := recover(); p == nil || !strings.Contains(p.(error).Error(), "on purpose") {
				t.Errorf("recovered: %v", p)
			}
			_ = l.Park(l.Now() + 1)
		}()
		l.Await(panicHere)
	})
}
