package http2

import "github.com/sluice-gateway/sluice/core"

// dictionary reads the structured field that a Priority value is (RFC 8941, 4.2.2): what is not one is refused as a whole. Nothing is
// copied.
type dictionary struct{ rest []byte }

type itemKind uint8

const (
	itemNone itemKind = iota // malformed
	itemInteger
	itemBoolean
	itemOther // a decimal, string, token, byte sequence or list
)

// item is the value of a member.
type item struct {
	kind   itemKind
	number int64 // of an integer; of a boolean 0 or 1
}

// is takes c if it comes next.
func (d *dictionary) is(c byte) bool {
	if len(d.rest) == 0 || d.rest[0] != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

func (d *dictionary) skip(c byte) {
	for d.is(c) {
	}
}

// while takes the bytes that in holds for.
func (d *dictionary) while(in func(byte) bool) []byte {
	n := 0
	for n < len(d.rest) && in(d.rest[n]) {
		n++
	}
	p := d.rest[:n]
	d.rest = d.rest[n:]
	return p
}

// key is nil if none comes (RFC 8941, 4.2.3.3).
func (d *dictionary) key() []byte {
	if len(d.rest) == 0 || !isLower(d.rest[0]) && d.rest[0] != '*' {
		return nil
	}
	return d.while(func(c byte) bool {
		return isLower(c) || isDigit(c) || c == '_' || c == '-' || c == '.' || c == '*'
	})
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func isAlpha(c byte) bool { return isLower(c | 0x20) }

// separator takes what stands between members. It is false if there is something else, or nothing follows it (RFC 8941, 4.2.2).
func (d *dictionary) separator() bool {
	d.blanks()
	if len(d.rest) == 0 {
		return true
	}
	if !d.is(',') {
		return false
	}
	d.blanks()
	return len(d.rest) > 0
}

func (d *dictionary) blanks() { d.while(func(c byte) bool { return c == ' ' || c == '\t' }) }

// parameters takes those of a member (RFC 8941, 4.2.3.2). None of a priority's has any that mean something.
func (d *dictionary) parameters() bool {
	for d.is(';') {
		d.skip(' ')
		if d.key() == nil || d.is('=') && d.bare().kind == itemNone {
			return false
		}
	}
	return true
}

// member is an item or an inner list (RFC 8941, 4.2.1.1).
func (d *dictionary) member() item {
	if !d.is('(') {
		return d.bare()
	}
	for {
		d.skip(' ')
		if d.is(')') {
			return item{kind: itemOther}
		}
		if d.bare().kind == itemNone || !d.parameters() {
			return item{}
		}
		if len(d.rest) == 0 || d.rest[0] != ' ' && d.rest[0] != ')' {
			return item{}
		}
	}
}

// bare is an item without its parameters (RFC 8941, 4.2.3.1).
func (d *dictionary) bare() item {
	if len(d.rest) == 0 {
		return item{}
	}
	ok := true
	switch c := d.rest[0]; {
	case c == '-' || isDigit(c):
		return d.number()
	case d.is('?'):
		switch {
		case d.is('0'):
			return item{kind: itemBoolean}
		case d.is('1'):
			return item{kind: itemBoolean, number: 1}
		}
		return item{}
	case d.is('"'):
		ok = d.text()
	case d.is(':'):
		d.while(func(c byte) bool { return isAlpha(c) || isDigit(c) || c == '+' || c == '/' || c == '=' })
		ok = d.is(':')
	case isAlpha(c) || c == '*':
		d.while(func(c byte) bool { return core.TokenClass(c) != 0 || c == ':' || c == '/' })
	default:
		ok = false
	}
	if !ok {
		return item{}
	}
	return item{kind: itemOther}
}

// number is an integer or a decimal (RFC 8941, 4.2.4): 15 digits, or 12 and 1 to 3 after the point.
func (d *dictionary) number() item {
	minus := d.is('-')
	digits := d.while(isDigit)
	if len(digits) == 0 || len(digits) > 15 {
		return item{}
	}
	if d.is('.') {
		if n := len(d.while(isDigit)); n == 0 || n > 3 || len(digits) > 12 {
			return item{}
		}
		return item{kind: itemOther}
	}
	n := int64(0)
	for _, c := range digits {
		n = n*10 + int64(c-'0')
	}
	if minus {
		n = -n
	}
	return item{kind: itemInteger, number: n}
}

// text is the rest of a string (RFC 8941, 4.2.5).
func (d *dictionary) text() bool {
	for len(d.rest) > 0 {
		c := d.rest[0]
		d.rest = d.rest[1:]
		switch {
		case c == '"':
			return true
		case c == '\\':
			if !d.is('"') && !d.is('\\') {
				return false
			}
		case c < 0x20 || c > 0x7e:
			return false
		}
	}
	return false
}
