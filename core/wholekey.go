package core

import (
	"bytes"
	"encoding/binary"
)

// KeyParts are things of a request that tell one client from another, taken whole: keys of what was judged for one of them and must not
// serve another. They may be headers, cookies, arguments of the query, and the client's address. Immutable.
type KeyParts []KeyPart

// Append appends what x has of the parts, so that no two requests that differ in one give the same bytes. credentials is how many of
// them are there that a client sends; ok is false where one stands there twice: who comes behind us may take the other. The query
// is private if a part of it counts. It allocates nothing in steady state.
func (ps KeyParts) Append(dst []byte, x *Exchange) (key []byte, credentials int, ok bool) {
	for i := range ps {
		var v []byte
		n := 0
		switch m := &x.Request; ps[i].Kind {
		case KeyHeader:
			v, n = m.only(ps[i].Name)
		case KeyCookie:
			v, n = m.cookie(ps[i].Name)
		case KeyQuery:
			v, n = m.Argument(ps[i].Name)
		case KeyIP:
			dst = appendWhole(dst, x.Client.Text)
			continue
		}
		if n > 1 {
			return dst, credentials, false
		}
		if n == 0 {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff) // no value is as long as that
			continue
		}
		credentials++
		dst = appendWhole(dst, v)
	}
	return dst, credentials, true
}

// AppendRequest appends what is asked for: method, host and target. Requests that differ in one of them differ here.
func AppendRequest(dst []byte, x *Exchange) []byte {
	m := &x.Request
	for _, part := range [...][]byte{m.MethodBytes(), m.Host(), m.Path, m.Query} {
		dst = appendWhole(dst, part)
	}
	return dst
}

func appendWhole(dst, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(v))), v...)
}

// only is the value of the first line of a name, and how many there are of it.
func (h *Header) only(name string) (value []byte, n int) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && EqualFold(h.name(f), name) {
			if n++; n == 1 {
				value = bytes.TrimSpace(h.value(f))
			}
		}
	}
	return value, n
}
