package core

import (
	"bytes"
	"strings"
)

// Carrier is where requests carry a credential: in a header, a cookie or an argument of the query, under any of these names. The first of
// the three places that has one counts. Immutable.
type Carrier struct {
	Headers   []string // in any case; empty: not in a header
	Scheme    string   // that Authorization begins with, in any case (RFC 9110, 11.4); "": it has the credential alone, as other headers have
	Schemed   bool     // the scheme is before the credential in every header
	Cookies   []string // empty: not in a cookie
	Arguments []string // empty: not in the query
}

// Find gives the credential, which is valid until the request is edited. n is how many the place has that carries one: of
// several nobody can say which counts, so whoever asks refuses them. The same one under two names is one. An argument that is
// named is private wherever the credential is found.
func (c *Carrier) Find(m *Message) (value []byte, n int) {
	for _, name := range c.Arguments {
		v, k := m.Argument(name)
		value, n = join(value, n, v, k)
	}
	if v, k := c.cookie(m); k > 0 {
		value, n = v, k
	}
	if v, k := c.header(m); k > 0 {
		value, n = v, k
	}
	return value, n
}

// join adds the k of another name to the n of those before.
func join(value []byte, n int, v []byte, k int) ([]byte, int) {
	switch {
	case n == 0:
		return v, k
	case n == 1 && k == 1 && bytes.Equal(value, v):
		return value, 1
	}
	return value, n + k
}

func (c *Carrier) cookie(m *Message) (value []byte, n int) {
	for _, name := range c.Cookies {
		v, k := m.cookie(name)
		value, n = join(value, n, v, k)
	}
	return value, n
}

func (c *Carrier) header(m *Message) (value []byte, n int) {
	for _, name := range c.Headers {
		v, k := c.lines(m, name)
		value, n = join(value, n, v, k)
	}
	return value, n
}

// lines counts those of the name; if none has the scheme, no credential is there.
func (c *Carrier) lines(m *Message, name string) (value []byte, n int) {
	ours := false
	for i := range m.fields {
		f := &m.fields[i]
		if f.removed || !EqualFold(m.name(f), name) {
			continue
		}
		n++
		if v, ok := c.withoutScheme(name, m.value(f)); ok {
			value, ours = v, true
		}
	}
	if !ours {
		return nil, 0
	}
	return value, n
}

func (c *Carrier) withoutScheme(name string, v []byte) ([]byte, bool) {
	if c.Scheme == "" || !c.Schemed && !strings.EqualFold(name, FieldAuthorization.String()) {
		return v, true
	}
	n := len(c.Scheme)
	if len(v) < n || !EqualFold(v[:n], c.Scheme) {
		return nil, false
	}
	if len(v) == n {
		return v[n:], true
	}
	return bytes.TrimLeft(v[n:], " "), v[n] == ' '
}

// Hide takes the credential out of the request that is forwarded, from every place that may carry it.
func (c *Carrier) Hide(m *Message) {
	for _, name := range c.Headers {
		for i := range m.fields {
			f := &m.fields[i]
			if f.removed || !looksLike(m.name(f), name) {
				continue
			}
			if _, ours := c.withoutScheme(name, m.value(f)); ours {
				f.removed = true
			}
		}
	}
	if len(c.Cookies) > 0 {
		m.removeCookies(c.Cookies)
	}
	for _, name := range c.Arguments {
		m.RemoveArgument(name)
	}
}

// RemoveLike removes every line whose name could be taken for this one, such as x_user for X-User.
func (h *Header) RemoveLike(name string) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && looksLike(h.name(f), name) {
			f.removed = true
		}
	}
}

// removeCookies writes the Cookie lines that have one of the cookies anew, without them.
func (m *Message) removeCookies(names []string) {
	for i, all := 0, len(m.fields); i < all; i++ {
		f := &m.fields[i]
		if f.removed || f.ID != FieldCookie || !mentions(m.value(f), names) {
			continue
		}
		line := m.Begin(FieldCookie.String())
		start := line.f.Value.Start
		for rest := m.value(f); len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			k, _, _ := bytes.Cut(pair, []byte{'='})
			if pair = bytes.Trim(pair, " \t"); len(pair) == 0 || among(names, bytes.Trim(k, " \t")) {
				continue
			}
			if uint32(len(m.arena)) > start {
				line.String("; ")
			}
			line.Bytes(pair)
		}
		f.removed = true
		if uint32(len(m.arena)) == start {
			m.arena = m.arena[:line.f.Name.Start]
			continue
		}
		line.End(FieldCookie)
	}
}

// mentions says whether any of the names is part of line.
func mentions(line []byte, names []string) bool {
	for _, name := range names {
		if bytes.Contains(line, []byte(name)) {
			return true
		}
	}
	return false
}

// among says whether b is one of the names.
func among(names []string, b []byte) bool {
	for _, name := range names {
		if string(b) == name {
			return true
		}
	}
	return false
}

// Challenge fails x because nobody has proved to be somebody who may, and says how he could (RFC 9110, 11.6.1). challenge is
// a value of WWW-Authenticate.
func (x *Exchange) Challenge(err *Error, challenge string) Verdict {
	x.Fail(err)
	line := x.Response.Begin("WWW-Authenticate")
	line.String(challenge)
	line.End(FieldOther)
	return Respond
}
