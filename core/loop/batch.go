package loop

// batch is a queue of what is to be run: what is added during a turn waits for the next one. It is never left in the
// middle for good: when a Goexit or a panic cuts a turn short, the rest comes first in the next.
type batch[T any] struct {
	coming []T
	taken  []T // of this turn, from at on
	at     int
}

func (b *batch[T]) add(v T) { b.coming = append(b.coming, v) }

func (b *batch[T]) empty() bool { return len(b.coming) == 0 && b.at == len(b.taken) }

// begin starts a turn, unless the last one was cut short. Both arrays are used again.
func (b *batch[T]) begin() {
	if b.at == len(b.taken) {
		b.taken, b.coming, b.at = b.coming, b.taken[:0], 0
	}
}

// next takes the next of this turn.
func (b *batch[T]) next() (v T, ok bool) {
	if b.at == len(b.taken) {
		return v, false
	}
	var none T
	v, b.taken[b.at] = b.taken[b.at], none
	b.at++
	return v, true
}
