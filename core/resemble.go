package core

import "math/bits"

// asserted are the fields that upstreams trust because the gateway writes them, or acts on them.
const asserted FieldSet = 1<<FieldAuthorization | 1<<FieldConnection | 1<<FieldForwarded |
	1<<FieldKeepAlive | 1<<FieldProxyAuthorization | 1<<FieldProxyConnection | 1<<FieldUpgrade |
	1<<FieldVia | 1<<FieldXConsumerName | 1<<FieldXForwardedFor | 1<<FieldXForwardedHost | 1<<FieldXForwardedProto |
	1<<FieldXRealIP | 1<<FieldXRequestID

// Resemblance says what a field's name could be taken for.
type Resemblance uint8

const (
	ResemblesNone     Resemblance = iota
	ResemblesAsserted             // a field that upstreams trust
	ResemblesFraming              // a field that says where the message ends
)

// Resembles finds names such as transfer_encoding: an upstream that maps names to variables reads them as the fields that
// nobody here has seen. It is asked of names with odd bytes that are none of the known ones.
func Resembles(name []byte) Resemblance {
	switch {
	case looksLike(name, FieldContentLength.String()), looksLike(name, FieldTransferEncoding.String()):
		return ResemblesFraming
	case looksLikeOneOf(name, asserted):
		return ResemblesAsserted
	}
	return ResemblesNone
}

func looksLikeOneOf(name []byte, set FieldSet) bool {
	for ; set != 0; set &= set - 1 {
		if looksLike(name, FieldID(bits.TrailingZeros64(uint64(set))).String()) {
			return true
		}
	}
	return false
}

// looksLike compares names as one does who turns all but letters and digits into the same byte.
func looksLike(name []byte, known string) bool {
	if len(name) != len(known) {
		return false
	}
	for i, c := range name {
		if k := known[i]; k == '-' {
			if tokenClass[c] != TokenOdd && c != '-' {
				return false
			}
		} else if c|0x20 != k|0x20 {
			return false
		}
	}
	return true
}

// UntrailedFields are the known fields that a trailer must not bring, because they have been acted upon, or trusted, by the
// time it comes (RFC 9110, 6.5.1).
const UntrailedFields = asserted | 1<<FieldAge | 1<<FieldCacheControl | 1<<FieldContentEncoding |
	1<<FieldContentType | 1<<FieldCookie | 1<<FieldDate | 1<<FieldExpect | 1<<FieldLocation |
	1<<FieldOrigin | 1<<FieldProxyAuthenticate | 1<<FieldReferer | 1<<FieldRetryAfter |
	1<<FieldSetCookie | 1<<FieldTE | 1<<FieldTrailer | 1<<FieldVary

// MayTrail judges a name that is none of the known ones. A trailer must not bring those about the content (a digest of it
// belongs here, RFC 9530), conditions, authentication and controls, nor what resembles one of the known.
func MayTrail(name []byte) bool {
	for _, c := range name {
		if tokenClass[c] == TokenOdd {
			return !looksLikeOneOf(name, UntrailedFields)
		}
	}
	switch {
	case EqualFold(name, "Content-Digest"):
		return true
	case len(name) >= 8 && EqualFold(name[:8], "Content-"), len(name) >= 3 && EqualFold(name[:3], "If-"):
		return false
	}
	for _, s := range [...]string{"Expires", "HTTP2-Settings", "Max-Forwards", "Pragma", "Range", "Warning", "WWW-Authenticate"} {
		if EqualFold(name, s) {
			return false
		}
	}
	return true
}
