package lb

import (
	"net/netip"

	"github.com/cespare/xxhash/v2"
)

// HashString gives the affinity key of a text.
func HashString(s string) uint64 { return xxhash.Sum64String(s) }

// HashBytes gives the affinity key of a text; it keeps nothing of b.
func HashBytes(b []byte) uint64 { return xxhash.Sum64(b) }

// HashAddr gives the affinity key of a client's address. An IPv4 address in IPv6 form is the same.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return xxhash.Sum64(b[:])
}

// mix makes all bits of a number depend on all others: the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
