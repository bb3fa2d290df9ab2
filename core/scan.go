package core

import (
	"encoding/binary"
	"math/bits"
)

// Classes of bytes in a token (RFC 9110, 5.6.2).
const (
	TokenNone  = 0 // no token byte
	TokenPlain = 1 // letters, digits and "-"
	TokenOdd   = 2 // the rest: some recipients fold these into "-" or "_"
)

var tokenClass = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = TokenPlain
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = TokenPlain, TokenPlain
	}
	for _, c := range "!#$%&'*+.^_`|~" {
		t[c] = TokenOdd
	}
	t['-'] = TokenPlain
	return t
}()

// IsToken says whether b is a token (RFC 9110, 5.6.2).
func IsToken(b []byte) bool {
	for _, c := range b {
		if tokenClass[c] == TokenNone {
			return false
		}
	}
	return len(b) > 0
}

const (
	ones  = 0x0101010101010101
	tops  = 0x80 * ones
	words = 8
)

// ScanText finds the first control byte other than HTAB from i on: the end of a field value or a reason phrase if it is
// the CR of CRLF, a fault otherwise. It is len(b) when there is none. Eight bytes are looked at together: in each
// term the lowest mark is exact, those above it may be carried over.
func ScanText(b []byte, i int) int {
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

// ScanTarget finds the first byte from i on that cannot be in a request target: SP, controls, "#", DEL, and above.
func ScanTarget(b []byte, i int) int {
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

// ValidToken says whether b is a token.
func ValidToken(b []byte) bool {
	for _, c := range b {
		if tokenClass[c] == 0 {
			return false
		}
	}
	return len(b) > 0
}

// TokenClass gives the class of a byte.
func TokenClass(c byte) uint8 { return tokenClass[c] }

// ValidValue says whether b can be a field value: no control byte but HTAB (RFC 9110, 5.5).
func ValidValue(b []byte) bool { return ScanText(b, 0) == len(b) }

// EqualFoldBytes is EqualFold for two runs of received bytes.
func EqualFoldBytes(a, b []byte) bool {
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
