package tuning

import (
	"cmp"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// usualPercent is the runtime's own: the heap may double between collections.
	usualPercent = 100
	// collectionsPerSecond is how often garbage is to be collected where it grows fast. A gateway's heap is small, so that the runtime by
	// its own measure collects the garbage of 3,000 TLS handshakes a second (37 KiB each) twenty times a second: a seventh of the CPU time.
	collectionsPerSecond = 2
	// maxRoomBytes bounds what the heap may grow by between collections for that reason.
	maxRoomBytes = 64 << 20
	// roomShare bounds it on a small host: this part of the memory that the runtime keeps to.
	roomShare = 8
	// leastLive is what the runtime takes a smaller heap for.
	leastLive = 4 << 20
	// calmAfter is how long garbage has to grow slowly before the memory is given back.
	calmAfter = 5 * time.Second
)

// Collector lets the heap grow further between collections while garbage grows fast, and gives the memory back afterwards. What the
// runtime was told by somebody else, it leaves. One goroutine uses it, and calls Look a few times a second.
type Collector struct {
	Read    func() Heap       // nil: of the runtime
	Set     func(percent int) // nil: debug.SetGCPercent
	Release func()            // nil: debug.FreeOSMemory

	last    Heap
	at      time.Time
	percent int       // that was set here; 0: none
	fast    time.Time // when garbage last grew fast
}

// Heap is what a Collector looks at.
type Heap struct {
	Allocated uint64 // bytes, since the start
	Live      uint64 // bytes that the last collection left, with stacks and globals
	Limit     uint64 // bytes that the runtime keeps to; math.MaxInt64: none
	Percent   int    // growth between collections; negative: there are none
}

var heapMetrics = [...]string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes", "/gc/gomemlimit:bytes", "/gc/gogc:percent"}

// ReadHeap asks the runtime.
func ReadHeap() Heap {
	var samples [len(heapMetrics)]metrics.Sample
	for i, name := range heapMetrics {
		samples[i].Name = name
	}
	metrics.Read(samples[:])
	var values [len(heapMetrics)]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			values[i] = s.Value.Uint64()
		}
	}
	h := Heap{Allocated: values[0], Live: values[1] + values[2] + values[3], Limit: values[4], Percent: -1}
	if values[5] <= math.MaxInt32 {
		h.Percent = int(values[5])
	}
	return h
}

// Look reads the heap and sets its growth.
func (c *Collector) Look(now time.Time) {
	h := c.read()
	before, since := c.last, now.Sub(c.at)
	c.last, c.at = h, now
	if before.Allocated == 0 || since <= 0 {
		return // there is nothing to compare with
	}
	want := h.percentFor(float64(h.Allocated-before.Allocated) / since.Seconds())
	if want > usualPercent {
		c.fast = now
	}
	own := c.percent != 0 && h.Percent == c.percent
	switch {
	case !own && h.Percent != usualPercent:
		c.percent = 0
	case want > h.Percent+h.Percent/4:
		c.set(want)
	case own && h.Percent > h.percentFor(math.Inf(1)): // the heap has grown by what lives
		c.set(h.percentFor(math.Inf(1)))
	case own && now.Sub(c.fast) >= calmAfter:
		c.set(usualPercent)
		c.percent = 0
		c.release()
	}
}

// percentFor is the growth with which there are collectionsPerSecond, within its bounds.
func (h *Heap) percentFor(bytesPerSecond float64) int {
	room := min(bytesPerSecond/collectionsPerSecond, maxRoomBytes, float64(h.Limit)/roomShare)
	return max(usualPercent, int(room/max(float64(h.Live), leastLive)*100))
}

// End sets the growth to percent, 0: the runtime's own, where it is as the Collector has set it. It may be called again.
func (c *Collector) End(percent int) {
	if c.percent != 0 && c.read().Percent == c.percent {
		c.set(cmp.Or(percent, usualPercent))
	}
	*c = Collector{Read: c.Read, Set: c.Set, Release: c.Release}
}

func (c *Collector) read() Heap {
	if c.Read != nil {
		return c.Read()
	}
	return ReadHeap()
}

func (c *Collector) set(percent int) {
	c.percent = percent
	if c.Set != nil {
		c.Set(percent)
		return
	}
	debug.SetGCPercent(percent)
}

func (c *Collector) release() {
	if c.Release != nil {
		c.Release()
		return
	}
	debug.FreeOSMemory()
}
