package http2

import (
	"bytes"
	"hash/maphash"
	"strconv"

	"github.com/sluice-gateway/sluice/core"
)

// Fields that the encoder treats in their own way.
const (
	// unsent belong to an HTTP/1.1 connection; Host goes into ":authority".
	unsent core.FieldSet = 1<<core.FieldConnection | 1<<core.FieldHost | 1<<core.FieldKeepAlive | 1<<core.FieldProxyConnection |
		1<<core.FieldTE | 1<<core.FieldTransferEncoding | 1<<core.FieldUpgrade
	// secret are never indexed, here or by those who pass them on (RFC 7541, 7.1.3).
	secret core.FieldSet = 1<<core.FieldAuthorization | 1<<core.FieldCookie | 1<<core.FieldProxyAuthorization | 1<<core.FieldSetCookie
	// fickle are different each time: looking for them in the table would be in vain.
	fickle core.FieldSet = 1<<core.FieldAge | 1<<core.FieldContentLength | 1<<core.FieldDate | 1<<core.FieldETag |
		1<<core.FieldForwarded | 1<<core.FieldLocation | 1<<core.FieldReferer | 1<<core.FieldXForwardedFor | 1<<core.FieldXRealIP |
		1<<core.FieldXRequestID
	// shared are the known fields of requests that may be indexed on a connection on which many clients' requests go: an index
	// shows that somebody has sent the same before, which nobody may learn of a secret (RFC 7541, 7.1).
	shared core.FieldSet = 1<<core.FieldAccept | 1<<core.FieldCacheControl | 1<<core.FieldContentEncoding |
		1<<core.FieldContentType | 1<<core.FieldHost | 1<<core.FieldTE | 1<<core.FieldUserAgent | 1<<core.FieldVia |
		1<<core.FieldXForwardedHost | 1<<core.FieldXForwardedProto
)

const (
	maxIndexedName  = 64
	maxIndexedValue = 512
	encoderSlots    = 128 // a power of two, above what a table of the default size holds
	encoderProbes   = 4   // slots, one after the other, in which an entry may be found
	encoderMemory   = 64  // a power of two: fields that are remembered for when they come again
)

// Representations of a field (RFC 7541, 6.2), with the bits of their prefixes.
const (
	literalPlain   = 0x00
	literalNever   = 0x10
	literalIndexed = 0x40
	literalBits    = 4
	indexedBits    = 6
)

// Encoder encodes the field sections of one connection, in the order in which they are sent. A field enters its table when
// it comes for the second time within a short while, so that values which change each time push nothing out. What
// enters is coded by Huffman, once; the rest is sent as it is, for coding costs more than the bytes. In steady
// state it allocates nothing. It is of one loop.
type Encoder struct {
	table   table
	slots   [encoderSlots]uint16  // low bits of an entry's number, by hash; stale ones are found out
	memory  [encoderMemory]uint32 // hashes of fields that have come and are not in the table
	turn    uint8                 // whose highest bit chooses the place in memory
	least   int                   // smallest table size since the last block
	resized bool
	scratch []byte
}

// NewEncoder gives the encoder of a connection whose peer has announced nothing yet.
func NewEncoder() *Encoder {
	e := &Encoder{}
	e.table.max = defaultTableBytes
	e.table.first, e.table.next = 1, 1 // an empty slot leads to entry 0, which there is none of
	return e
}

// SetMaxTable takes note of the peer's SETTINGS_HEADER_TABLE_SIZE. More than the default is not used.
func (e *Encoder) SetMaxTable(n int) {
	n = max(0, min(n, defaultTableBytes))
	if n == e.table.max {
		return
	}
	if !e.resized || n < e.least {
		e.least = n
	}
	e.resized = true
	e.table.resize(n)
}

// sizes announces changes of the table's size (RFC 7541, 4.2): the last, and before it, if it was smaller meanwhile, that. None
// is smaller still, and the only smaller one that every decoder takes before another.
func (e *Encoder) sizes(dst []byte) []byte {
	if !e.resized {
		return dst
	}
	e.resized = false
	if e.least < e.table.max {
		size := e.table.max
		e.table.resize(0)
		e.table.resize(size)
		dst = append(dst, 0x20)
	}
	return appendInt(dst, 0x20, 5, e.table.max)
}

