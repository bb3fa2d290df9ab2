package core

import "bytes"

// What a target can be refused for.
var (
	errTargetByte      = badTarget("invalid byte in the path")
	errTargetTriplet   = badTarget("invalid percent triplet in the path")
	errTargetForm      = badTarget("target is neither a path nor a URI")
	errTargetAbove     = badTarget("path leads above its root")
	errTargetTraversal = badTarget("disguised dot segment in the path")
)

func badTarget(detail string) *Error {
	return &Error{Status: 400, Reason: "bad_request", Detail: detail, Close: true}
}

// NormalizeTarget sets Path and Query from Target; the head must have been adopted. A path that is normal already is
// a slice of the head, else it is built in m's own memory. What was matched is what is forwarded, so that a path must
// not mean something else to the upstream than to the router (RFC 3986, 6.2.2):
//
//   - dot segments are removed; leading above the root is an error;
//   - duplicate slashes are kept, or merged if mergeSlashes is set;
//   - triplets of unreserved bytes are decoded, the others stay, in upper case;
//   - a segment that hides a dot segment behind %2e, %2f, %5c or a path parameter is an error, for recipients disagree
//     about it; so are a raw backslash, %00, and bytes that cannot be in a path.
//
// The query is left alone. CONNECT has no path: Path is nil.
func (m *Message) NormalizeTarget(mergeSlashes bool) *Error {
	t := m.Bytes(m.Target)
	m.Path, m.Query = nil, nil
	if len(t) == 0 || t[0] != '/' {
		if m.Method == MethodConnect {
			return nil
		}
		if t = m.pathOfURI(t); len(m.Path) > 0 {
			return nil
		}
		if t == nil {
			return errTargetForm
		}
	}
	for i := 0; i < len(t); i++ {
		switch class := pathClass[t[i]]; {
		case class == pathPlain:
		case class == pathBad:
			return errTargetByte
		case class == pathQuery:
			m.Path, m.Query = t[:i], t[i+1:]
			return nil
		case class == pathPercent,
			i+1 < len(t) && (t[i+1] == '.' || t[i+1] == '/' && mergeSlashes): // after a slash
			end := bytes.IndexByte(t, '?')
			if end < 0 {
				end = len(t)
			} else {
				m.Query = t[end+1:]
			}
			return m.rebuildPath(t[:end], mergeSlashes)
		}
	}
	m.Path = t
	return nil
}

// pathOfURI gives the path and query of an absolute-form target, nil for what is none. If the path is empty or the
// target is "*", it sets Path itself, and Query.
func (m *Message) pathOfURI(t []byte) []byte {
	if string(t) == "*" {
		m.Path = t
		return nil
	}
	start := bytes.Index(t, []byte("://"))
	if start < 0 {
		return nil
	}
	t = t[start+3:]
	end := bytes.IndexAny(t, "/?")
	if end >= 0 && t[end] == '/' {
		return t[end:]
	}
	path := byte('/')
	if end >= 0 {
		m.Query = t[end+1:]
	} else if m.Method == MethodOptions {
		path = '*' // RFC 9112, 3.2.4: the last proxy turns it into the asterisk form
	}
	m.pathBuf = append(m.pathBuf[:0], path)
	m.Path = m.pathBuf
	return nil
}

// rebuildPath writes the normal form of p, which starts with a slash and has no query.
func (m *Message) rebuildPath(p []byte, mergeSlashes bool) *Error {
	buf := m.pathBuf[:0]
	defer func() { m.pathBuf = buf }() // in its whole length: SetPath may move it
	for len(p) > 0 {
		end := bytes.IndexByte(p[1:], '/') + 1
		if end == 0 {
			end = len(p)
		}
		segment := p[1:end]
		p = p[end:]
		switch {
		case len(segment) == 0:
			if !mergeSlashes || len(p) == 0 {
				buf = append(buf, '/')
			}
			continue
		case string(segment) == ".":
		case string(segment) == "..":
			if len(buf) == 0 {
				return errTargetAbove
			}
			buf = buf[:bytes.LastIndexByte(buf, '/')]
		default:
			var err *Error
			if buf, err = appendSegment(append(buf, '/'), segment); err != nil {
				return err
			}
			continue
		}
		if len(p) == 0 {
			buf = append(buf, '/') // the last segment names a folder
		}
	}
	m.Path = buf
	return nil
}

// appendSegment appends the normal form of one segment.
func appendSegment(dst, segment []byte) ([]byte, *Error) {
	suspect := false
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		switch pathClass[c] {
		case pathPercent:
			if i+2 >= len(segment) {
				return dst, errTargetTriplet
			}
			high, low := pathHex[segment[i+1]], pathHex[segment[i+2]]
			if high|low > 15 || high|low == 0 {
				return dst, errTargetTriplet
			}
			i += 2
			d := high<<4 | low
			if unreserved(d) {
				suspect = suspect || d == '.'
				dst = append(dst, d)
			} else {
				suspect = suspect || d == '/' || d == '\\' || d == ';'
				dst = append(dst, '%', upperHex[high], upperHex[low])
			}
			continue
		case pathBad:
			return dst, errTargetByte
		}
		suspect = suspect || c == ';'
		dst = append(dst, c)
	}
	if suspect && hidesDots(segment) {
		return dst, errTargetTraversal
	}
	return dst, nil
}

// hidesDots says whether a segment, whose triplets are valid, has a part that is a dot segment for somebody who decodes
// it before he splits it, or who cuts off its parameters.
func hidesDots(segment []byte) bool {
	dots, other, parameter := 0, false, false
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c == '%' {
			c = pathHex[segment[i+1]]<<4 | pathHex[segment[i+2]]
			i += 2
		}
		switch {
		case c == '/' || c == '\\':
			if dots > 0 && dots < 3 && !other {
				return true
			}
			dots, other, parameter = 0, false, false
		case parameter:
		case c == ';':
			parameter = true
		case c == '.':
			dots++
		default:
			other = true
		}
	}
	return dots > 0 && dots < 3 && !other
}

func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~'
}

// Classes of bytes in a path.
const (
	pathPlain = iota
	pathBad
	pathSlash
	pathPercent
	pathQuery
)

var pathClass = func() (t [256]uint8) {
	for c := range t {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '\\' {
			t[c] = pathBad
		}
	}
	t['/'], t['%'], t['?'] = pathSlash, pathPercent, pathQuery
	return t
}()

const upperHex = "0123456789ABCDEF"

// pathHex is the value of a hexadecimal digit, 255 of other bytes.
var pathHex = func() (t [256]uint8) {
	for i := range t {
		t[i] = 255
	}
	for i := range 16 {
		t[upperHex[i]], t["0123456789abcdef"[i]] = uint8(i), uint8(i)
	}
	return t
}()
