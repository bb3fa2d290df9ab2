package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	// maxProxyLine bounds a header of version 1, its CRLF included (proxy-protocol.txt, 2.1).
	maxProxyLine = 107
	// maxProxyBlock bounds the addresses and TLVs of version 2, of which the protocol would allow 64 KiB.
	maxProxyBlock = 4096
	proxyFixed    = 16
)

// errProxyHeader is a malformed header. What is wrong with it interests nobody who could tell it to its sender.
var errProxyHeader = errors.New("malformed PROXY header")

const (
	proxyLineStart = "PROXY "
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
)

// parseProxy reads the PROXY header at the start of b: version 1 or 2 of haproxy's proxy-protocol.txt. n is its length;
// 0 without an error: it is not whole yet. source is the client that it names; zero where the peer itself is meant (LOCAL),
// or the client has no address that could be told (UNKNOWN, UNSPEC, AF_UNIX).
func parseProxy(b []byte) (source netip.AddrPort, n int, err error) {
	switch {
	case hasStart(b, proxyLineStart):
		return parseProxyLine(b)
	case hasStart(b, proxySignature):
		return parseProxyBlock(b)
	}
	return netip.AddrPort{}, 0, errProxyHeader
}

// hasStart says whether b begins with start, as far as it goes.
func hasStart(b []byte, start string) bool {
	k := min(len(b), len(start))
	return string(b[:k]) == start[:k]
}

// parseProxyLine reads version 1: PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CRLF.
func parseProxyLine(b []byte) (source netip.AddrPort, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxProxyLine)], '\n')
	if end < 0 {
		if len(b) >= maxProxyLine {
			err = errProxyHeader
		}
		return source, 0, err
	}
	line := b[:end]
	if len(line) < len(proxyLineStart) || line[end-1] != '\r' {
		return source, 0, errProxyHeader
	}
	line = line[len(proxyLineStart) : end-1]
	if bytes.IndexByte(line, '\r') >= 0 {
		return source, 0, errProxyHeader
	}
	family, rest, more := bytes.Cut(line, []byte(" "))
	switch string(family) {
	case "UNKNOWN": // whatever follows is to be ignored
		return source, end + 1, nil
	case "TCP4", "TCP6":
		if more {
			source, err = parseProxyAddresses(rest, family[3] == '4')
			if err == nil {
				return source, end + 1, nil
			}
		}
	}
	return netip.AddrPort{}, 0, errProxyHeader
}

// parseProxyAddresses reads two addresses and two ports with one space between each.
func parseProxyAddresses(b []byte, v4 bool) (netip.AddrPort, error) {
	var parts [4][]byte
	for i := range parts {
		part, rest, more := bytes.Cut(b, []byte(" "))
		if more != (i < 3) {
			return netip.AddrPort{}, errProxyHeader
		}
		parts[i], b = part, rest
	}
	source, ok1 := parseAddr(parts[0])
	destination, ok2 := parseAddr(parts[1])
	port, ok3 := parsePort(parts[2])
	_, ok4 := parsePort(parts[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || source.Is4() != v4 || destination.Is4() != v4 {
		return netip.AddrPort{}, errProxyHeader
	}
	return netip.AddrPortFrom(source.Unmap(), port), nil
}

// parseProxyBlock reads version 2: a binary header, addresses, and TLVs, which are skipped.
func parseProxyBlock(b []byte) (source netip.AddrPort, n int, err error) {
	const local, proxy = 0x20, 0x21
	if len(b) > len(proxySignature) && b[12] != local && b[12] != proxy {
		return source, 0, errProxyHeader
	}
	if len(b) < proxyFixed {
		return source, 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length > maxProxyBlock {
		return source, 0, errProxyHeader
	}
	address := 0 // bytes of one address and one port
	if b[12] == proxy {
		switch b[13] { // family and transport; datagrams cannot be what came over a stream
		case 0x00, 0x31: // UNSPEC, UNIX
		case 0x11:
			address = 4
		case 0x21:
			address = 16
		default:
			return source, 0, errProxyHeader
		}
		if b[13] == 0x31 && length < 2*108 || address > 0 && length < 2*address+4 {
			return source, 0, errProxyHeader
		}
	}
	if len(b) < proxyFixed+length {
		return source, 0, nil
	}
	if address > 0 {
		block := b[proxyFixed:]
		ip, _ := netip.AddrFromSlice(block[:address])
		source = netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(block[2*address:]))
	}
	return source, proxyFixed + length, nil
}
