package lb

import "math"

// alias draws entries by weight in constant time: Walker's method of aliases (1977), built as by Vose (A Linear Algorithm
// for Generating Random Numbers with a Given Distribution, 1991). A column holds an entry and another's excess.
type alias []column

type column struct {
	own   uint32 // share of the column, in 2^-32, that is its own entry's
	other uint32
}

func newAlias(entries []entry) alias {
	n := len(entries)
	total := 0.0
	for i := range entries {
		total += entries[i].weight
	}
	a := make(alias, n)
	left := make([]float64, n) // of each entry's weight, in columns
	var small, large []uint32
	for i := range entries {
		left[i] = entries[i].weight / total * float64(n)
		if left[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a[s] = column{uint32(left[s] * (1 << 32)), l}
		if left[l] -= 1 - left[s]; left[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) { // whole but for rounding
		a[i] = column{math.MaxUint32, i}
	}
	return a
}

// draw turns a random number into an entry's place.
func (a alias) draw(r uint64) int {
	i := int(r >> 32 * uint64(len(a)) >> 32)
	return lower(i, int(a[i].other), int64(uint32(r)), int64(a[i].own))
}
