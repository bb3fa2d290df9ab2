package compile

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// BenchmarkLoad reads and compiles a configuration of 100,000 routes, and says what each takes of the heap: what is written of it,
// what serves it, what counts it, and its place in the table.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	var text strings.Builder
	text.WriteString("upstreams: { a: [\"127.0.0.1:1\"] }\nroutes:\n")
	for i := range n {
		fmt.Fprintf(&text, "  - { match: \"host%d.example/api/v1/item%d/*\", to: a }\n", i%100, i)
	}
	with := newBench(b)
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		c, err := with.compile(text.String())
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(c)
		b.StartTimer()
	}
	b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/n, "B/route")
}
