package core

// Span is a run of bytes in a message's head: offsets, so that it stays right when the head is moved.
type Span struct{ Start, End uint32 }

// Field is one field line of a header section.
type Field struct {
	Name, Value Span   // Value is without the white space around it
	End         uint32 // of the line, its CRLF included; the line starts at Name.Start
	ID          FieldID
	added       bool // the bytes are in the arena: an edit of ours
	removed     bool
	gone        bool // it was removed at the mark
}

// Header is the header section of a message: spans into the received head, and edits in an arena beside it. A run of
// lines that nobody edited is sent with one copy. The zero Header is empty and ready.
type Header struct {
	head   []byte // as received
	arena  []byte // lines that were added here
	fields []Field
	own    []byte // memory for a head that is kept
}

// maxKept bounds the memory that an idle Header holds on to.
const maxKept = 8 << 10

// Reset empties h and keeps its memory. The head it pointed to is let go.
func (h *Header) Reset() {
	h.head, h.arena, h.fields = nil, h.arena[:0], h.fields[:0]
	if cap(h.own)+cap(h.arena) > maxKept {
		h.own, h.arena = nil, nil
	}
}

// Keep is Adopt with a copy, for a head that outlives the buffer it stands in.
func (h *Header) Keep(head []byte) {
	h.own = append(h.own[:0], head...)
	h.head = h.own
}

// Own makes h independent of the buffer that its head stands in, by a copy.
func (h *Header) Own() { h.Keep(h.head) }

// Receive adds the next field of a parsed head. Adopt must follow before any value is read.
func (h *Header) Receive(f Field) { h.fields = append(h.fields, f) }

// Adopt makes the spans point into head, which must stay untouched as long as h is used.
func (h *Header) Adopt(head []byte) { h.head = head }

// Added says whether there is a field of this name, or of one that resembles it, that was not received.
func (h *Header) Added(name []byte) bool {
	for i := range h.fields {
		if f := &h.fields[i]; f.added && !f.removed && looksLike(name, string(h.name(f))) {
			return true
		}
	}
	return false
}

// Count is the number of lines received and added, removed ones included.
func (h *Header) Count() int { return len(h.fields) }

// Bytes are the bytes of a span of the received head, such as a start line's parts.
func (h *Header) Bytes(s Span) []byte { return h.head[s.Start:s.End] }

func (h *Header) source(f *Field) []byte {
	if f.added {
		return h.arena
	}
	return h.head
}

func (h *Header) value(f *Field) []byte { return h.source(f)[f.Value.Start:f.Value.End] }

func (h *Header) name(f *Field) []byte { return h.source(f)[f.Name.Start:f.Name.End] }

// Get is the first value of a known field, nil when there is none. It is valid until the next edit.
func (h *Header) Get(id FieldID) []byte {
	for i := range h.fields {
		if f := &h.fields[i]; f.ID == id && !f.removed {
			return h.value(f)
		}
	}
	return nil
}

// Has says whether a known field is there.
func (h *Header) Has(id FieldID) bool {
	for i := range h.fields {
		if f := &h.fields[i]; f.ID == id && !f.removed {
			return true
		}
	}
	return false
}

// All walks over the lines that are not removed, in order, until yield returns false.
func (h *Header) All(yield func(id FieldID, name, value []byte) bool) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && !yield(f.ID, h.name(f), h.value(f)) {
			return
		}
	}
}

// Single gives the value of a field that stands there once, and how often it does.
func (h *Header) Single(name string) (value []byte, n int) {
	id := LookupField([]byte(name))
	for i := range h.fields {
		f := &h.fields[i]
		if f.removed || f.ID != id || id == FieldOther && !EqualFold(h.name(f), name) {
			continue
		}
		if n++; n > 1 {
			return nil, n
		}
		value = h.value(f)
	}
	return value, n
}

// Lookup is the first value of a field by name, in any case; ok is false when there is none.
func (h *Header) Lookup(name string) (value []byte, ok bool) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && EqualFold(h.name(f), name) {
			return h.value(f), true
		}
	}
	return nil, false
}

