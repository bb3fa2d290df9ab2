package http2

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The table holds what a plain list of lines would hold, whatever comes in and however its size changes, and its memory
// stays bounded.
func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var tab table
	tab.max = 4096
	tab.base, tab.first, tab.next = 1<<32-5000, 1<<32-100, 1<<32-100 // the counters run over
	var want [][]byte
	size := 0
	for i := range 20000 {
		if r.IntN(200) == 0 {
			tab.resize([]int{0, 100, 1000, 4096}[r.IntN(4)])
		} else {
			n := 5 + r.IntN(120)
			if r.IntN(50) == 0 {
				n = r.IntN(5000) + 5
			}
			line := bytes.Repeat([]byte{byte(i)}, n)
			in := tab.insert(entry{name: uint32(i)}, line)
			if in != (n+overhead <= tab.max) {
				t.Fatalf("%d bytes in a table of %d: %v", n, tab.max, in)
			}
			want = append([][]byte{line}, want...)
		}
		size = 0
		for k := range want {
			if size+len(want[k])+overhead > tab.max {
				want = want[:k]
				break
			}
			size += len(want[k]) + overhead
		}
		if tab.count() != len(want) || tab.size != size || size > tab.max {
			t.Fatalf("step %d: %d entries of %d bytes, want %d of %d", i, tab.count(), tab.size, len(want), size)
		}
		for k := range want {
			if !bytes.Equal(tab.line(tab.at(k+1)), want[k]) {
				t.Fatalf("step %d: entry %d differs", i, k+1)
			}
		}
		if cap(tab.bytes) > 4*4096 || len(tab.ring) > 256 {
			t.Fatalf("step %d: %d bytes, %d entries of memory", i, cap(tab.bytes), len(tab.ring))
		}
	}
}
