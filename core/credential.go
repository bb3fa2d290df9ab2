package core

import "bytes"

// Carrier is where requests carry a credential. The first of these places that has one counts. Immutable.
type Carrier struct {
	Header string // "": not in a header
	Scheme string // that the header's value begins with, in any case, as in Authorization (RFC 9110, 11.4); "": the value is the credential
	Cookie string // "": not in a cookie
	Query  string // "": not in the query
}

// Find gives the credential, which is valid until the request is edited. n is how many the place has that carries one: of
// several nobody can say which counts, so whoever asks refuses them.
func (c *Carrier) Find(m *Message) (value []byte, n int) {
	if c.Header != "" {
		if value, n = c.header(m); n > 0 {
			return value, n
		}
	}
	if c.Cookie != "" {
		if value, n = m.cookie(c.Cookie); n > 0 {
			return value, n
		}
	}
	if c.Query != "" {
		return m.Argument(c.Query)
	}
	return nil, 0
}

// header counts the lines of the name; if none has the scheme, no credential is there.
func (c *Carrier) header(m *Message) (value []byte, n int) {
	ours := false
	for i := range m.fields {
		f := &m.fields[i]
		if f.removed || !EqualFold(m.name(f), c.Header) {
			continue
		}
		n++
		if v, ok := c.withoutScheme(m.value(f)); ok {
			value, ours = v, true
		}
	}
	if !ours {
		return nil, 0
	}
	return value, n
}

func (c *Carrier) withoutScheme(v []byte) ([]byte, bool) {
	if c.Scheme == "" {
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
	if c.Header != "" {
		for i := range m.fields {
			f := &m.fields[i]
			if f.removed || !looksLike(m.name(f), c.Header) {
				continue
			}
			if _, ours := c.withoutScheme(m.value(f)); ours {
				f.removed = true
			}
		}
	}
	if c.Cookie != "" {
		m.removeCookie(c.Cookie)
	}
	if c.Query != "" {
		m.RemoveArgument(c.Query)
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

// removeCookie writes the Cookie lines that have the cookie anew, without it.
func (m *Message) removeCookie(name string) {
	for i, all := 0, len(m.fields); i < all; i++ {
		f := &m.fields[i]
		if f.removed || f.ID != FieldCookie || !bytes.Contains(m.value(f), []byte(name)) {
			continue
		}
		line := m.Begin(FieldCookie.String())
		start := line.f.Value.Start
		for rest := m.value(f); len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			k, _, _ := bytes.Cut(pair, []byte{'='})
			if pair = bytes.Trim(pair, " \t"); len(pair) == 0 || string(bytes.Trim(k, " \t")) == name {
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

// Challenge fails x because nobody has proved to be somebody who may, and says how he could (RFC 9110, 11.6.1). challenge is
// a value of WWW-Authenticate.
func (x *Exchange) Challenge(err *Error, challenge string) Verdict {
	x.Fail(err)
	line := x.Response.Begin("WWW-Authenticate")
	line.String(challenge)
	line.End(FieldOther)
	return Respond
}
