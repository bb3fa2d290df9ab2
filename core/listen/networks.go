package listen

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// Networks is a set of addresses, immutable. Of IPv4 it has sorted ranges: an index by the upper half of an address leaves a part of them for
// a binary search. Of IPv6 it has prefixes in B-trees.
type Networks struct {
	from, to []uint32 // of those that are IPv4
	begin    []uint32 // by the upper half of an address: the first range that begins there or behind; nil for few ranges
	six      prefixes6
}

// manyRanges is from how many on a set has an index, which takes 256 KiB.
const manyRanges = 4096

// addressRange holds both its ends.
type addressRange struct{ from, to netip.Addr }

// NewNetworks gives the union of prefixes. IPv4 addresses written as IPv6 (::ffff:10.0.0.0/104) stand for themselves.
func NewNetworks(prefixes []netip.Prefix) *Networks {
	var all []addressRange
	var six []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		switch p = p.Masked(); {
		case !p.IsValid():
		case p.Addr().Is6():
			six = append(six, p)
		default:
			all = append(all, addressRange{p.Addr(), lastOf(p)})
		}
	}
	slices.SortFunc(all, func(a, b addressRange) int { return a.from.Compare(b.from) })
	ranges := all[:0]
	for _, r := range all {
		if last := len(ranges) - 1; last >= 0 && ranges[last].meets(r) {
			if ranges[last].to.Less(r.to) {
				ranges[last].to = r.to
			}
			continue
		}
		ranges = append(ranges, r)
	}
	n := &Networks{}
	for _, r := range ranges {
		n.from, n.to = append(n.from, number(r.from)), append(n.to, number(r.to))
	}
	slices.SortFunc(six, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	n.six = newPrefixes6(six)
	if len(n.from) >= manyRanges {
		n.begin = make([]uint32, 1<<16+1)
		i := 0
		for half := range n.begin {
			for i < len(n.from) && int(n.from[i]>>16) < half {
				i++
			}
			n.begin[half] = uint32(i)
		}
	}
	return n
}

// number is an IPv4 address as a number that sorts as it does.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// meets says whether r, which begins no earlier, overlaps with a or begins where it ends.
func (a addressRange) meets(r addressRange) bool {
	return !a.to.Less(r.from) || a.to.Next() == r.from
}

// lastOf is the last address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Contains says whether a is in one of the networks; the zero Addr never is.
func (n *Networks) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return n.contains4(number(a))
	}
	return a.IsValid() && n.six.contains(a)
}

// contains4 finds the last range that begins at a or before.
func (n *Networks) contains4(a uint32) bool {
	low, high := 0, len(n.from)
	if n.begin != nil {
		low, high = int(n.begin[a>>16]), int(n.begin[a>>16+1])
	}
	for low < high {
		if middle := (low + high) / 2; n.from[middle] <= a {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low > 0 && a <= n.to[low-1]
}

// Trusts says whether a peer is in one of the networks. A peer on a unix socket, which has no address, is local and
// taken as loopback.
func (n *Networks) Trusts(peer netip.Addr) bool {
	if !peer.IsValid() {
		return n.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1})) || n.Contains(netip.IPv6Loopback())
	}
	return n.Contains(peer)
}
