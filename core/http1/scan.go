package http1

import (
	"encoding/binary"
	"math/bits"

	"github.com/sluice-gateway/sluice/core"
)

// Classes of bytes in a token (RFC 9110, 5.6.2); 0 is no token byte.
const (
	tokenPlain = 1 // letters, digits and "-"
	tokenOdd   = 2 // the rest: some recipients fold these into "-" or "_"
)

var tokenClass = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = tokenPlain
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = tokenPlain, tokenPlain
	}
	for _, c := range "!#$%&'*+.^_`|~" {
		t[c] = tokenOdd
	}
	t['-'] = tokenPlain
	return t
}()

const (
	ones  = 0x0101010101010101
	tops  = 0x80 * ones
	words = 8
)

// scanText finds the first control byte other than HTAB from i on: the end of a field value or a reason phrase if it is
// the CR of CRLF, a fault otherwise. It is len(b) when there is none. Eight bytes are looked at together: in each
// term the lowest mark is exact, those above it may be carried over.
func scanText(b []byte, i int) int {
	for {
		for i+words <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			del := w ^ 0x7f*ones
			if marks := ((w - 0x20*ones) &^ w & tops) | ((del - ones) &^ del & tops); marks != 0 {
				i += bits.TrailingZeros64(marks) >> 3
				break
			}
			i += words
		}
		for i < len(b) && (b[i] >= 0x20 && b[i] != 0x7f) {
			i++
		}
		if i >= len(b) || b[i] != '\t' {
			return i
		}
		i++
	}
}

// scanTarget finds the first byte from i on that cannot be in a request target: SP, controls, "#", DEL, and above.
func scanTarget(b []byte, i int) int {
	for i+words <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		del, hash := w^0x7f*ones, w^'#'*ones
		marks := ((w-0x21*ones)&^w | (del-ones)&^del | (hash-ones)&^hash | w) & tops
		if marks != 0 {
			return i + bits.TrailingZeros64(marks)>>3
		}
		i += words
	}
	for i < len(b) && b[i] > ' ' && b[i] < 0x7f && b[i] != '#' {
		i++
	}
	return i
}

// isToken says whether b is a token.
func isToken(b []byte) bool {
	for _, c := range b {
		if tokenClass[c] == 0 {
			return false
		}
	}
	return len(b) > 0
}

// equalFold is core.EqualFold for two runs of received bytes.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if c != b[i] && (c|0x20 != b[i]|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

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
