package core

import "bytes"

// Argument finds an argument of the query that is a credential, and so makes the query private. The query is written as forms
// are; the value is decoded and valid until the path is edited next. n is how often the name stands there; value is that of the
// first.
func (m *Message) Argument(name string) (value []byte, n int) {
	value, n = m.PlainArgument(name)
	m.Private = m.Private || n > 0
	return value, n
}

// PlainArgument is Argument of what is no credential: the query is logged as any other.
func (m *Message) PlainArgument(name string) (value []byte, n int) {
	for rest := m.Query; len(rest) > 0; {
		var arg []byte
		arg, rest, _ = bytes.Cut(rest, []byte{'&'})
		k, v, _ := bytes.Cut(arg, []byte{'='})
		if !FormDecodesTo(k, name) {
			continue
		}
		if n++; n == 1 {
			value = m.decode(v)
		}
	}
	return value, n
}

// RemoveArgument takes every argument of that name out of the query that is forwarded, however the name is encoded.
func (m *Message) RemoveArgument(name string) {
	if _, n := m.Argument(name); n == 0 {
		return
	}
	start := len(m.pathBuf)
	for rest := m.Query; len(rest) > 0; {
		var arg []byte
		arg, rest, _ = bytes.Cut(rest, []byte{'&'})
		if k, _, _ := bytes.Cut(arg, []byte{'='}); FormDecodesTo(k, name) {
			continue
		}
		if len(m.pathBuf) > start {
			m.pathBuf = append(m.pathBuf, '&')
		}
		m.pathBuf = append(m.pathBuf, arg...)
	}
	if m.Query = m.pathBuf[start:]; len(m.Query) == 0 {
		m.Query = nil
	}
}

// AddArgument appends an argument to the query that is forwarded, written as forms are. What it names is private, as Argument makes it.
func (m *Message) AddArgument(name, value string) {
	start := len(m.pathBuf)
	if len(m.Query) > 0 {
		m.pathBuf = append(append(m.pathBuf, m.Query...), '&')
	}
	m.pathBuf = append(appendEscaped(m.pathBuf, name), '=')
	m.pathBuf = appendEscaped(m.pathBuf, value)
	m.Query, m.Private = m.pathBuf[start:], true
}

// appendEscaped appends what FormDecodesTo takes for s. Only what RFC 3986, 2.3 calls unreserved stands for itself.
func appendEscaped(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// decode gives what b stands for, in the memory of the path.
func (m *Message) decode(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b
	}
	start := len(m.pathBuf)
	m.pathBuf = AppendForm(m.pathBuf, b)
	return m.pathBuf[start:]
}

// AppendForm appends what a name or value of a query stands for, which is written as forms are: "+" is a space, and a percent sign
// that begins no triplet stands for itself.
func AppendForm(dst, b []byte) []byte {
	for len(b) > 0 {
		c, n := formByte(b)
		dst = append(dst, c)
		b = b[n:]
	}
	return dst
}

// FormDecodesTo compares what is written in a query, as forms are, with what it stands for.
func FormDecodesTo(b []byte, want string) bool {
	i := 0
	for len(b) > 0 {
		c, n := formByte(b)
		if i == len(want) || want[i] != c {
			return false
		}
		i++
		b = b[n:]
	}
	return i == len(want)
}

// formByte gives the first byte that b stands for, and how many bytes of b it takes. A percent sign that begins no triplet
// stands for itself.
func formByte(b []byte) (c byte, n int) {
	if b[0] == '+' {
		return ' ', 1
	}
	if len(b) >= 3 && b[0] == '%' {
		high, ok := hexValue(b[1])
		low, also := hexValue(b[2])
		if ok && also {
			return high<<4 | low, 3
		}
	}
	return b[0], 1
}

func hexValue(c byte) (v byte, ok bool) {
	switch l := c | 0x20; {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= l && l <= 'f':
		return l - 'a' + 10, true
	}
	return 0, false
}
