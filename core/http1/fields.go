package http1

import (
	"math/bits"

	"github.com/sluice-gateway/sluice/core"
)

// fields parses the field lines from i on and the empty line that ends them (RFC 9112, 5). It gives the head's length.
func (p *parser) fields(i int) (int, fault) {
	b := p.b
	for count := 0; ; count++ {
		if i < len(b) && b[i] == '\r' {
			return endOfLine(b, i, faultName)
		}
		name := i
		colon, id, f := scanName(b, i)
		if f != faultNone {
			return 0, f
		}
		start := colon + 1
		for start < len(b) && isBlank(b[start]) {
			start++
		}
		end := core.ScanText(b, start)
		if i, f = endOfLine(b, end, faultValue); f != faultNone {
			return 0, f
		}
		for end > start && isBlank(b[end-1]) {
			end--
		}
		if count == p.maxFields {
			return 0, faultTooManyFields
		}
		if id == lookAlike {
			id = core.FieldOther
			if p.watch == watchRequest {
				drop, f := judgeLookAlike(b[name:colon])
				if f != faultNone {
					return 0, f
				}
				if drop {
					continue
				}
			}
		}
		p.m.Receive(core.Field{Name: span(name, colon), Value: span(start, end), End: uint32(i), ID: id})
		if p.watch>>id&1 != 0 {
			if f := p.field(id, start, end); f != faultNone {
				return 0, f
			}
		}
	}
}

// lookAlike stands for a name with bytes that some recipients take for "-".
const lookAlike core.FieldID = 255

// scanName reads a field name and the colon directly after it.
func scanName(b []byte, i int) (colon int, id core.FieldID, f fault) {
	start, classes := i, uint8(0)
	for i < len(b) {
		class := core.TokenClass(b[i])
		if class == 0 {
			break
		}
		classes |= class
		i++
	}
	switch {
	case i == len(b):
		return 0, 0, faultMore
	case b[i] != ':' || i == start:
		return 0, 0, nameFault(b, start, i)
	case classes&core.TokenOdd != 0:
		return i, lookAlike, faultNone
	}
	return i, core.LookupField(b[start:i]), faultNone
}

// nameFault says what is wrong with the name that starts at start, where i is the first byte that is not of a token.
func nameFault(b []byte, start, i int) fault {
	switch c := b[i]; {
	case isBlank(c) && i == start:
		return faultFold
	case isBlank(c):
		return faultSpaceBeforeColon
	case c == '\n':
		return faultBareLF
	case c == '\r' && i+1 == len(b):
		return faultMore
	case c == '\r' && b[i+1] != '\n':
		return faultBareCR
	}
	return faultName
}

// asserted are the fields that upstreams trust because the gateway writes them, or acts on them.
const asserted core.FieldSet = 1<<core.FieldAuthorization | 1<<core.FieldConnection | 1<<core.FieldForwarded |
	1<<core.FieldKeepAlive | 1<<core.FieldProxyAuthorization | 1<<core.FieldProxyConnection | 1<<core.FieldUpgrade |
	1<<core.FieldVia | 1<<core.FieldXForwardedFor | 1<<core.FieldXForwardedHost | 1<<core.FieldXForwardedProto |
	1<<core.FieldXRealIP | 1<<core.FieldXRequestID

// judgeLookAlike finds names such as transfer_encoding: an upstream that maps names to variables reads them as the
// fields that we did not see. Those that concern the framing are refused, those that are trusted are dropped.
// Responses are not mapped in this way.
func judgeLookAlike(name []byte) (drop bool, f fault) {
	if looksLike(name, core.FieldContentLength.String()) || looksLike(name, core.FieldTransferEncoding.String()) {
		return false, faultLookAlike
	}
	return looksLikeOneOf(name, asserted), faultNone
}

func looksLikeOneOf(name []byte, set core.FieldSet) bool {
	for ; set != 0; set &= set - 1 {
		if looksLike(name, core.FieldID(bits.TrailingZeros64(uint64(set))).String()) {
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
			if core.TokenClass(c) != core.TokenOdd && c != '-' {
				return false
			}
		} else if c|0x20 != k|0x20 {
			return false
		}
	}
	return true
}
