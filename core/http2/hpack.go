package http2

// appendInt appends an integer with a prefix of so many bits, the others of the first byte being those of first (RFC
// 7541, 5.1).
func appendInt(dst []byte, first byte, bits uint, v int) []byte {
	limit := 1<<bits - 1
	if v < limit {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// maxIntBytes bounds what follows the prefix of an integer: 28 bits are more than any length or index here.
const maxIntBytes = 4

// readInt reads the integer whose first byte is b[i]. next is 0 when it breaks off or is too long.
func readInt(b []byte, i int, bits uint) (v, next int) {
	limit := 1<<bits - 1
	if v = int(b[i]) & limit; v < limit {
		return v, i + 1
	}
	i++
	for shift := 0; shift < 7*maxIntBytes && i < len(b); shift += 7 {
		c := b[i]
		i++
		v += int(c&0x7f) << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, 0
}

// appendString appends a string literal as it is.
func appendString(dst, s []byte) []byte { return append(appendInt(dst, 0, 7, len(s)), s...) }

// appendShort appends a string literal in its shorter form.
func appendShort(dst, s []byte) []byte {
	if n := huffmanSize(s); n < len(s) {
		return appendHuffman(appendInt(dst, 0x80, 7, n), s)
	}
	return appendString(dst, s)
}

// readString appends the string literal that starts at b[i] to dst. next is 0 when it is malformed.
func readString(dst, b []byte, i int) (_ []byte, next int) {
	if i >= len(b) {
		return dst, 0
	}
	coded := b[i]&0x80 != 0
	n, i := readInt(b, i, 7)
	if i == 0 || n > len(b)-i {
		return dst, 0
	}
	if !coded {
		return append(dst, b[i:i+n]...), i + n
	}
	dst, ok := decodeHuffman(dst, b[i:i+n])
	if !ok {
		return dst, 0
	}
	return dst, i + n
}

// staticFields is the static table (RFC 7541, appendix A); index 0 is none.
var staticFields = [...][2]string{
	{},
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
	{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
	{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
	{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
}

// staticCount is the index of the static table's last entry; the dynamic one begins after it.
const staticCount = len(staticFields) - 1

// The entries of the static table that are used by their index.
const (
	staticAuthority = 1
	staticGet       = 2
	staticPost      = 3
	staticRoot      = 4
	staticHTTP      = 6
	staticHTTPS     = 7
	staticStatus    = 8
)

// staticEntry is a field of the static table in the form of the dynamic one.
type staticEntry struct {
	entry
	line []byte
}

var staticEntries = func() (t [staticCount + 1]staticEntry) {
	for i := 1; i <= staticCount; i++ {
		name, value := staticFields[i][0], staticFields[i][1]
		e := &t[i]
		e.line = []byte(name + ": " + value + "\r\n")
		e.size, e.name = uint32(len(e.line)), uint32(len(name))
		e.kind, e.id = classify([]byte(name))
		e.fault = e.kind.check([]byte(value))
	}
	return t
}()
