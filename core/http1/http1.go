// Package http1 speaks HTTP/1.1 (RFC 9112) on both sides of the gateway. Its codec parses a head in one pass into
// the form that all protocols share, and refuses whatever two parties could read in two ways: what is let through is
// read in the same way by every conforming recipient after us. Nothing in the codec allocates, blocks or keeps the
// bytes it was given.
package http1

import "github.com/sluice-gateway/sluice/core"

// Limits bound a head. Both must be above zero.
type Limits struct {
	HeaderBytes int // start line, fields and the empty line after them
	Headers     int // field lines
}

// ParseRequest parses the request head at the start of b into m, which was Reset. n is the head's length; 0 without an
// error means that the head is incomplete, and m must be Reset before the next try. The spans in m count from b[0]:
// Adopt must follow. A wrong line is refused as soon as it is there, not at the end of the head.
func ParseRequest(m *core.Message, b []byte, lim *Limits) (n int, err *core.Error) {
	p := parser{m: m, b: b, maxFields: lim.Headers, watch: watchRequest}
	if len(b) > lim.HeaderBytes {
		p.b = b[:lim.HeaderBytes]
	}
	inLine := true
	n, f := p.requestLine()
	if f == faultNone {
		inLine = false
		if n, f = p.fields(n); f == faultNone {
			f = p.finishRequest()
		}
	}
	switch {
	case f == faultNone:
		return n, nil
	case f != faultMore:
		return 0, requestErrors[f]
	case len(b) < lim.HeaderBytes:
		return 0, nil
	case inLine:
		return 0, requestErrors[faultLineTooLong]
	}
	return 0, requestErrors[faultHeadTooLarge]
}

// ParseResponse parses a response head as ParseRequest does a request head. The framing of an answer to HEAD and of a
// 304 is what the fields say, though no body follows: only the caller knows the request.
func ParseResponse(m *core.Message, b []byte, lim *Limits) (n int, err *core.Error) {
	p := parser{m: m, b: b, maxFields: lim.Headers, watch: watchResponse}
	if len(b) > lim.HeaderBytes {
		p.b = b[:lim.HeaderBytes]
	}
	n, f := p.statusLine()
	if f == faultNone {
		if n, f = p.fields(n); f == faultNone {
			f = p.finishResponse()
		}
	}
	switch {
	case f == faultNone:
		return n, nil
	case f != faultMore:
		return 0, responseErrors[f]
	case len(b) < lim.HeaderBytes:
		return 0, nil
	}
	return 0, responseErrors[faultHeadTooLarge]
}
