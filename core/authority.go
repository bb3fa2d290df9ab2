package core

const maxHost = 255 // bytes of a domain name (RFC 1035, 2.3.4)

// ValidAuthority checks a host with an optional port, as in Host and in targets (RFC 9110, 7.2). A name consists of
// unreserved bytes in labels that are not empty; a dot may end it. What RFC 3986 allows beyond that, percent triplets
// and sub-delimiters, no resolver knows, and recipients disagree about it. Neither may user information be there, nor
// an empty port.
func ValidAuthority(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	if b[0] == '[' {
		for i := 1; i < len(b); i++ {
			if b[i] == ']' {
				return validIPv6(b[1:i]) && validPort(b[i+1:])
			}
		}
		return false
	}
	i, dot := 0, true
	for ; i < len(b) && b[i] != ':'; i++ {
		c := b[i]
		if c == '.' {
			if dot {
				return false
			}
			dot = true
			continue
		}
		if tokenClass[c] != TokenPlain && c != '_' && c != '~' {
			return false
		}
		dot = false
	}
	return i > 0 && i <= maxHost && validPort(b[i:])
}

// validPort takes nothing, or ":" and a number up to 65535.
func validPort(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' || len(b) == 1 || len(b) > 6 {
		return false
	}
	n := 0
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

// validIPv6 checks an address without zone (RFC 3986, 3.2.2).
func validIPv6(b []byte) bool {
	groups, gap, i := 0, false, 0
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, i = true, 2
		if i == len(b) {
			return true
		}
	}
	for {
		start := i
		for i < len(b) && isHex(b[i]) {
			i++
		}
		switch {
		case i < len(b) && b[i] == '.':
			groups += 2
			return validIPv4(b[start:]) && (groups == 8 && !gap || groups < 8 && gap)
		case i == start || i-start > 4:
			return false
		}
		groups++
		if i == len(b) {
			return groups == 8 && !gap || groups < 8 && gap
		}
		if b[i] != ':' || groups > 7 {
			return false
		}
		i++
		if i < len(b) && b[i] == ':' {
			if gap {
				return false
			}
			gap = true
			i++
			if i == len(b) {
				return groups < 8
			}
		}
	}
}

func validIPv4(b []byte) bool {
	parts, digits, n := 1, 0, 0
	for _, c := range b {
		switch {
		case c == '.':
			if digits == 0 {
				return false
			}
			parts, digits, n = parts+1, 0, 0
		case c < '0' || c > '9' || digits > 0 && n == 0: // no leading zero
			return false
		default:
			digits++
			if n = n*10 + int(c-'0'); n > 255 {
				return false
			}
		}
	}
	return parts == 4 && digits > 0
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// splitPort cuts a valid authority into host and port; the port is nil when there is none.
func splitPort(b []byte) (host, port []byte) {
	for i := len(b) - 1; i >= 0 && b[i] != ']'; i-- {
		if b[i] == ':' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// HostOf is the host of a valid authority, without port and brackets.
func HostOf(authority []byte) []byte {
	host, _ := splitPort(authority)
	if len(host) > 1 && host[0] == '[' {
		return host[1 : len(host)-1]
	}
	return host
}

// appendHost appends a host as routes compare it: in lower case, and without the dot that may end a name. A client that writes it otherwise is
// at the same host.
func appendHost(dst, host []byte) []byte {
	if n := len(host); n > 1 && host[n-1] == '.' {
		host = host[:n-1]
	}
	for _, c := range host {
		dst = append(dst, lower[c])
	}
	return dst
}

// HasPort says whether a valid authority names a port.
func HasPort(b []byte) bool {
	_, port := splitPort(b)
	return port != nil
}

// AuthorityAgrees compares the authority of a target with Host, in any case. A port that one of them leaves out is the scheme's;
// for CONNECT, which has no scheme, it is the target's.
func AuthorityAgrees(authority, host []byte, port string) bool {
	h1, p1 := splitPort(authority)
	h2, p2 := splitPort(host)
	if !EqualFoldBytes(h1, h2) {
		return false
	}
	switch {
	case p1 != nil && p2 != nil:
		return string(p1) == string(p2)
	case p1 != nil:
		return port == "" || string(p1) == port
	case p2 != nil:
		return string(p2) == port
	}
	return true
}