// AppendResponse appends the field block of a response. Content-Length is added if m.ContentLength says so and no line
// does.
func (e *Encoder) AppendResponse(dst []byte, m *core.Message) []byte {
	dst = e.sizes(dst)
	switch m.Status {
	case 200:
		dst = append(dst, 0x80|staticStatus)
	case 204:
		dst = append(dst, 0x80|staticStatus+1)
	case 206:
		dst = append(dst, 0x80|staticStatus+2)
	case 304:
		dst = append(dst, 0x80|staticStatus+3)
	case 400:
		dst = append(dst, 0x80|staticStatus+4)
	case 404:
		dst = append(dst, 0x80|staticStatus+5)
	case 500:
		dst = append(dst, 0x80|staticStatus+6)
	default:
		dst = append(dst, literalPlain|staticStatus, 3, byte('0'+m.Status/100), byte('0'+m.Status/10%10), byte('0'+m.Status%10))
	}
	length := m.ContentLength >= 0 && m.Status >= 200 && m.Status != 204
	m.All(func(id core.FieldID, name, value []byte) bool {
		if unsent>>id&1 == 0 {
			dst = e.field(dst, id, name, value, true)
			length = length && id != core.FieldContentLength
		}
		return true
	})
	if length {
		dst = appendContentLength(dst, m.ContentLength)
	}
	return dst
}

// AppendRequest appends the field block of a request: of one with m.Protocol, an extended CONNECT (RFC 8441). scheme is "http" or
// "https". A nil authority stands for m's Host, and with CONNECT for where the tunnel leads (RFC 9113, 8.5); a nil path for m's path and
// query.
func (e *Encoder) AppendRequest(dst []byte, m *core.Message, scheme string, authority, path []byte) []byte {
	dst = e.sizes(dst)
	connect := m.Method == core.MethodConnect
	if authority == nil && !connect {
		authority = m.Get(core.FieldHost)
	}
	if authority == nil {
		authority = m.Host()
	}
	switch {
	case m.Protocol != nil:
		dst = append(append(dst, literalPlain|staticGet, byte(len("CONNECT"))), "CONNECT"...)
		dst = append(append(dst, literalPlain, byte(len(":protocol"))), ":protocol"...)
		dst = appendString(dst, m.Protocol)
	case m.Method == core.MethodGet:
		dst = append(dst, 0x80|staticGet)
	case m.Method == core.MethodPost:
		dst = append(dst, 0x80|staticPost)
	default:
		dst = appendString(append(dst, literalPlain|staticGet), m.MethodBytes())
	}
	if !connect {
		if scheme == "https" {
			dst = append(dst, 0x80|staticHTTPS)
		} else {
			dst = append(dst, 0x80|staticHTTP)
		}
	}
	dst = e.field(dst, core.FieldHost, nil, authority, false)
	if !connect {
		dst = appendPath(dst, m, path)
	}
	omit, tunnel := unsent, m.AsksTunnel()
	if tunnel { // no body: what comes is not to be measured by a length
		omit |= 1 << core.FieldContentLength
	}
	length := m.ContentLength >= 0 && !tunnel
	m.All(func(id core.FieldID, name, value []byte) bool {
		if m.Protocol != nil && id == core.FieldOther && core.EqualFold(name, core.WebSocketKeyField) {
			return true // it has no place here (RFC 8441, 5)
		}
		if omit>>id&1 == 0 {
			dst = e.field(dst, id, name, value, false)
			length = length && id != core.FieldContentLength
		}
		return true
	})
	if length {
		dst = appendContentLength(dst, m.ContentLength)
	}
	if connect { // after a tunnel there is no trailer section
		return dst
	}
	return e.field(dst, core.FieldTE, nil, trailers, false) // gRPC servers insist on it, and we do pass trailers on
}

// trailers is the value of TE.
var trailers = []byte("trailers")

func appendPath(dst []byte, m *core.Message, path []byte) []byte {
	var query []byte
	n := len(path)
	if path == nil {
		path, query = m.Path, m.Query
		if n = len(path); query != nil {
			n += 1 + len(query)
		}
	}
	if n == 1 && path[0] == '/' {
		return append(dst, 0x80|staticRoot)
	}
	dst = appendInt(append(dst, literalPlain|staticRoot), 0, 7, n)
	dst = append(dst, path...)
	if query != nil {
		dst = append(append(dst, '?'), query...)
	}
	return dst
}

func appendContentLength(dst []byte, n int64) []byte {
	dst = appendInt(dst, literalPlain, literalBits, int(knownFields[core.FieldContentLength].static))
	at := len(dst)
	dst = strconv.AppendInt(append(dst, 0), n, 10)
	dst[at] = byte(len(dst) - at - 1)
	return dst
}

// AppendTrailer appends the field block of a trailer section, of which lines are those of core.Message.Trailer.
func (e *Encoder) AppendTrailer(dst []byte, lines []byte) []byte {
	dst = e.sizes(dst)
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n') + 1
		line := bytes.TrimRight(lines[:max(end, 0)], "\r\n")
		if end == 0 { // not a whole line: none of ours
			return dst
		}
		lines = lines[end:]
		name, value, _ := bytes.Cut(line, []byte{':'})
		if id := core.LookupField(name); unsent>>id&1 == 0 {
			dst = e.field(dst, id, name, bytes.Trim(value, " \t"), true)
		}
	}
	return dst
}

