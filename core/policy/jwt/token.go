package jwt

import (
	"encoding/base64"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// token is a JWS in compact form (RFC 7515, 7.1), read but not believed.
type token struct {
	signed    string // header and claims as they were signed
	signature []byte
	alg, kid  string
	typ       string // "": it does not say
	claims    core.Claims
}

const (
	maxTokenBytes = core.MaxTokenBytes
	maxKeyID      = 256
)

// read takes a token apart. Where it could be read in two ways it is refused: base64url is canonical (RFC 7515, 2), no name stands
// twice, text is UTF-8. Of the header only alg, kid, typ, crit and b64 are looked at: keys that a token brings along (jwk, jku,
// x5c, x5u) prove nothing.
func read(s string) (t token, ok bool) {
	if len(s) > maxTokenBytes || strings.Count(s, ".") != 2 {
		return t, false
	}
	last := strings.LastIndexByte(s, '.')
	t.signed = s[:last]
	head, body, _ := strings.Cut(t.signed, ".")
	header, ok := readPart(head)
	if !ok {
		return t, false
	}
	if _, critical := header["crit"]; critical {
		return t, false // no extension is understood here, so none may be critical (RFC 7515, 4.1.11)
	}
	if _, unencoded := header["b64"]; unencoded {
		return t, false // RFC 7797 wants crit as well: without it two recipients would read two payloads
	}
	if t.alg, ok = header["alg"].(string); !ok {
		return t, false
	}
	if kid, given := header["kid"]; given {
		if t.kid, ok = kid.(string); !ok || t.kid == "" || len(t.kid) > maxKeyID {
			return t, false
		}
	}
	if typ, given := header["typ"]; given {
		if t.typ, ok = typ.(string); !ok {
			return t, false
		}
	}
	if t.claims, ok = readPart(body); !ok {
		return t, false
	}
	t.signature, ok = decode(s[last+1:])
	return t, ok && len(t.signature) > 0
}

// decode takes canonical base64url without padding only. Line ends, which the decoder would skip, are not of its alphabet.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
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
