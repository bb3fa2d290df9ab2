package observe

import "math/bits"

// bounds are the upper bounds of a histogram's buckets in nanoseconds, each at least twice the one before; a last bucket
// takes the rest.
var bounds = [...]int64{
	10e3, 25e3, 50e3, 100e3, 250e3, 500e3,
	1e6, 2.5e6, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6, 500e6,
	1e9, 2.5e9, 5e9, 10e9,
}

// boundTexts are the bounds in seconds, as they are written.
var boundTexts = [len(bounds)]string{
	"1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005",
	"0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5",
	"1", "2.5", "5", "10",
}

// firstBucket is, for each number of bits, the lowest bucket that a number of so many bits can fall into. Since bounds
// at least double, it can fall into that one or the next.
var firstBucket = func() (t [65]uint8) {
	for n := range t {
		low := int64(0)
		if n > 0 {
			low = int64(uint64(1) << (n - 1) & (1<<63 - 1))
		}
		for int(t[n]) < len(bounds) && (bounds[t[n]] < low || n == 64) {
			t[n]++
		}
	}
	return t
}()

// histogram counts durations. Its count is the sum of its buckets.
type histogram struct {
	buckets [len(bounds) + 1]uint64
	sum     int64 // nanoseconds
}

// add counts a duration, which is not negative.
func (h *histogram) add(ns int64) {
	i := int(firstBucket[bits.Len64(uint64(ns))])
	if i < len(bounds) && ns > bounds[i] {
		i++
	}
	h.buckets[i]++
	h.sum += ns
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.sum += o.sum
}

func (h *histogram) count() (n uint64) {
	for _, b := range h.buckets {
		n += b
	}
	return n
}

// append writes the numbers, and take reads them from the start of v and gives the rest.
func (h *histogram) append(b []uint64) []uint64 {
	return append(append(b, h.buckets[:]...), uint64(h.sum))
}

func (h *histogram) take(v []uint64) (rest []uint64) {
	v = v[copy(h.buckets[:], v):]
	h.sum = int64(v[0])
	return v[1:]
}
