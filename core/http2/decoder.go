package http2

import "github.com/sluice-gateway/sluice/core"

// maxTableBytes bounds the dynamic tables that we keep for a peer.
const maxTableBytes = 64 << 10

// Decoder decodes the field blocks of one connection, in the order in which they came (RFC 7541). Its table holds each field as
// a line of HTTP/1.1 that has been checked, so that a field which comes as an index is checked by nobody again and
// copied once. In steady state it allocates nothing. It is of one loop.
type Decoder struct {
	table    table
	limit    int // of the table's size, as announced
	section  *section
	upstream bool // it reads what an upstream says
}

// Scratch is the memory in which the decoders of one loop build a message, one after another.
type Scratch struct{ section section }

// NewDecoder gives the decoder of a connection on which maxTable was announced as SETTINGS_HEADER_TABLE_SIZE, or nothing.
// Less than the default is taken for the default, which the peer may use until it knows better.
func NewDecoder(maxTable int) *Decoder {
	d := &Decoder{limit: min(max(maxTable, defaultTableBytes), maxTableBytes)}
	d.table.max = defaultTableBytes
	return d
}

// Use makes d build messages in memory that it shares with others of its loop. Without it d has its own.
func (d *Decoder) Use(s *Scratch) { d.section = &s.section }

// DecodeRequest decodes the whole field block of a request into m, which was Reset, and leaves it as the parser of HTTP/1.1
// and the removal of hop-by-hop fields do: the head is kept by m, Host stands first whether it came as a field or as
// ":authority", Cookie is one line. An extended CONNECT (RFC 8441) is a GET with Upgrade and Protocol set. Whether a body
// follows, and so Chunked, is for the caller to say, who knows END_STREAM. scheme is "http", "https", or empty for CONNECT.
//
// err is a *core.Error if the request alone is refused: the decoder is in step and the connection can go on; m has been
// Reset. It is a *ConnError if the connection must end.
func (d *Decoder) DecodeRequest(m *core.Message, block []byte, lim *Limits) (scheme string, err error) {
	s := d.begin(m, lim, modeRequest, nil)
	defer s.end()
	if broken := d.walk(block, s); broken != nil {
		m.Reset()
		return "", broken
	}
	if s.fault == faultNone {
		s.fault = s.finishRequest()
	}
	if s.fault != faultNone {
		m.Reset()
		return "", requestErrors[s.fault]
	}
	m.Keep(s.head)
	if m.Upgrade {
		m.Protocol = m.Bytes(s.protocol)
	}
	return s.scheme, nil
}

// DecodeResponse decodes the whole field block of a response, interim or final, into m. Errors are as with DecodeRequest.
func (d *Decoder) DecodeResponse(m *core.Message, block []byte, lim *Limits) error {
	d.upstream = true
	s := d.begin(m, lim, modeResponse, nil)
	defer s.end()
	if broken := d.walk(block, s); broken != nil {
		m.Reset()
		return broken
	}
	if s.fault == faultNone {
		s.fault = s.finishResponse()
	}
	if s.fault != faultNone {
		m.Reset()
		return responseErrors[s.fault]
	}
	m.Keep(s.head)
	return nil
}

// DecodeTrailer decodes the whole field block of a trailer section and appends its lines to dst, less those that have no
// place in one. Errors are as with DecodeRequest; the blame falls on the upstream if the decoder has read responses.
func (d *Decoder) DecodeTrailer(dst []byte, block []byte, lim *Limits) ([]byte, error) {
	s := d.begin(nil, lim, modeTrailer, dst)
	defer s.end()
	if broken := d.walk(block, s); broken != nil {
		return dst, broken
	}
	switch {
	case s.fault == faultNone:
		return s.head, nil
	case d.upstream:
		return dst, responseErrors[s.fault]
	}
	return dst, requestErrors[s.fault]
}

func (d *Decoder) begin(m *core.Message, lim *Limits, mode mode, head []byte) *section {
	if d.section == nil {
		d.section = &section{}
	}
	if mode != modeTrailer {
		head = d.section.head[:0]
	}
	d.section.begin(m, lim, mode, head)
	return d.section
}

// walk decodes the representations of a block (RFC 7541, 6).
func (d *Decoder) walk(b []byte, s *section) *ConnError {
	for i, fields := 0, false; i < len(b); {
		c := b[i]
		switch {
		case c >= 0x80: // indexed field
			n := int(c & 0x7f)
			if i++; n == 0x7f {
				if n, i = readInt(b, i-1, 7); i == 0 {
					return errInteger
				}
			}
			e, line := d.lookup(n)
			if e == nil {
				return errIndex
			}
			if !s.field(e, line) {
				return errBomb
			}
			fields = true
		case c>>5 == 1: // size update
			n, next := readInt(b, i, 5)
			switch {
			case next == 0:
				return errInteger
			case fields:
				return errLateResize
			case n > d.limit:
				return errTableSize
			}
			d.table.resize(n)
			i = next
		default:
			e := entry{}
			next, broken := d.literal(&e, b, i, s)
			if broken != nil {
				return broken
			}
			if c >= 0x40 {
				d.table.insert(e, s.literal)
			}
			if !s.field(&e, s.literal) {
				return errBomb
			}
			i, fields = next, true
		}
	}
	return nil
}

// lookup gives the field with an index, nil when there is none (RFC 7541, 2.3.3). The line is valid until the next insert.
func (d *Decoder) lookup(n int) (*entry, []byte) {
	if n <= staticCount {
		if n == 0 {
			return nil, nil
		}
		e := &staticEntries[n]
		return &e.entry, e.line
	}
	if n -= staticCount; n > d.table.count() {
		return nil, nil
	}
	e := d.table.at(n)
	return e, d.table.line(e)
}

// literal reads the field whose representation starts at b[i] (RFC 7541, 6.2), and leaves its line in s.literal.
func (d *Decoder) literal(e *entry, b []byte, i int, s *section) (next int, broken *ConnError) {
	prefix := uint(4)
	if b[i] >= 0x40 {
		prefix = 6
	}
	n, i := readInt(b, i, prefix)
	if i == 0 {
		return 0, errInteger
	}
	line := s.literal[:0]
	if n > 0 {
		named, of := d.lookup(n)
		if named == nil {
			return 0, errIndex
		}
		line = append(line, of[:named.name+2]...)
		e.name, e.kind, e.id = named.name, named.kind, named.id
	} else {
		if line, i = readString(line, b, i); i == 0 {
			return 0, errString
		}
		e.name = uint32(len(line))
		e.kind, e.id = classify(line)
		line = append(line, ": "...)
	}
	if line, i = readString(line, b, i); i == 0 {
		return 0, errString
	}
	e.fault = e.kind.check(line[e.name+2:])
	s.literal = append(line, "\r\n"...)
	e.size = uint32(len(s.literal))
	return i, nil
}
