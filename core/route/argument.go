package route

import (
	"bytes"

	"github.com/sluice-gateway/sluice/core"
)

// inQuery checks the arguments of a query. They are separated by "&", written as forms are: "+" is a space, and a percent
// sign that begins no triplet stands for itself.
func (f *Field) inQuery(query []byte) bool {
	for len(query) > 0 {
		var arg []byte
		arg, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(arg, []byte{'='})
		if !core.FormDecodesTo(name, f.Name) {
			continue
		}
		switch {
		case f.Op == FieldPresent || f.Op == FieldAbsent:
			return f.Op == FieldPresent
		case f.Op == FieldExact:
			if core.FormDecodesTo(value, f.Value) {
				return true
			}
		default:
			if bytes.IndexByte(value, '%') >= 0 || bytes.IndexByte(value, '+') >= 0 {
				value = core.AppendForm(nil, value)
			}
			if f.Regex.Match(value) {
				return true
			}
		}
	}
	return f.Op == FieldAbsent
}

// inCookies checks the cookies of all Cookie lines.
func (f *Field) inCookies(m *core.Message) bool {
	found := false
	m.Cookies(f.Name, func(value []byte) bool {
		found = f.Op == FieldPresent || f.Op == FieldAbsent || f.equals(value)
		return !found
	})
	return found != (f.Op == FieldAbsent)
}

// isTriplet says whether b begins with a percent triplet (RFC 3986, 2.1).
func isTriplet(b []byte) bool { return len(b) >= 3 && b[0] == '%' && isHex(b[1]) && isHex(b[2]) }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
