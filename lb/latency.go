package lb

import (
	"math"
	"sync/atomic"
)

// latency is a peak-sensitive exponentially weighted moving average, as in Finagle's PeakEwma: a sample above the average
// replaces it, one below moves it by as much as time has passed. Value and instant lie in one word, so that loops can
// update it without a lock: the value as float32 nanoseconds, the instant in units of 2^20 ns, which goes round after 52 days.
type latency struct{ word atomic.Uint64 }

const (
	instantShift = 20
	// maxUpdates bounds the tries to update a word that other loops update as well. A sample that is lost after so many
	// does not matter: as many others arrived in the same instant.
	maxUpdates = 4
)

// observe takes in a sample; both and the decay are in nanoseconds.
func (l *latency) observe(now, sample, decay int64) {
	v := max(float32(sample), 1)
	for range maxUpdates {
		old := l.word.Load()
		next := v
		if past := math.Float32frombits(uint32(old >> 32)); v < past {
			w := remaining(now, old, 1/float32(decay))
			next = past*w + v*(1-w)
		}
		if l.word.CompareAndSwap(old, uint64(math.Float32bits(next))<<32|uint64(uint32(now>>instantShift))) {
			return
		}
	}
}

// at is the average in nanoseconds as it has decayed until now, 0 if there was no sample. An endpoint that once was slow and
// is never chosen would else never be chosen again.
func (l *latency) at(now int64, rate float32) float32 {
	word := l.word.Load()
	return math.Float32frombits(uint32(word>>32)) * remaining(now, word, rate)
}

// remaining is the share of an average that is left now, e^(-elapsed*rate). Clocks of loops may differ: what lies ahead was
// just now.
func remaining(now int64, word uint64, rate float32) float32 {
	elapsed := int32(uint32(now>>instantShift) - uint32(word))
	if elapsed <= 0 {
		return 1
	}
	return exp2(-float32(elapsed) * (1 << instantShift) * rate * math.Log2E)
}

// exp2 is 2^x for x <= 0 to three digits, far better than any latency is known, in a third of the time of math.Exp: the exponent
// is set directly, and a cubic stands for 2^f.
func exp2(x float32) float32 {
	if x <= -125 {
		return 0
	}
	i := int32(x) - 1
	f := x - float32(i) // 0..1
	p := 1 + f*(0.695556856+f*(0.226173572+f*0.0781455737))
	return p * math.Float32frombits(uint32(i+127)<<23)
}
