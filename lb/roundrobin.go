package lb

import (
	"cmp"
	"slices"
)

// rotation is round robin: each endpoint in turn, by weight, the turns of one spread evenly between those of the others.
type rotation struct {
	drawing
	order []int32 // entries, with equal weights
	next  int     // in order
	turns turns   // with other weights
}

// NewRoundRobin gives a weighted round robin over endpoints that need no Load; those of weight 0 are left out. start, any
// number that is not negative, shifts the first choice, so that the pickers of several loops do not send their first requests
// to the same endpoint.
func NewRoundRobin(endpoints []*Endpoint, start int) Picker {
	s := &Set{equal: true}
	for _, e := range endpoints {
		if e.Weight > 0 {
			s.entries = append(s.entries, entry{endpoint: e, load: e.Load, weight: float64(e.Weight), hash: HashString(e.Address)})
			s.equal = s.equal && e.Weight == s.entries[0].endpoint.Weight
		}
	}
	r := newRotation(newDrawing(s, uint64(start)), nil)
	if s.equal && len(s.entries) > 0 {
		r.next = start % len(s.entries)
	}
	return r
}

func newRotation(d drawing, previous Picker) *rotation {
	r := &rotation{drawing: d}
	entries, phases := r.set.entries, inherited(r.set, previous)
	switch {
	case len(entries) == 0:
	case !r.set.equal:
		r.turns = newTurns(entries, phases, &r.source)
	default:
		r.order = make([]int32, len(entries))
		for i := range r.order {
			r.order[i] = int32(i)
		}
		if phases == nil {
			r.next = r.one()
			break
		}
		for i := range phases {
			if phases[i] < 0 {
				phases[i] = r.source.fraction()
			}
		}
		slices.SortStableFunc(r.order, func(a, b int32) int { return cmp.Compare(phases[a], phases[b]) })
	}
	return r
}

func (r *rotation) Pick(a *Attempt) *Endpoint {
	entries := r.set.entries
	if !r.set.equal {
		place := r.turns.next(a, entries)
		if place < 0 {
			return r.last(a)
		}
		e := entries[r.turns.heap[place].entry].endpoint
		r.turns.charge(place, 1)
		return e
	}
	for range entries {
		e := entries[r.order[r.next]].endpoint
		if r.next++; r.next == len(entries) {
			r.next = 0
		}
		if a.count == 0 || !a.Has(e) {
			return e
		}
	}
	return r.last(a)
}

// phases tells of each entry how far off its turn is, as a part of a round.
func (r *rotation) phases() []float64 {
	if !r.set.equal {
		return r.turns.phases()
	}
	n := len(r.order)
	p := make([]float64, n)
	for i, entry := range r.order {
		p[entry] = (float64((i-r.next+n)%n) + 0.5) / float64(n)
	}
	return p
}

// inherited tells of each entry of s where the rotation of previous has it, -1 for those that it does not know; nil: there is
// no such rotation. So a rotation that is replaced often does not always begin with the same.
func inherited(s *Set, previous Picker) []float64 {
	var old *Set
	var phases []float64
	switch p := previous.(type) {
	case *rotation:
		old, phases = p.set, p.phases()
	case *leastRequest:
		if p.turns.heap != nil {
			old, phases = p.set, p.turns.phases()
		}
	}
	if len(phases) == 0 {
		return nil
	}
	out := make([]float64, len(s.entries))
	for i := range s.entries {
		out[i] = -1
		if j, ok := old.index[s.entries[i].load]; ok {
			out[i] = phases[j]
		}
	}
	return out
}
