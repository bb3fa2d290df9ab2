package compile

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// manyRoutes is a configuration of n routes on a hundred hosts.
func manyRoutes(n int) string {
	var text strings.Builder
	text.WriteString("upstreams: { a: [\"127.0.0.1:1\"] }\nroutes:\n")
	for i := range n {
		fmt.Fprintf(&text, "  - { match: \"host%d.example/api/v1/item%d/*\", to: a }\n", i%100, i)
	}
	return text.String()
}

// liveHeap is what is left of the heap after a collection, in bytes.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryOfRoutes holds the promise of less than 1 KiB a route in the whole gateway: what is written of it, what serves it, what
// counts it, and its place in the table.
func TestMemoryOfRoutes(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	const n = 20_000
	with, text := newBench(t), manyRoutes(n)
	before := liveHeap()
	c, err := with.compile(text)
	if err != nil {
		t.Fatal(err)
	}
	each := (liveHeap() - before) / n
	runtime.KeepAlive(c)
	runtime.KeepAlive(text) // else what it takes would be taken off
	t.Logf("%d bytes a route", each)
	if each >= 1024 || each < 100 {
		t.Errorf("a route takes %d bytes of the heap", each)
	}
}

// BenchmarkLoad reads and compiles a configuration of 100,000 routes, and says what each takes of the heap.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	with, text := newBench(b), manyRoutes(n)
	var each int64
	for b.Loop() {
		b.StopTimer()
		before := liveHeap()
		b.StartTimer()
		c, err := with.compile(text)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		each = max(each, (liveHeap()-before)/n) // what counts a route stays for the next round
		runtime.KeepAlive(c)
		b.StartTimer()
	}
	runtime.KeepAlive(text)
	b.ReportMetric(float64(each), "B/route")
}
