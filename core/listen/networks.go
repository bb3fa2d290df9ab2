package listen

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Networks is a set of addresses, immutable. Looking one up takes as many comparisons as the binary logarithm of its size.
type Networks struct {
	ranges   []addressRange
	from, to []uint32 // of those that are IPv4, which come first: four times as many to a line of the cache
	begin    []uint32 // by the upper half of an address: the first range that begins there or behind; nil for few ranges
}

// manyRanges is from how many on a set has an index, which takes 256 KiB.
const manyRanges = 4096

// addressRange holds both its ends. Those of a set are sorted, do not touch, and hold IPv4 before IPv6.
type addressRange struct{ from, to netip.Addr }

// NewNetworks gives the union of prefixes. IPv4 addresses written as IPv6 (::ffff:10.0.0.0/104) stand for themselves.
func NewNetworks(prefixes []netip.Prefix) *Networks {
	all := make([]addressRange, 0, len(prefixes))
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p = p.Masked(); p.IsValid() {
			all = append(all, addressRange{p.Addr(), lastOf(p)})
		}
	}
	slices.SortFunc(all, func(a, b addressRange) int { return a.from.Compare(b.from) })
	n := &Networks{}
	for _, r := range all {
		if last := len(n.ranges) - 1; last >= 0 && n.ranges[last].meets(r) {
			if n.ranges[last].to.Less(r.to) {
				n.ranges[last].to = r.to
			}
			continue
		}
		n.ranges = append(n.ranges, r)
	}
	for _, r := range n.ranges {
		if r.from.Is4() {
			n.from, n.to = append(n.from, number(r.from)), append(n.to, number(r.to))
		}
	}
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
	if a.to.BitLen() != r.from.BitLen() {
		return false
	}
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
	low, high := len(n.from), len(n.ranges)
	for low < high {
		middle := (low + high) / 2
		switch r := &n.ranges[middle]; {
		case a.Less(r.from):
			high = middle
		case r.to.Less(a):
			low = middle + 1
		default:
			return true
		}
	}
	return false
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
