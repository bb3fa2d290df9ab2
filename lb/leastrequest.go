package lb

import "math"

// leastRequest prefers the endpoint with the fewest requests in flight. As Envoy does it:
//
//   - with equal weights it draws some endpoints, two by default, and takes the least busy of them. Two draws are almost as good
//     as a look at all, and do not send every loop to the same one (Mitzenmacher: The Power of Two Choices in Randomized Load
//     Balancing, 2001);
//   - with other weights it is a rotation in which an endpoint's weight, when it was chosen, is divided by its requests in
//     flight and one, to the power of Bias.
//
// A full scan takes the one with the fewest requests in flight for its weight, and draws by weight among several.
type leastRequest struct {
	drawing
	turns turns // with unequal weights
}

func newLeastRequest(d drawing, previous Picker) *leastRequest {
	l := &leastRequest{drawing: d}
	if !d.set.equal && !d.set.spec.FullScan {
		l.turns = newTurns(d.set.entries, inherited(d.set, previous), &l.source)
	}
	return l
}

func (l *leastRequest) Pick(a *Attempt) *Endpoint {
	i := -1
	switch {
	case len(l.set.entries) == 0:
	case l.set.spec.FullScan:
		i = l.scan(a)
	case l.turns.heap != nil:
		i = l.turn(a)
	case a.count == 0 && l.set.spec.Choices == 2:
		return l.two()
	default:
		i = l.several(a)
	}
	if i < 0 {
		return l.last(a)
	}
	return l.set.entries[i].endpoint
}

// two draws two different endpoints with one random number.
func (l *leastRequest) two() *Endpoint {
	entries := l.set.entries
	i, j := pair(l.source.Uint64(), len(entries))
	return entries[lower(i, j, entries[i].load.inFlight.Load(), entries[j].load.inFlight.Load())].endpoint
}

func (l *leastRequest) several(a *Attempt) int {
	entries := l.set.entries
	best, least := -1, int64(0)
	for range l.set.spec.Choices {
		i := l.untried(a)
		if i < 0 {
			break
		}
		if n := entries[i].load.inFlight.Load(); best < 0 || n < least {
			best, least = i, n
		}
	}
	return best
}

func (l *leastRequest) turn(a *Attempt) int {
	place := l.turns.next(a, l.set.entries)
	if place < 0 {
		return -1
	}
	i := int(l.turns.heap[place].entry)
	cost := float64(l.set.entries[i].load.inFlight.Load() + 1)
	switch bias := l.set.spec.Bias; {
	case cost < 1 || bias == 0:
		cost = 1
	case bias != 1:
		cost = math.Pow(cost, bias)
	}
	l.turns.charge(place, cost)
	return i
}

func (l *leastRequest) scan(a *Attempt) int {
	entries := l.set.entries
	best, least, drawn := -1, 0.0, 0.0
	for i := range entries {
		e := &entries[i]
		if a.count > 0 && a.Has(e.endpoint) {
			continue
		}
		busy := float64(e.load.inFlight.Load()) / e.weight
		switch {
		case best < 0 || busy < least:
			best, least, drawn = i, busy, e.weight
		case busy == least: // each of those that are level stays with the chance of its weight
			if drawn += e.weight; l.source.fraction()*drawn < e.weight {
				best = i
			}
		}
	}
	return best
}
