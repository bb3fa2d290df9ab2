package tuning

import (
	"math"
	"runtime/debug"
	"testing"
	"time"
)

// collected is a Collector of a heap that a test makes.
type collected struct {
	Collector
	t        *testing.T
	heap     Heap
	now      time.Time
	sets     int
	released int
}

func newCollected(t *testing.T) *collected {
	c := &collected{t: t, heap: Heap{Allocated: 1, Live: 5 << 20, Limit: math.MaxInt64, Percent: 100}, now: time.Unix(1, 0)}
	c.Read = func() Heap { return c.heap }
	c.Set = func(percent int) {
		c.heap.Percent = percent
		c.sets++
	}
	c.Release = func() { c.released++ }
	c.Look(c.now)
	return c
}

// grow lets garbage grow for a time, with four looks a second, and says what percent is wanted then.
func (c *collected) grow(bytesPerSecond uint64, d time.Duration, want int) {
	c.t.Helper()
	const every = 250 * time.Millisecond
	for ; d > 0; d -= every {
		c.now = c.now.Add(every)
		c.heap.Allocated += bytesPerSecond / 4
		c.Look(c.now)
	}
	if c.heap.Percent != want {
		c.t.Errorf("with %d bytes a second the heap grows by %d %%, want %d", bytesPerSecond, c.heap.Percent, want)
	}
}

// A small heap with much garbage is collected twice a second, which is undone once it has been calm for five seconds.
func TestCollectorFollowsGarbage(t *testing.T) {
	c := newCollected(t)
	c.grow(4<<20, 10*time.Second, 100)
	if c.sets != 0 {
		t.Errorf("set %d times while there was little garbage", c.sets)
	}
	c.grow(100<<20, time.Second, 1000) // 50 MiB on 5
	c.grow(90<<20, 10*time.Second, 1000)
	c.grow(110<<20, 10*time.Second, 1000)
	c.grow(0, 4*time.Second, 1000)
	c.grow(100<<20, time.Second, 1000)
	c.grow(1<<20, 4*time.Second, 1000)
	if c.sets != 1 || c.released != 0 {
		t.Errorf("set %d times, memory given back %d times", c.sets, c.released)
	}
	c.grow(1<<20, 2*time.Second, 100)
	c.grow(0, 20*time.Second, 100)
	if c.sets != 2 || c.released != 1 {
		t.Errorf("set %d times, memory given back %d times", c.sets, c.released)
	}
}

// The room has bounds: 64 MiB, an eighth of the limit, what the runtime takes for the least heap; and what lives makes it larger.
func TestCollectorBounds(t *testing.T) {
	c := newCollected(t)
	c.grow(1<<30, time.Second, 1280) // 64 MiB on 5
	c.heap.Live = 20 << 20
	c.grow(1<<30, time.Second, 320)
	c.heap.Live = 1 << 30
	c.grow(1<<30, time.Second, 100)
	c = newCollected(t)
	c.heap.Limit, c.heap.Live = 128<<20, 0
	c.grow(1<<30, time.Second, 400) // 16 MiB on 4
}

// Whoever else has set the percent is right; End undoes only what the Collector has set.
func TestCollectorLeavesWhatIsNotIts(t *testing.T) {
	c := newCollected(t)
	for _, theirs := range []int{50, 300, -1} {
		c.heap.Percent = theirs
		c.grow(1<<30, time.Second, theirs)
		c.End(0)
		c.grow(1<<30, time.Second, theirs)
	}
	c.heap.Percent = 100
	c.grow(1<<30, time.Second, 1280)
	c.heap.Percent = 300
	c.End(0)
	if c.heap.Percent != 300 {
		t.Errorf("another's percent is %d", c.heap.Percent)
	}
	for to, want := range map[int]int{0: 100, 250: 250} {
		c.heap.Percent = 100
		c.grow(1<<30, time.Second, 1280)
		c.End(to)
		if c.heap.Percent != want {
			t.Errorf("at the end it is %d", c.heap.Percent)
		}
	}
}

// The runtime does as it is told, and collects less often.
func TestCollectorOfTheRuntime(t *testing.T) {
	restore(t)
	debug.SetMemoryLimit(math.MaxInt64)
	debug.SetGCPercent(100)
	before := ReadHeap()
	if before.Percent != 100 || before.Live == 0 || before.Allocated == 0 || before.Limit != math.MaxInt64 {
		t.Fatalf("the runtime says %+v", before)
	}
	var c Collector
	now := time.Now()
	c.Look(now)
	var keep [][]byte
	for range 64 {
		keep = append(keep[:0], make([]byte, 1<<20))
	}
	c.Look(now.Add(250 * time.Millisecond)) // 256 MiB a second
	if h := ReadHeap(); h.Percent <= 100 || len(keep) != 1 {
		t.Errorf("then %+v", h)
	}
	c.End(0)
	if h := ReadHeap(); h.Percent != 100 {
		t.Errorf("at the end %+v", h)
	}
}
