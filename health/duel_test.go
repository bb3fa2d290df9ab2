package health

import (
	"runtime"
	"sync/atomic"
	"time"
)

// duelTime ends a duel before its last round. The rounds take a tenth of it where both are run at once; where one waits for the
// other to get a processor each takes milliseconds.
const duelTime = 2 * time.Second

// duel lets two goroutines do the same at the same instant, round after round, at offsets of up to some hundred nanoseconds: what is decided by
// a race between two loops is decided often and either way. After each round nobody acts while after looks at what came of it. It gives the
// number of rounds there were.
func duel(rounds int, each func(who int), after func(round int)) int {
	const over = -1
	var begun, done atomic.Int64
	wait := func(counter *atomic.Int64, round int64) bool {
		for spin := 0; ; spin++ {
			switch n := counter.Load(); {
			case n == over:
				return false
			case n >= round:
				return true
			case spin > 3000:
				runtime.Gosched()
			}
		}
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := int64(0); wait(&begun, r+1); r++ {
			each(1)
			done.Store(r + 1)
		}
	}()
	defer func() { // also when after has ended the test
		begun.Store(over)
		<-finished
	}()
	for start, r := time.Now(), int64(0); ; r++ {
		if r == int64(rounds) || r%16 == 0 && time.Since(start) > duelTime {
			return int(r)
		}
		begun.Store(r + 1)
		for range r % 400 {
			_ = begun.Load()
		}
		each(0)
		wait(&done, r+1)
		after(int(r))
	}
}
