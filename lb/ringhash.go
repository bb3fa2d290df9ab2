package lb

import (
	"math/bits"
	"slices"
)

// ring is consistent hashing as libketama does it: each endpoint has many points on a circle, in proportion to its weight, and
// a key belongs to the next point. When an endpoint goes, its keys alone move, each to the next endpoint on the circle.
//
// The points are in order, by the upper half of their hashes: less memory is fewer cache misses. What section of the circle a
// key is in says where to begin to look.
type ring struct {
	points   []uint32
	sections []uint32 // place of the first point in each
	shift    uint     // of a key, to its section
}

const (
	pointsEach = 144     // of an endpoint of mean weight, at least; up to twice as many. ketama has 160
	maxPoints  = 1 << 19 // of a ring, where more endpoints than these allow have fewer each; up to twice as many
)

// newRing gives an entry points in proportion to its weight, and tells whose each point is. The factor is a power of two: so a
// change of some weights leaves the points of all others in place, unless it takes the mean weight over a bound, where half of
// all points come or go. Of usual mean weights, which are 1, 2 and 5 times a power of ten, none is near a bound.
func newRing(entries []entry) (r ring, owners []uint16) {
	total, factor := 0.0, 1.0
	for i := range entries {
		total += entries[i].weight
	}
	want := float64(min(pointsEach*len(entries), maxPoints))
	for total*factor >= 2*want {
		factor /= 2
	}
	for total*factor < want {
		factor *= 2
	}
	var all []uint64 // upper half of the hash, entry
	for i := range entries {
		for n := range max(1, uint64(entries[i].weight*factor+0.5)) {
			at := mix(entries[i].hash + n*0x9e3779b97f4a7c15)
			all = append(all, at>>32<<16|uint64(i))
		}
	}
	slices.Sort(all)
	width := max(bits.Len(uint(len(all)))-2, 0)
	owners = make([]uint16, len(all))
	r = ring{
		points:   make([]uint32, len(all)),
		sections: make([]uint32, 1<<width),
		shift:    uint(64 - width),
	}
	section := 0
	for i, p := range all {
		r.points[i], owners[i] = uint32(p>>16), uint16(p)
		for ; section <= int(p>>16<<32>>r.shift); section++ {
			r.sections[section] = uint32(i)
		}
	}
	for ; section < len(r.sections); section++ {
		r.sections[section] = uint32(len(all))
	}
	return r, owners
}

// find gives the place of the point that a key belongs to. A section has two to four points.
func (r *ring) find(key uint64) int {
	i, at := int(r.sections[key>>r.shift]), uint32(key>>32)
	for i < len(r.points) && r.points[i] < at {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}
