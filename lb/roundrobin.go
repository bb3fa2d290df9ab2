package lb

// roundRobin is nginx's smooth weighted round-robin: each turn every endpoint gains its weight, the one with the most
// is chosen and pays the sum of all. Weights 5, 1, 1 give a a b a c a a: the heavy one is never chosen in a burst.
type roundRobin struct {
	entries []entry
	plain   bool // equal weights: a counter does
	next    int
}

type entry struct {
	endpoint *Endpoint
	current  int
}

// NewRoundRobin gives a smooth weighted round-robin over endpoints. start, any number, shifts the first choice, so that
// the pickers of several loops do not send their first requests to the same endpoint.
func NewRoundRobin(endpoints []*Endpoint, start int) Picker {
	r := &roundRobin{entries: make([]entry, len(endpoints)), plain: true}
	for i, e := range endpoints {
		r.entries[i].endpoint = e
		r.plain = r.plain && e.Weight == endpoints[0].Weight
	}
	if len(endpoints) == 0 {
		return r
	}
	r.next = start % len(endpoints)
	if !r.plain {
		for range r.next {
			r.Pick(&Attempt{})
		}
	}
	return r
}

func (r *roundRobin) Pick(a *Attempt) *Endpoint {
	if r.plain {
		return r.pickPlain(a)
	}
	total, best := 0, -1
	for i := range r.entries {
		e := &r.entries[i]
		if a.count > 0 && a.has(e.endpoint) {
			continue
		}
		e.current += e.endpoint.Weight
		total += e.endpoint.Weight
		if best < 0 || e.current > r.entries[best].current {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	r.entries[best].current -= total
	return r.entries[best].endpoint
}

func (r *roundRobin) pickPlain(a *Attempt) *Endpoint {
	for range r.entries {
		e := r.entries[r.next].endpoint
		if r.next++; r.next == len(r.entries) {
			r.next = 0
		}
		if a.count == 0 || !a.has(e) {
			return e
		}
	}
	return nil
}
