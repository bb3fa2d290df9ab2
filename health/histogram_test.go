package health

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every duration is in the bucket whose bounds enclose it, and buckets are at most 6.25 % wide.
func TestHistogramBuckets(t *testing.T) {
	for i := range histogramBuckets {
		low, high := histogramFloor(i), histogramFloor(i+1)
		if histogramBucket(low) != i || histogramBucket(high-1) != i {
			t.Fatalf("bucket %d is %v..%v, but they are in %d and %d", i, low, high, histogramBucket(low), histogramBucket(high-1))
		}
		if i >= histogramSub && float64(high-low) > float64(low)/16 {
			t.Fatalf("bucket %d, %v..%v, is too wide", i, low, high)
		}
	}
	for _, d := range []time.Duration{-1, math.MinInt64} {
		if histogramBucket(d) != 0 {
			t.Errorf("%d is in %d", d, histogramBucket(d))
		}
	}
	for _, d := range []time.Duration{1 << 37, math.MaxInt64} {
		if histogramBucket(d) != histogramBuckets-1 {
			t.Errorf("%d is in %d", d, histogramBucket(d))
		}
	}
}

// Percentiles are within 6.25 % of those of the sorted samples.
func TestHistogramPercentiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []float64
	for range 20_000 {
		d := time.Duration(math.Exp(r.Float64()*math.Log(1e6)) * 1e4) // 10µs..10s
		h.add(d)
		all = append(all, float64(d))
	}
	slices.Sort(all)
	var peek, sum sampleCounts
	h.addTo(&peek)
	if n := h.drain(&sum); n != 20_000 || peek != sum {
		t.Fatalf("%d samples drained", n)
	}
	if n := h.drain(&sum); n != 0 {
		t.Fatalf("%d samples drained twice", n)
	}
	for _, p := range []float64{1, 50, 90, 99, 99.9} {
		want := all[int(math.Ceil(p/100*20_000))-1]
		if got := float64(sum.percentile(p)); math.Abs(got-want) > want/16 {
			t.Errorf("p%v is %v, want %v", p, time.Duration(got), time.Duration(want))
		}
	}
	one := sampleCounts{}
	i := histogramBucket(10 * time.Millisecond)
	one[i] = 100
	low, wide := histogramFloor(i), histogramFloor(i+1)-histogramFloor(i)
	if d := one.percentile(25); d != low+wide/4 {
		t.Errorf("p25 of one bucket is %v, want a quarter of the way into it", d)
	}
	if d := new(sampleCounts).percentile(99); d != 0 {
		t.Errorf("p99 of nothing is %v", d)
	}
}
