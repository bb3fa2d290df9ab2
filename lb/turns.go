package lb

// turns is the order in which entries are chosen, by stride scheduling (Waldspurger and Weihl: Stride Scheduling, 1995): each
// has a stride, in inverse proportion to its weight, and a pass, by which it is in a heap. The lowest pass is next, and moves by
// its stride. It shares as exactly as a smooth weighted round robin that looks at all endpoints, in logarithmic time.
type turns struct {
	heap    []turn // four children a node: shallow, and siblings share a cache line
	strides []uint64
}

type turn struct {
	pass  uint64 // wraps around: passes are compared by their difference
	entry int32
}

const (
	shortest = 1 << 24 // stride of the heaviest; shares are exact to its inverse
	longest  = 1 << 44 // weights further apart than this over shortest are not told apart
)

// newTurns lets each entry begin where in its stride phases says, and at random where that says nothing: so the start is as
// good as any instant of a rotation that has run for long.
func newTurns(entries []entry, phases []float64, source *source) turns {
	heaviest := 0.0
	for i := range entries {
		heaviest = max(heaviest, entries[i].weight)
	}
	t := turns{heap: make([]turn, len(entries)), strides: make([]uint64, len(entries))}
	for i := range entries {
		stride := uint64(min(shortest*heaviest/entries[i].weight+0.5, longest))
		phase := source.fraction()
		if phases != nil && phases[i] >= 0 {
			phase = phases[i]
		}
		t.strides[i] = stride
		t.heap[i] = turn{uint64(phase * float64(stride)), int32(i)}
	}
	for i := (len(entries) - 2) / 4; i >= 0 && len(entries) > 1; i-- {
		t.sink(i)
	}
	return t
}

// next gives the place in the heap of the entry whose turn it is among those that a has not tried, -1 when there is none.
func (t *turns) next(a *Attempt, entries []entry) int {
	if a.count == 0 && len(t.heap) > 0 {
		return 0
	}
	best := -1
	for i := range t.heap {
		if (best < 0 || t.heap[i].before(&t.heap[best])) && !a.Has(entries[t.heap[i].entry].endpoint) {
			best = i
		}
	}
	return best
}

// charge moves the entry at a place in the heap by its stride times cost, which is at least 1.
func (t *turns) charge(place int, cost float64) {
	e := &t.heap[place]
	stride := t.strides[e.entry]
	if cost != 1 {
		stride = uint64(min(float64(stride)*cost, longest))
	}
	e.pass += stride
	t.sink(place)
}

func (e *turn) before(other *turn) bool { return int64(e.pass-other.pass) < 0 }

// sink moves what is at a place down to where it belongs.
func (t *turns) sink(i int) {
	h := t.heap
	e := h[i]
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		if first+3 < len(h) { // as lower compares, which needs no branches
			c := h[first : first+4]
			a := lower(0, 1, int64(c[0].pass), int64(c[1].pass))
			b := lower(2, 3, int64(c[2].pass), int64(c[3].pass))
			least += lower(a, b, int64(c[a].pass), int64(c[b].pass))
		} else {
			for c := first + 1; c < len(h); c++ {
				if h[c].before(&h[least]) {
					least = c
				}
			}
		}
		if !h[least].before(&e) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
}

// phases tells of each entry how far off its turn is, as a part of its stride.
func (t *turns) phases() []float64 {
	p := make([]float64, len(t.heap))
	for _, e := range t.heap {
		p[e.entry] = min(float64(e.pass-t.heap[0].pass)/float64(t.strides[e.entry]), 1)
	}
	return p
}