// Remove removes every line of a known field.
func (h *Header) Remove(id FieldID) {
	for i := range h.fields {
		if h.fields[i].ID == id {
			h.fields[i].removed = true
		}
	}
}

// FieldSet is a set of known fields.
type FieldSet uint64

// Fields gives the set of ids.
func Fields(ids ...FieldID) (s FieldSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// RemoveSet removes every line of the fields in s.
func (h *Header) RemoveSet(s FieldSet) {
	for i := range h.fields {
		if s>>h.fields[i].ID&1 != 0 {
			h.fields[i].removed = true
		}
	}
}

// RemoveName removes every line with that name.
func (h *Header) RemoveName(name string) {
	if id := LookupField([]byte(name)); id != FieldOther {
		h.Remove(id)
		return
	}
	for i := range h.fields {
		if f := &h.fields[i]; f.ID == FieldOther && EqualFold(h.name(f), name) {
			f.removed = true
		}
	}
}

// RemoveIf removes the lines for which drop is true.
func (h *Header) RemoveIf(drop func(id FieldID, name []byte) bool) {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && drop(f.ID, h.name(f)) {
			f.removed = true
		}
	}
}

// Add appends a line. The value must hold no control byte: what comes from a peer has been checked by the parser, what
// comes from the configuration by its grammar.
func (h *Header) Add(id FieldID, value []byte) { h.AddName(fieldNames[id], value) }

// AddName appends a line with a name that may be unknown.
func (h *Header) AddName(name string, value []byte) {
	w := h.Begin(name)
	h.arena = append(h.arena, value...)
	w.end()
}

// Set puts one line in the place of all the lines of that field.
func (h *Header) Set(id FieldID, value []byte) {
	w := h.Begin(fieldNames[id]) // first: value may be a line that is replaced
	h.arena = append(h.arena, value...)
	h.Remove(id)
	w.end()
}

// Line is a line under construction: no other edit may come before its End.
type Line struct {
	h    *Header
	f    Field
	name string
}

// Begin starts a line whose value is appended piece by piece.
func (h *Header) Begin(name string) Line {
	start := uint32(len(h.arena))
	h.arena = append(h.arena, name...)
	f := Field{Name: Span{start, uint32(len(h.arena))}, added: true}
	h.arena = append(h.arena, ": "...)
	f.Value.Start = uint32(len(h.arena))
	return Line{h: h, f: f, name: name}
}

// Bytes appends to the value.
func (w *Line) Bytes(b []byte) { w.h.arena = append(w.h.arena, b...) }

// String appends to the value.
func (w *Line) String(s string) { w.h.arena = append(w.h.arena, s...) }

// Buffer lends the arena to a function of the append family; its result goes to SetBuffer.
func (w *Line) Buffer() []byte { return w.h.arena }

// SetBuffer takes the arena back.
func (w *Line) SetBuffer(b []byte) { w.h.arena = b }

// End finishes the line as one of a known or unknown field.
func (w *Line) End(id FieldID) {
	h := w.h
	w.f.ID = id
	w.f.Value.End = uint32(len(h.arena))
	h.arena = append(h.arena, "\r\n"...)
	w.f.End = uint32(len(h.arena))
	h.fields = append(h.fields, w.f)
}

func (w *Line) end() { w.End(LookupField([]byte(w.name))) }

// AppendLines appends the lines that are not removed, each with its CRLF, to dst.
func (h *Header) AppendLines(dst []byte) []byte {
	for i := 0; i < len(h.fields); {
		f := &h.fields[i]
		i++
		if f.removed {
			continue
		}
		end := f.End
		for i < len(h.fields) && !h.fields[i].removed && h.fields[i].added == f.added && h.fields[i].Name.Start == end {
			end = h.fields[i].End
			i++
		}
		dst = append(dst, h.source(f)[f.Name.Start:end]...)
	}
	return dst
}
