package core

import "bytes"

// Cookie is the value of the first cookie of a name in a request, without quotes around it; ok is false when there is none. What
// has no "=" is no cookie (RFC 6265, 4.2.1). The value is valid until the message is edited.
func (m *Message) Cookie(name string) (value []byte, ok bool) {
	m.All(func(id FieldID, _, line []byte) bool {
		if id == FieldCookie {
			value, ok = cookieIn(line, name)
		}
		return !ok
	})
	return value, ok
}

func cookieIn(line []byte, name string) ([]byte, bool) {
	for len(line) > 0 {
		var pair []byte
		pair, line, _ = bytes.Cut(line, []byte{';'})
		key, value, is := bytes.Cut(pair, []byte{'='})
		if !is || string(bytes.Trim(key, " \t")) != name {
			continue
		}
		value = bytes.Trim(value, " \t")
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		return value, true
	}
	return nil, false
}
