package lb

import (
	"math"
	"math/rand/v2"
)

// drawing is what pickers that draw lots have in common: the set, and random numbers of their own. These need not be secret:
// who can foresee a choice gains nothing.
type drawing struct {
	set    *Set
	source source
}

// source is a generator of random numbers.
type source struct{ rand.PCG }

// fraction is a number from 0 up to 1, which it does not reach.
func (s *source) fraction() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

func newDrawing(s *Set, seed uint64) drawing {
	return drawing{set: s, source: source{*rand.NewPCG(seed, mix(seed+1))}}
}

// one draws an entry by weight.
func (d *drawing) one() int {
	if r := d.source.Uint64(); d.set.alias == nil {
		return int(r >> 32 * uint64(len(d.set.entries)) >> 32)
	} else {
		return d.set.alias.draw(r)
	}
}

// pair turns a random number into two different places of n, into the same twice if n is 1. A branch here and in lower would
// be a coin's toss, which costs a processor more than all the rest of a pick: so there is none.
func pair(r uint64, n int) (i, j int) {
	i = int(r >> 32 * uint64(n) >> 32)
	j = i + 1 + int(r&math.MaxUint32*uint64(n-1)>>32) - n
	return i, j + n&(j>>63)
}

// lower gives i if x <= y, else j.
func lower(i, j int, x, y int64) int { return i ^ (i^j)&int((y-x)>>63) }

// maxDraws bounds the draws for an endpoint that was not tried before all are looked at.
const maxDraws = 8

// untried draws an entry that a has not tried, -1 when there is none.
func (d *drawing) untried(a *Attempt) int {
	entries := d.set.entries
	for range maxDraws {
		if i := d.one(); !a.Has(entries[i].endpoint) {
			return i
		}
	}
	return foremost(entries, a, d.source.Uint64(), nil)
}

// last is what Pick gives when all entries were tried: one of the reserve, nil when they were tried, too.
func (d *drawing) last(a *Attempt) *Endpoint {
	rest := d.set.reserve
	for len(rest) > 0 {
		n := 1
		for n < len(rest) && rest[n].rank == rest[0].rank {
			n++
		}
		if i := foremost(rest[:n], a, d.key(a), nil); i >= 0 {
			return rest[i].endpoint
		}
		rest = rest[n:]
	}
	return nil
}

// key is the attempt's affinity key, or a random one.
func (d *drawing) key(a *Attempt) uint64 {
	if a.Keyed && d.set.spec.Algorithm.Hashing() {
		return a.Key
	}
	return d.source.Uint64()
}

// foremost gives the entry that a has not tried, and that b admits, whose address and key make the highest number, -1 when
// there is none: rendezvous hashing (Thaler and Ravishankar: A Name-Based Mapping Scheme for Rendezvous, 1996). With the same
// key the order is the same everywhere, with a random one it is a fair draw. It looks at all, so it is for what is rare.
func foremost(entries []entry, a *Attempt, key uint64, b *bound) int {
	best, highest := -1, uint64(0)
	for i := range entries {
		e := &entries[i]
		if h := mix(key ^ e.hash); (best < 0 || h > highest) && !a.Has(e.endpoint) && (b == nil || b.admits(e)) {
			best, highest = i, h
		}
	}
	return best
}

// random draws by weight.
type random struct{ drawing }

func (r *random) Pick(a *Attempt) *Endpoint {
	if len(r.set.entries) == 0 {
		return r.last(a)
	}
	if a.count == 0 {
		return r.set.entries[r.one()].endpoint
	}
	if i := r.untried(a); i >= 0 {
		return r.set.entries[i].endpoint
	}
	return r.last(a)
}
