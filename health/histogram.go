package health

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	histogramMinBits = 13 // below 8.2 µs nothing is told apart
	histogramSubBits = 4  // 16 buckets for each power of two: a bucket is at most 6.25 % of its value wide
	histogramSub     = 1 << histogramSubBits
	histogramOctaves = 24 // up to 2^37 ns, 137 s; what is longer is in the last bucket
	histogramBuckets = histogramSub * (1 + histogramOctaves)
)

// histogram counts durations in buckets whose width grows with their value (log-linear). All loops may add to it at once. It
// takes 1.6 KB. A bucket counts up to 2^32-1.
type histogram [histogramBuckets]atomic.Uint32

// histogramBucket is the bucket of a duration.
func histogramBucket(d time.Duration) int {
	n := uint64(max(d, 0))
	width := bits.Len64(n)
	if width <= histogramMinBits {
		return int(n >> (histogramMinBits - histogramSubBits))
	}
	octave := width - histogramMinBits
	if octave > histogramOctaves {
		return histogramBuckets - 1
	}
	return octave*histogramSub + int(n>>(width-1-histogramSubBits))&(histogramSub-1)
}

// histogramFloor is the least duration of a bucket.
func histogramFloor(bucket int) time.Duration {
	octave, sub := bucket/histogramSub, bucket%histogramSub
	if octave == 0 {
		return time.Duration(sub) << (histogramMinBits - histogramSubBits)
	}
	return time.Duration(histogramSub+sub) << (octave - 1 + histogramMinBits - histogramSubBits)
}

func (h *histogram) add(d time.Duration) { h[histogramBucket(d)].Add(1) }

// drain moves the counts into sum, which nobody else uses, and gives how many they were.
func (h *histogram) drain(sum *sampleCounts) (n uint64) {
	for i := range h {
		if h[i].Load() != 0 {
			c := uint64(h[i].Swap(0))
			sum[i] += c
			n += c
		}
	}
	return n
}

// addTo adds the counts to sum.
func (h *histogram) addTo(sum *sampleCounts) {
	for i := range h {
		sum[i] += uint64(h[i].Load())
	}
}

// sampleCounts are the counts of a histogram as one goroutine sums them up.
type sampleCounts [histogramBuckets]uint64

func (s *sampleCounts) total() (n uint64) {
	for _, c := range s {
		n += c
	}
	return n
}

// percentile is the duration that so many percent are not above, by linear interpolation within a bucket: off by 6.25 % at
// most, as long as it is between 8 µs and 137 s. It is 0 if there is nothing.
func (s *sampleCounts) percentile(percent float64) time.Duration {
	total := s.total()
	if total == 0 {
		return 0
	}
	rank := percent / 100 * float64(total)
	below := 0.0
	for i, c := range s {
		if c == 0 {
			continue
		}
		if n := float64(c); below+n >= rank {
			low, high := histogramFloor(i), histogramFloor(i+1)
			return low + time.Duration((rank-below)/n*float64(high-low))
		} else {
			below += n
		}
	}
	return histogramFloor(histogramBuckets)
}
