package observe

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

func TestHistogramFindsTheBucket(t *testing.T) {
	f := func(ns int64) {
		t.Helper()
		want := 0
		for want < len(bounds) && ns > bounds[want] {
			want++
		}
		var h histogram
		h.add(ns)
		if h.buckets[want] != 1 || h.sum != ns || h.count() != 1 {
			t.Errorf("%d ns: %v, sum %d, want bucket %d", ns, h.buckets, h.sum, want)
		}
	}
	for _, b := range bounds {
		for d := int64(-2); d <= 2; d++ {
			f(b + d)
		}
	}
	for n := range 63 {
		f(1 << n)
		f(1<<n - 1)
	}
	for range 10000 {
		f(rand.Int64N(1 << rand.IntN(63)))
	}
	f(1<<63 - 1)
}

func TestBoundsDoubleAndReadAlike(t *testing.T) {
	for i, b := range bounds {
		if i > 0 && b < 2*bounds[i-1] {
			t.Errorf("bound %d is less than twice the one before: two would fall between powers of two", b)
		}
		if v, err := strconv.ParseFloat(boundTexts[i], 64); err != nil || int64(v*1e9+0.5) != b {
			t.Errorf("bound %d is written %s", b, boundTexts[i])
		}
	}
}

func BenchmarkHistogram(b *testing.B) {
	var h histogram
	v := int64(1)
	for b.Loop() {
		h.add(v & (1<<34 - 1))
		v = v*6364136223846793005 + 1442695040888963407
	}
}
