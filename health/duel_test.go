package health

import (
	"runtime"
	"sync/atomic"
)

// duel lets two goroutines do the same at the same instant, round after round, at offsets of up to some hundred nanoseconds: what is decided by
// a race between two loops is decided often and either way. After each round nobody acts while after looks at what came of it.
func duel(rounds int, each func(who int), after func(round int)) {
	var begun, done atomic.Int64
	wait := func(counter *atomic.Int64, round int64) {
		for spin := 0; counter.Load() < round; spin++ {
			if spin > 3000 {
				runtime.Gosched()
			}
		}
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := range int64(rounds) {
			wait(&begun, r+1)
			each(1)
			done.Store(r + 1)
		}
	}()
	for r := range int64(rounds) {
		begun.Store(r + 1)
		for range r % 400 {
			_ = begun.Load()
		}
		each(0)
		wait(&done, r+1)
		after(int(r))
	}
	<-finished
}
