package listen

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// halves of an IPv6 address as numbers.
func halves(a netip.Addr) (high, low uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// fanout is how many numbers a node has: a line of the cache.
const fanout = 8

// tree is a B-tree of sorted numbers without pointers: level 0 has all of them, each level above the first of every node below. A lookup
// reads a line of each level and does the same work whatever the numbers are, so that nobody can write a list that is slow.
type tree struct {
	levels [][][fanout]uint64
	count  int
}

func newTree(all []uint64) tree {
	t := tree{count: len(all)}
	for len(all) > 0 {
		level := make([][fanout]uint64, (len(all)+fanout-1)/fanout)
		var above []uint64
		for i := range level {
			for j := copy(level[i][:], all[i*fanout:]); j < fanout; j++ {
				level[i][j] = ^uint64(0)
			}
			above = append(above, level[i][0])
		}
		t.levels = append(t.levels, level)
		if all = above; len(all) == 1 {
			break
		}
	}
	return t
}

// last is the place of the last number that is a or less, and the number; -1: there is none.
func (t *tree) last(a uint64) (int, uint64) {
	at := 0
	for l := len(t.levels) - 1; l >= 0; l-- {
		at = min(at, len(t.levels[l])-1) // what fills up the last node above is no number, though it may be a
		n, more := &t.levels[l][at], uint64(0)
		for i := range n { // no branch that a processor could guess wrong
			_, borrow := bits.Sub64(a, n[i], 0)
			more += borrow
		}
		at = at*fanout + fanout - 1 - int(more)
		if more == fanout {
			return -1, 0 // only at the top
		}
	}
	at = min(at, t.count-1)
	if at < 0 {
		return -1, 0
	}
	return at, t.levels[0][at/fanout][at%fanout]
}

// prefixes6 is a set of prefixes of IPv6, of which none is in another. Those of up to 64 bits are in a tree by the upper half of their address,
// and so is one for each group of longer ones that have it in common; these are sorted by the lower half, and in a tree where they are many.
// Immutable; it takes 15 bytes for each number of the tree, and 21 for each prefix of a group.
type prefixes6 struct {
	highs tree
	bits  []uint8  // of each of highs; 65: of a group
	first []uint32 // of each of highs: the first of its group, in lows, and where the last group ends; nil: there is no group

	lows    []uint64
	lowBits []uint8 // of each of lows, without the first 64
	large   map[int]*tree
}

// largeGroup is from how many prefixes on a group has a tree.
const largeGroup = 64

// newPrefixes6 makes the set of masked prefixes, sorted by address and then by length.
func newPrefixes6(all []netip.Prefix) prefixes6 {
	var p prefixes6
	var highs []uint64
	var before netip.Prefix
	for _, one := range all {
		if before.IsValid() && before.Contains(one.Addr()) {
			continue
		}
		before = one
		high, low := halves(one.Addr())
		at := len(highs) - 1
		if one.Bits() <= 64 || at < 0 || highs[at] != high {
			highs, p.bits, p.first = append(highs, high), append(p.bits, uint8(min(one.Bits(), 65))), append(p.first, uint32(len(p.lows)))
		}
		if one.Bits() > 64 {
			p.lows, p.lowBits = append(p.lows, low), append(p.lowBits, uint8(one.Bits()-64))
		}
	}
	p.highs = newTree(highs)
	if p.first = append(p.first, uint32(len(p.lows))); len(p.lows) == 0 {
		p.first = nil
		return p
	}
	for i := range highs {
		if g := p.lows[p.first[i]:p.first[i+1]]; len(g) >= largeGroup {
			if p.large == nil {
				p.large = map[int]*tree{}
			}
			t := newTree(g)
			p.large[i] = &t
		}
	}
	return p
}

// contains says whether an address is in one of the prefixes.
func (p *prefixes6) contains(a netip.Addr) bool {
	high, low := halves(a)
	at, first := p.highs.last(high)
	switch {
	case at < 0:
		return false
	case p.bits[at] <= 64:
		return (high^first)>>(64-p.bits[at]) == 0
	case high != first:
		return false
	}
	from, to := int(p.first[at]), int(p.first[at+1])
	in := 0
	if to-from >= largeGroup {
		in, _ = p.large[at].last(low)
	} else {
		for in = -1; in+1 < to-from && p.lows[from+in+1] <= low; in++ {
		}
	}
	return in >= 0 && (low^p.lows[from+in])>>(64-p.lowBits[from+in]) == 0
}
