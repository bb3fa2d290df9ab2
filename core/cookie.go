package core

import "bytes"

// Cookie is the value of the first cookie of a name in a request, without quotes around it; ok is false when there is none. What
// has no "=" is no cookie (RFC 6265, 4.2.1). The value is valid until the message is edited.
func (m *Message) Cookie(name string) (value []byte, ok bool) {
	value, n := m.cookie(name)
	return value, n > 0
}

// cookie finds a cookie in all Cookie lines: the value of the first, and how many there are of that name.
func (m *Message) cookie(name string) (value []byte, n int) {
	for i := range m.fields {
		f := &m.fields[i]
		if f.removed || f.ID != FieldCookie {
			continue
		}
		for line := m.value(f); len(line) > 0; {
			var pair []byte
			pair, line, _ = bytes.Cut(line, []byte{';'})
			k, v, is := bytes.Cut(pair, []byte{'='})
			if !is || string(bytes.Trim(k, " \t")) != name {
				continue
			}
			if n++; n == 1 {
				value = bytes.Trim(v, " \t")
				if l := len(value); l >= 2 && value[0] == '"' && value[l-1] == '"' {
					value = value[1 : l-1]
				}
			}
		}
	}
	return value, n
}
