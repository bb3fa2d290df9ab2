package loop

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// StallAfter is how long a loop may be held before the watchdog shows what it runs.
const StallAfter = time.Second

// Watchdog looks at loops from outside: what holds one for longer than StallAfter is logged with all stacks, once a stall.
type Watchdog struct {
	loops   []*Loop
	log     *slog.Logger
	stalled atomic.Int64 // loops that are held now
	stalls  atomic.Int64 // counted since the start
	stop    chan struct{}
	done    sync.WaitGroup
}

// Watch starts a watchdog over loops, which looks every interval. Stop ends it.
func Watch(loops []*Loop, interval time.Duration, log *slog.Logger) *Watchdog {
	w := &Watchdog{loops: loops, log: log, stop: make(chan struct{})}
	w.done.Add(1)
	go w.run(interval)
	return w
}

// Stalled is the number of loops that are held up now.
func (w *Watchdog) Stalled() int { return int(w.stalled.Load()) }

// Stalls counts the stalls since the start.
func (w *Watchdog) Stalls() int { return int(w.stalls.Load()) }

// Stop ends the watchdog and waits for it.
func (w *Watchdog) Stop() {
	close(w.stop)
	w.done.Wait()
}

func (w *Watchdog) run(interval time.Duration) {
	defer w.done.Done()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	reported := make([]int64, len(w.loops)) // start of the turn that was reported
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		stalled := int64(0)
		for i, l := range w.loops {
			since := l.busySince.Load()
			if since == 0 || l.Clock()-since < int64(StallAfter) {
				continue
			}
			stalled++
			if reported[i] != since {
				reported[i] = since
				w.stalls.Add(1)
				w.log.Error("an event loop is held up", "loop", l.Index(), "for", time.Duration(l.Clock()-since), "stacks", stacks())
			}
		}
		w.stalled.Store(stalled)
	}
}

// stacks are those of all goroutines, up to 1 MiB; a coroutine that runs shows as [coroutine].
func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}
