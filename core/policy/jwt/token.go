package jwt

import (
	"encoding/base64"
	"strings"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
)

// token is a JWS in compact form (RFC 7515, 7.1), read but not believed.
type token struct {
	header
	signed    string // header and claims as they were signed
	signature []byte
	claims    core.Claims
}

// header is what a token says of its signature.
type header struct {
	alg, kid string
	typ      string // "": it does not say
}

const (
	maxTokenBytes = core.MaxTokenBytes
	maxKeyID      = 256
)

// reader reads tokens. It knows the last header: all that one key has signed have the same, letter by letter. It may be used by several
// goroutines.
type reader struct{ last atomic.Pointer[knownHeader] }

type knownHeader struct {
	text string // encoded
	header
}

// read takes a token apart. Where it could be read in two ways it is refused: base64url is canonical (RFC 7515, 2), no name stands
// twice, text is UTF-8.
func (r *reader) read(s string) (t token, ok bool) {
	if len(s) > maxTokenBytes || strings.Count(s, ".") != 2 {
		return t, false
	}
	last := strings.LastIndexByte(s, '.')
	t.signed = s[:last]
	head, body, _ := strings.Cut(t.signed, ".")
	if known := r.last.Load(); known != nil && known.text == head {
		t.header = known.header
	} else {
		if t.header, ok = readHeader(head); !ok {
			return t, false
		}
		r.last.Store(&knownHeader{strings.Clone(head), t.header})
	}
	if t.claims, ok = readPart(body); !ok {
		return t, false
	}
	t.signature, ok = decode(s[last+1:])
	return t, ok && len(t.signature) > 0
}

// readHeader looks at alg, kid, typ, crit and b64 only: keys that a token brings along (jwk, jku, x5c, x5u) prove nothing.
func readHeader(s string) (h header, ok bool) {
	claims, ok := readPart(s)
	if !ok {
		return h, false
	}
	if _, critical := claims["crit"]; critical {
		return h, false // no extension is understood here, so none may be critical (RFC 7515, 4.1.11)
	}
	if _, unencoded := claims["b64"]; unencoded {
		return h, false // RFC 7797 wants crit as well: without it two recipients would read two payloads
	}
	if h.alg, ok = claims["alg"].(string); !ok {
		return h, false
	}
	if kid, given := claims["kid"]; given {
		if h.kid, ok = kid.(string); !ok || h.kid == "" || len(h.kid) > maxKeyID {
			return h, false
		}
	}
	if typ, given := claims["typ"]; given {
		if h.typ, ok = typ.(string); !ok {
			return h, false
		}
	}
	return h, true
}

// decode takes canonical base64url without padding only. Line ends, which the decoder would skip, are not of its alphabet.
func decode(s string) ([]byte, bool) {
	if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// readPart reads a part that is a JSON object.
func readPart(s string) (core.Claims, bool) {
	b, ok := decode(s)
	if !ok {
		return nil, false
	}
	return core.ReadClaims(b)
}
