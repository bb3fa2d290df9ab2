package lb

// hashing chooses by the affinity key: the key leads to a slot of the set's, and from there along the slots to the first whose
// endpoint may be used. So retries, and what a bound keeps away, go the same way for the same key everywhere, and the keys of
// one endpoint that fails spread over all others.
type hashing struct {
	drawing
	bound bound
}

// maxSteps bounds the way along the slots; then all endpoints are looked at.
const maxSteps = 64

func (h *hashing) Pick(a *Attempt) *Endpoint {
	entries, slots := h.set.entries, h.set.slots
	if len(entries) == 0 {
		return h.last(a)
	}
	h.bound.begin()
	key, at := h.key(a), 0
	if h.set.spec.Algorithm == RingHash {
		at = h.set.ring.find(key)
	} else {
		at = int(key % tableSize)
	}
	for range maxSteps {
		e := &entries[slots[at]]
		if (a.count == 0 || !a.Has(e.endpoint)) && h.bound.admits(e) {
			return e.endpoint
		}
		if at++; at == len(slots) {
			at = 0
		}
	}
	i := foremost(entries, a, key, &h.bound)
	if i < 0 { // all have what they may have, for several loops count at the same time: the bound gives way
		i = foremost(entries, a, key, nil)
	}
	if i < 0 {
		return h.last(a)
	}
	return entries[i].endpoint
}
