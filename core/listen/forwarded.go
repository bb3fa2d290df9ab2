package listen

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
)

// forwarded walks over one line of Forwarded (RFC 7239). The line is cut from the right, quotes included: what a client
// wrote on the left, such as a quote that is never closed, cannot swallow what a proxy added after it.
func (w *walk) forwarded(line []byte) bool {
	for {
		comma, ok := lastComma(line)
		if !ok {
			return true
		}
		if element := trim(line[comma+1:]); len(element) > 0 && w.add(forwardedFor(element)) {
			return true
		}
		if comma < 0 {
			return false
		}
		line = line[:comma]
	}
}

// lastComma is where the last element's comma stands, outside of quoted strings; -1: there is none. ok is false where a
// quoted string has no beginning.
func lastComma(b []byte) (comma int, ok bool) {
	quoted := false
	for i := len(b) - 1; i >= 0; i-- {
		switch b[i] {
		case '"':
			if !quoted || !escaped(b, i) {
				quoted = !quoted
			}
		case ',':
			if !quoted {
				return i, true
			}
		}
	}
	return -1, !quoted
}

// escaped says whether an odd number of backslashes stands before b[i].
func escaped(b []byte, i int) bool {
	n := 0
	for i > n && b[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// forwardedFor reads one element, "for=192.0.2.1;proto=https", and gives the address of its for parameter. Identifiers
// that are hidden (_name) or unknown are no address.
func forwardedFor(b []byte) (a netip.Addr, ok bool) {
	found := false
	for {
		name, value, quoted, rest, good := nextPair(b)
		if !good {
			return netip.Addr{}, false
		}
		if core.EqualFold(name, "for") {
			if found {
				return netip.Addr{}, false
			}
			found = true
			if a, ok = parseFor(value, quoted); !ok {
				return netip.Addr{}, false
			}
		}
		if len(rest) == 0 {
			return a, found
		}
		b = rest
	}
}

// nextPair reads name=value up to the next semicolon. White space around the semicolon is let pass, as senders write it.
func nextPair(b []byte) (name, value []byte, quoted bool, rest []byte, ok bool) {
	b = trim(b)
	i := tokenLength(b)
	if i == 0 || i == len(b) || b[i] != '=' {
		return nil, nil, false, nil, false
	}
	name, b = b[:i], b[i+1:]
	if len(b) > 0 && b[0] == '"' {
		end := quotedLength(b)
		if end == 0 {
			return nil, nil, false, nil, false
		}
		value, quoted, b = b[1:end-1], true, b[end:]
	} else {
		end := tokenLength(b)
		if end == 0 {
			return nil, nil, false, nil, false
		}
		value, b = b[:end], b[end:]
	}
	b = trim(b)
	if len(b) == 0 {
		return name, value, quoted, nil, true
	}
	// A semicolon ends a pair; a last one with nothing after it is refused with the empty pair.
	return name, value, quoted, b[1:], b[0] == ';' && len(b) > 1
}

// parseFor reads the value of for. Without quotes there is no colon in it: a token is an IPv4 address or an identifier.
func parseFor(value []byte, quoted bool) (netip.Addr, bool) {
	if quoted && len(value) > 0 && value[0] == '[' {
		return parseBracketed(value)
	}
	a, ok := parseNode(value)
	return a, ok && isIPv4(value)
}

// isIPv4 says whether an address that was read stands there in IPv4's form, with or without port.
func isIPv4(b []byte) bool {
	for _, c := range b {
		if c == '.' {
			return true
		}
		if c == ':' {
			return false
		}
	}
	return false
}

// tokenLength counts the bytes of the token at the start of b (RFC 9110, 5.6.2).
func tokenLength(b []byte) int {
	for i, c := range b {
		if !tokenByte(c) {
			return i
		}
	}
	return len(b)
}

func tokenByte(c byte) bool {
	switch {
	case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// quotedLength counts the bytes of the quoted string at the start of b, its quotes included; 0: it is not closed.
func quotedLength(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}
