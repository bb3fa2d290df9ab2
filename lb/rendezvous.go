package lb

import "math"

// Lot gives a key its place from 0 to below 1, evenly. Another seed gives it another place, which has nothing to do with the first.
func Lot(key, seed uint64) float64 { return float64(mix(key^mix(seed))>>11) * 0x1p-53 }

// Rendezvous chooses among weighted names by a key: each name draws a lot for it, and the best one wins. So a key moves only to a
// name whose weight has grown, or from one whose weight has fallen, and no more keys move than must (Thaler, Ravishankar: Using
// Name-Based Mappings to Increase Hit Rates, 1998; weights by the logarithmic method of Schindelhauer, Schomaker: Weighted
// Distributed Hash Tables, 2005). Immutable; it may be used by all loops at once.
type Rendezvous struct{ runners []runner }

type runner struct {
	index int // of the name
	seed  uint64
	pace  float64 // 1 / weight
}

// NewRendezvous gives one over names with as many weights, 0 or above. Who has 0 is never chosen.
func NewRendezvous(names []string, weights []int) *Rendezvous {
	r := &Rendezvous{}
	for i, w := range weights {
		if w > 0 {
			r.runners = append(r.runners, runner{i, HashString(names[i]), 1 / float64(w)})
		}
	}
	return r
}

// Pick gives the index of a name; -1: all weights are 0. It takes about 10 ns for each name.
func (r *Rendezvous) Pick(key uint64) int {
	first, best := -1, math.Inf(1)
	for i := range r.runners {
		n := &r.runners[i]
		if t := -math.Log(1-Lot(key, n.seed)) * n.pace; t < best { // exponentially distributed, at the rate of the weight
			first, best = n.index, t
		}
	}
	return first
}
