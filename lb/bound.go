package lb

// bound keeps hashing from overloading an endpoint: none gets a request while it has its share of what is in flight, times the
// load factor (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, 2016). What is in flight is the sum
// over the endpoints, taken anew after as many picks as are an eighth of these, and the picks since then: so a pick costs the
// same however many endpoints there are, and what one may have is off by a fraction of a request, for each loop, as long as
// about as many end as begin.
type bound struct {
	set      *Set
	inFlight int64
	fresh    int     // picks for which inFlight is good
	each     float64 // what may be in flight for each unit of weight
}

// begin is called once for each pick.
func (b *bound) begin() {
	factor := b.set.spec.LoadFactor
	if factor == 0 {
		return
	}
	b.inFlight++ // the one that is to be placed
	if b.fresh--; b.fresh < 0 {
		b.fresh = len(b.set.entries) / 8
		b.inFlight = 1
		for i := range b.set.entries {
			b.inFlight += b.set.entries[i].load.inFlight.Load()
		}
	}
	b.each = factor * float64(b.inFlight) / b.set.total
}

// admits says whether e may have one more: whether n+1 is at most its share rounded up, which is the same as n being below it.
func (b *bound) admits(e *entry) bool {
	return b.set.spec.LoadFactor == 0 || float64(e.load.inFlight.Load()) < b.each*e.weight
}
