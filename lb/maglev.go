package lb

// tableSize is the paper's smaller one, a prime; good for some hundred endpoints at a percent, and for thousands less evenly.
const tableSize = 65537

// wish is the slot that an entry wants next, and what it has taken already, in rounds of the heaviest.
type wish struct {
	slot, skip uint32
	paid       float64
}

// newTable is consistent hashing by a table (Eisenbud et al.: Maglev: A Fast and Reliable Software Network Load Balancer, 2016,
// section 3.4): shares are even to a percent, a pick is one look, and when an endpoint goes hardly more than its own keys move.
//
// It fills the table with places of entries. Each entry has an order of its own in which it wants the slots, and in each
// round takes the next that is free; one with half the weight of the heaviest does so in every other round, as in Envoy.
func newTable(entries []entry) []uint16 {
	heaviest := 0.0
	wishes := make([]wish, len(entries))
	for i := range entries {
		h := entries[i].hash
		wishes[i].slot = uint32(mix(h) % tableSize)
		wishes[i].skip = uint32(mix(h+1)%(tableSize-1)) + 1
		heaviest = max(heaviest, entries[i].weight)
	}
	const free = maxEndpoints // never an entry's place
	table := make([]uint16, tableSize)
	for i := range table {
		table[i] = free
	}
	filled := 0
	for round := 1.0; ; round++ {
		for i := range wishes {
			w := &wishes[i]
			if round*entries[i].weight < w.paid {
				continue
			}
			w.paid += heaviest
			for table[w.slot] != free {
				if w.slot += w.skip; w.slot >= tableSize {
					w.slot -= tableSize
				}
			}
			table[w.slot] = uint16(i)
			if filled++; filled == tableSize {
				return table
			}
		}
	}
}
