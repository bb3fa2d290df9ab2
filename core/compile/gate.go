package compile

import (
	"runtime"
	"sync/atomic"
	"time"
)

// gate bounds the passwords that are verified at once, by all policies: each takes a processor for tens of milliseconds, and tens of
// megabytes. Who has to wait long is turned away.
type gate struct {
	places  chan struct{}
	waiting atomic.Int32
	most    int32
	wait    time.Duration
}

const (
	gateWaiting = 256
	gateWait    = 2 * time.Second
)

// newGate leaves half of the processors to the loops.
func newGate() *gate {
	return &gate{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), most: gateWaiting, wait: gateWait}
}

// Enter waits for a place, not for long, and not with too many others.
func (g *gate) Enter() bool {
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.most {
		return false
	}
	select {
	case g.places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(g.wait)
	defer t.Stop()
	select {
	case g.places <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

// Leave gives the place to the next.
func (g *gate) Leave() { <-g.places }
