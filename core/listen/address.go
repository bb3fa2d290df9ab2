package listen

import (
	"net/netip"
	"unsafe"
)

// maxAddressBytes is the longest text of an address without zone: an IPv6 one that ends as IPv4.
const maxAddressBytes = 45

// parseAddr reads an address as text: IPv4 without leading zeros, or IPv6 without brackets and zone. It allocates nothing
// for one that is right.
func parseAddr(b []byte) (netip.Addr, bool) {
	if len(b) == 0 || len(b) > maxAddressBytes {
		return netip.Addr{}, false
	}
	for _, c := range b {
		if !addressByte(c) {
			return netip.Addr{}, false
		}
	}
	// The string lasts no longer than the call: of an address without zone nothing is kept, and the error is dropped.
	a, err := netip.ParseAddr(unsafe.String(&b[0], len(b)))
	return a, err == nil
}

func addressByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' || c == ':' || c == '.'
}

// parsePort reads a decimal port, 0 to 65535, without sign or leading zeros.
func parsePort(b []byte) (uint16, bool) {
	if len(b) == 0 || len(b) > 5 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	n := uint32(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return uint16(n), n <= 0xffff
}
