package http1

import "github.com/sluice-gateway/sluice/core"

// trim takes optional white space off both ends (RFC 9110, 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// nextElement cuts the first element off a comma-separated list; it may be empty.
func nextElement(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

func span(start, end int) core.Span { return core.Span{Start: uint32(start), End: uint32(end)} }
