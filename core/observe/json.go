package observe

import (
	"unicode/utf8"
	"unsafe"
)

const hexDigits = "0123456789abcdef"

// plain says which bytes stand in a JSON string as they are.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

// appendString writes a member of an object: key, which is `,"name":"`, and the value in its quotes. Empty values are
// left out.
func appendString(dst []byte, key, s string) []byte {
	return appendBytes(dst, key, unsafe.Slice(unsafe.StringData(s), len(s))) // only read
}

// appendBytes is appendString for bytes of any kind: what is not UTF-8 becomes U+FFFD, and what is longer than maxField
// is cut.
func appendBytes(dst []byte, key string, s []byte) []byte {
	if len(s) == 0 {
		return dst
	}
	dst = append(dst, key...)
	if len(s) > maxField {
		s = s[:maxField]
	}
	for i, c := range s {
		if !plain[c] {
			dst = appendEscaped(append(dst, s[:i]...), s[i:])
			return append(dst, '"')
		}
	}
	return append(append(dst, s...), '"')
}

func appendEscaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case plain[c]:
			dst = append(dst, c)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < utf8.RuneSelf:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, "\uFFFD"...)
			} else {
				dst = append(dst, s[i:i+size]...)
			}
			i += size
			continue
		}
		i++
	}
	return dst
}
