package upstream

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A percentile is off by an eighth at most, and what is long ago is forgotten.
func TestWaits(t *testing.T) {
	var w waits
	if got := w.percentile(95); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
	var all []int64
	fill := func(scale float64, n int) {
		all = all[:0]
		for range n {
			took := int64(scale * math.Exp(rand.NormFloat64()))
			all = append(all, took)
			w.add(took)
		}
		slices.Sort(all)
	}
	check := func() {
		t.Helper()
		for _, p := range []float64{1, 50, 90, 95, 99, 99.9} {
			want := float64(all[int(math.Ceil(p/100*float64(len(all))))-1])
			if got := float64(w.percentile(p)); got < want || got > want*1.13 {
				t.Errorf("p%v: %v, want %v", p, time.Duration(got), time.Duration(want))
			}
		}
	}
	fill(float64(5*time.Millisecond), waitsKept-1)
	check()
	for range 12 { // after which little of it is left
		fill(float64(500*time.Millisecond), waitsKept/2)
	}
	if got := time.Duration(w.percentile(50)); got < 400*time.Millisecond || got > 650*time.Millisecond {
		t.Errorf("the median is %v", got)
	}
	for _, extreme := range []int64{-1, 0, 1, math.MaxInt64} {
		w.add(extreme)
	}
	if w.counts[waitsCounts-1] == 0 || w.counts[0] == 0 {
		t.Error("what is very long, or nothing, is not counted")
	}
}

// Every count's times are below its bound, and not below that of the one before.
func TestWaitsBounds(t *testing.T) {
	for i := 1; i < waitsCounts; i++ {
		bound := waitsBound(i)
		if i > 1<<waitsSubBits && waitsAt(bound-1) != i {
			t.Errorf("%d: %d is counted at %d", i, bound-1, waitsAt(bound-1))
		}
		if i > 1<<waitsSubBits && i < waitsCounts-1 && waitsAt(bound) != i+1 {
			t.Errorf("%d: %d is counted at %d", i, bound, waitsAt(bound))
		}
	}
}

func BenchmarkWaits(b *testing.B) {
	var w waits
	for i := 0; b.Loop(); i++ {
		w.add(int64(i%1000) * 10_000)
		if w.percentile(95) < 0 {
			b.Fatal("negative")
		}
	}
}
