package http2

import "github.com/sluice-gateway/sluice/core"

// defaultTableBytes is the size of a dynamic table until its encoder says otherwise (RFC 9113, 6.5.2).
const defaultTableBytes = 4096

// entry is a field of a table, with what was found out about it when it came in.
type entry struct {
	start uint32 // of the field's line, counted from the first byte the table ever held
	size  uint32 // of the line
	name  uint32 // length of the name
	hash  uint32 // of name and value; the encoder's
	kind  kind
	fault fault // what is wrong with the value
	id    core.FieldID
}

// overhead is what RFC 7541, 4.1 adds to an entry's name and value, less the ": " and the CRLF of its line.
const overhead = 32 - 4

// table is a dynamic table (RFC 7541, 2.3.2) of fields in the form of HTTP/1.1 lines. Its memory grows with what is in it,
// to four times its maximum size at most.
type table struct {
	ring  []entry // its length is a power of two
	first uint32  // number of the oldest entry: entry n is ring[n % len(ring)]
	next  uint32  // number of the next one to come
	bytes []byte  // the lines of the entries, in order, after those that are gone
	base  uint32  // start of bytes[0]
	size  int     // as RFC 7541, 4.1 counts
	max   int
}

func (t *table) count() int { return int(t.next - t.first) }

// at gives an entry by its age: 1 is the newest.
func (t *table) at(age int) *entry { return &t.ring[(t.next-uint32(age))&uint32(len(t.ring)-1)] }

// line is valid until the next insert.
func (t *table) line(e *entry) []byte {
	start := e.start - t.base
	return t.bytes[start : start+e.size : start+e.size]
}

// resize sets the maximum size.
func (t *table) resize(max int) {
	t.max = max
	t.evict(0)
}

// evict makes room for an entry of that size (RFC 7541, 4.3 and 4.4).
func (t *table) evict(size int) {
	for t.first != t.next && t.size+size > t.max {
		t.size -= int(t.at(t.count()).size) + overhead
		t.first++
	}
}

// insert adds e with its line, which must not be one of the table's own. An entry that is larger than the table empties
// it, and false is said.
func (t *table) insert(e entry, line []byte) bool {
	size := len(line) + overhead
	t.evict(size)
	if size > t.max {
		return false
	}
	if t.count() == len(t.ring) {
		t.growRing()
	}
	t.reserve(len(line))
	e.start, e.size = t.base+uint32(len(t.bytes)), uint32(len(line))
	t.bytes = append(t.bytes, line...)
	t.ring[t.next&uint32(len(t.ring)-1)] = e
	t.next++
	t.size += size
	return true
}

func (t *table) growRing() {
	ring := make([]entry, max(16, 2*len(t.ring)))
	for n := t.first; n != t.next; n++ {
		ring[n&uint32(len(ring)-1)] = t.ring[n&uint32(len(t.ring)-1)]
	}
	t.ring = ring
}

// reserve makes room for n more bytes. The living lines move to the front at most once for as many bytes as they are.
func (t *table) reserve(n int) {
	if len(t.bytes)+n <= cap(t.bytes) {
		return
	}
	gone := len(t.bytes)
	if t.first != t.next {
		gone = int(t.at(t.count()).start - t.base)
	}
	alive := t.bytes[gone:]
	room := max(cap(t.bytes), 512)
	for room < 2*(len(alive)+n) {
		room *= 2
	}
	if room > cap(t.bytes) {
		t.bytes = append(make([]byte, 0, room), alive...)
	} else {
		t.bytes = t.bytes[:copy(t.bytes, alive)]
	}
	t.base += uint32(gone)
}