// field appends one field. The name of a known field is not looked at; alone says that the connection is one client's.
func (e *Encoder) field(dst []byte, id core.FieldID, name, value []byte, alone bool) []byte {
	var buf [maxIndexedName]byte
	f := &knownFields[id]
	static := f.static
	may := shared>>id&1 != 0 || alone && (secret|fickle)>>id&1 == 0
	if f.name == nil {
		if len(name) > maxIndexedName {
			return appendString(appendLower(append(dst, literalPlain), name), value)
		}
		name = lower(buf[:len(name)], name)
		static = lookupStatic(name)
		may = alone || shareable(static, name)
	} else {
		name = f.name
	}
	switch {
	case secret>>id&1 != 0:
		return appendLiteral(dst, literalNever, static, name, value)
	case !may || len(value) > maxIndexedValue || e.table.max == 0:
		return appendLiteral(dst, literalPlain, static, name, value)
	}
	h := maphash.Bytes(seed, value) + uint64(id)*0x9e3779b97f4a7c15
	if f.name == nil {
		h ^= maphash.Bytes(seed, name)
	}
	hash := uint32(h >> 32)
	if index := e.find(hash, name, value); index > 0 {
		return appendInt(dst, 0x80, 7, index)
	}
	slot := e.slot(hash)
	if slot == nil || !e.recall(hash) {
		return appendLiteral(dst, literalPlain, static, name, value)
	}
	e.insert(slot, hash, name, value)
	if static > 0 {
		return appendShort(appendInt(dst, literalIndexed, indexedBits, int(static)), value)
	}
	return appendShort(appendShort(append(dst, literalIndexed), name), value)
}

// recall says whether a field has come before, and else remembers it, in one of two places: two fields that share one of them do
// not push each other out for ever.
func (e *Encoder) recall(hash uint32) bool {
	places := [2]*uint32{&e.memory[hash%encoderMemory], &e.memory[hash>>16%encoderMemory]}
	for _, p := range places {
		if *p == hash {
			*p = 0
			return true
		}
	}
	e.turn = e.turn*141 + 3 // a row of numbers without a rhythm that fields could fall into
	*places[e.turn>>7] = hash
	return false
}

// seed makes the hashes those of this process.
var seed = maphash.MakeSeed()

// find gives the index of a field in the table, 0 when it is not there.
func (e *Encoder) find(hash uint32, name, value []byte) int {
	for probe := range uint32(encoderProbes) {
		age := uint32(uint16(e.table.next) - e.slots[(hash+probe)%encoderSlots])
		if age == 0 || age > uint32(e.table.count()) {
			continue
		}
		f := e.table.at(int(age))
		if f.hash != hash || int(f.name) != len(name) {
			continue
		}
		line := e.table.line(f)
		if string(f.value(line)) == string(value) && string(line[:f.name]) == string(name) {
			return staticCount + int(age)
		}
	}
	return 0
}

// slot gives a slot for an entry that is to come, nil while all that it could have lead to others: an entry that cannot be
// found again would only push others out.
func (e *Encoder) slot(hash uint32) *uint16 {
	for probe := range uint32(encoderProbes) {
		at := (hash + probe) % encoderSlots
		age := uint32(uint16(e.table.next) - e.slots[at])
		if age == 0 || age > uint32(e.table.count()) || (at-e.table.at(int(age)).hash)%encoderSlots >= encoderProbes {
			return &e.slots[at]
		}
	}
	return nil
}

func (e *Encoder) insert(slot *uint16, hash uint32, name, value []byte) {
	e.scratch = append(append(append(e.scratch[:0], name...), ": "...), value...)
	e.scratch = append(e.scratch, "\r\n"...)
	if e.table.insert(entry{hash: hash, name: uint32(len(name))}, e.scratch) {
		*slot = uint16(e.table.next - 1)
	}
}

// appendLiteral appends a field as it is, its name by an index of the static table if that is not 0.
func appendLiteral(dst []byte, form byte, static uint8, name, value []byte) []byte {
	if static > 0 {
		return appendString(appendInt(dst, form, literalBits, int(static)), value)
	}
	return appendString(appendString(append(dst, form), name), value)
}

// appendLower appends a string literal in lower case.
func appendLower(dst, name []byte) []byte {
	dst = appendString(dst, name)
	lower(dst[len(dst)-len(name):], name)
	return dst
}

// shareable says which unknown names may be indexed where many clients' requests go.
func shareable(static uint8, name []byte) bool {
	if static > 0 {
		return static == 15 || static == 16 || static == 17 // accept-charset, -encoding, -language
	}
	switch string(name) {
	case "grpc-accept-encoding", "grpc-encoding":
		return true
	}
	return false
}
