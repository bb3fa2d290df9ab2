package compile

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGate sends in more than may be inside, and than may wait.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{places: make(chan struct{}, 2), most: 4, wait: 2 * time.Second}
		var inside, most, refused atomic.Int32
		var all sync.WaitGroup
		for range 9 {
			all.Go(func() {
				if !g.Enter() {
					refused.Add(1)
					return
				}
				for n := inside.Add(1); n > most.Load(); {
					most.Store(n)
				}
				time.Sleep(1500 * time.Millisecond)
				inside.Add(-1)
				g.Leave()
			})
			synctest.Wait()
		}
		if n := refused.Load(); n != 3 {
			t.Errorf("%d were refused at once", n)
		}
		all.Wait()
		// Two enter at once, four wait, three are too many; when the first two have left two more enter, and for the last two it
		// is too late.
		if most.Load() != 2 || refused.Load() != 5 || g.waiting.Load() != 0 {
			t.Errorf("%d were inside, %d refused, %d wait", most.Load(), refused.Load(), g.waiting.Load())
		}
	})
}
