package upstream

import "math/bits"

// The times that requests wait for the head of an answer, as one loop counts them: eight counts for each power of two, so that a
// percentile is off by an eighth at most, from 2^16 ns (66 µs) to 2^40 (18 minutes).
const (
	waitsMinBits = 16
	waitsMaxBits = 40
	waitsSubBits = 3
	waitsCounts  = (waitsMaxBits - waitsMinBits + 1) << waitsSubBits

	waitsEach  = 128  // after so many more a percentile is computed anew
	waitsKept  = 4096 // after so many all counts are halved: what is long ago loses its weight
	waitsKnown = 256  // fewer say nothing of a percentile
)

// waits is such counts. The zero waits knows nothing.
type waits struct {
	counts  [waitsCounts]uint32
	total   uint32
	since   uint32 // the percentile was computed
	percent float64
	value   int64 // nanoseconds
}

func (w *waits) add(took int64) {
	w.counts[waitsAt(took)]++
	w.total++
	w.since++
	if w.total < waitsKept {
		return
	}
	w.total = 0
	for i := range w.counts {
		w.counts[i] /= 2
		w.total += w.counts[i]
	}
}

func waitsAt(took int64) int {
	width := bits.Len64(uint64(max(took, 0)))
	if width <= waitsMinBits {
		return 0
	}
	if width > waitsMaxBits {
		return waitsCounts - 1
	}
	sub := int(took>>(width-1-waitsSubBits)) & (1<<waitsSubBits - 1)
	return (width-waitsMinBits)<<waitsSubBits + sub
}

// percentile is a time that so many percent did not exceed; 0: too little is known.
func (w *waits) percentile(percent float64) int64 {
	if w.total < waitsKnown {
		return 0
	}
	if w.value != 0 && w.percent == percent && w.since < waitsEach {
		return w.value
	}
	w.since, w.percent = 0, percent
	rank, below := percent/100*float64(w.total), 0.0
	for i, n := range w.counts {
		if below += float64(n); below >= rank && n > 0 {
			w.value = waitsBound(i)
			break
		}
	}
	return w.value
}

// waitsBound is what all times of a count are below.
func waitsBound(i int) int64 {
	if i == 0 {
		return 1 << waitsMinBits
	}
	width, sub := i>>waitsSubBits+waitsMinBits, int64(i&(1<<waitsSubBits-1))
	return (1<<waitsSubBits + sub + 1) << (width - 1 - waitsSubBits)
}
