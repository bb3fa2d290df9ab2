package core

import "bytes"

// Cookie is the value of the first cookie of a name in a request, without quotes around it; ok is false when there is none. The
// value is valid until the message is edited.
func (m *Message) Cookie(name string) (value []byte, ok bool) {
	value, n := m.cookie(name)
	return value, n > 0
}

// cookie is the value of the first cookie of a name, and how many there are of it.
func (m *Message) cookie(name string) (value []byte, n int) {
	m.Cookies(name, func(v []byte) bool {
		if n++; n == 1 {
			value = v
		}
		return true
	})
	return value, n
}

// Cookies gives the values of a name in all Cookie lines, without quotes around them, until f returns false. What has no "=" is no
// cookie (RFC 6265, 4.2.1). Values are valid until the message is edited.
func (m *Message) Cookies(name string, f func(value []byte) bool) {
	for i := range m.fields {
		line := &m.fields[i]
		if line.removed || line.ID != FieldCookie {
			continue
		}
		for rest := m.value(line); len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			k, v, is := bytes.Cut(pair, []byte{'='})
			if is && string(bytes.Trim(k, " \t")) == name && !f(unquoted(bytes.Trim(v, " \t"))) {
				return
			}
		}
	}
}

func unquoted(v []byte) []byte {
	if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
		return v[1 : n-1]
	}
	return v
}
