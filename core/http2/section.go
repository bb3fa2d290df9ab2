package http2

import "github.com/sluice-gateway/sluice/core"

// Limits bound a field section, as HTTP/1.1 counts it: a field is a line, ": " and CRLF included, and method and path stand in
// a start line. So both protocols refuse the same requests. Both must be above zero.
type Limits struct {
	HeaderBytes int
	Headers     int // fields; the crumbs of Cookie are one
}

// bombFactor says how many times the limits a block may decode to before it is not a large request any more but an
// attack: what an index of one byte stands for costs its sender nothing.
const bombFactor = 8

// mode is what a field section is of.
type mode uint8

const (
	modeRequest mode = iota
	modeResponse
	modeTrailer
)

// plainKinds are the kinds of fields that are handed on as they are.
var plainKinds = [...]uint32{
	modeRequest:  1 << kindPlain,
	modeResponse: 1<<kindPlain | 1<<kindCookie | 1<<kindHost | 1<<kindExpect | 1<<kindAlike | 1<<kindFramingAlike,
	modeTrailer:  0,
}

// Sizes of a start line and of the empty line after the fields, less method and path.
const (
	requestLineBytes  = len("  HTTP/1.1\r\n")
	responseLineBytes = len("HTTP/1.1 200 \r\n")
	endBytes          = len("\r\n")
)

// maxScratch bounds the memory that a section holds on to.
const maxScratch = 64 << 10

// section is a field section under construction. It serves one block after another; the message is not its own.
type section struct {
	m      *core.Message
	lim    Limits
	mode   mode
	plain  uint32 // of plainKinds
	size   int    // so far, as HTTP/1.1 counts
	line   int    // of that, the start line
	count  int    // fields
	seen   uint32 // kinds that have come
	fault  fault
	late   bool   // no pseudo-field may come any more
	scheme string // "http" or "https"

	authority core.Span
	protocol  core.Span

	head    []byte // parts of the start line, then field lines; of a trailer, what the caller gave, and more lines
	cookie  []byte // the value of Cookie, without its last crumb's end
	literal []byte // a field that is being read
}

func (s *section) begin(m *core.Message, lim *Limits, mode mode, head []byte) {
	cookie, literal := s.cookie[:0], s.literal[:0]
	*s = section{} // in place, as Message.Reset
	s.m, s.lim, s.mode, s.plain = m, *lim, mode, plainKinds[mode]
	s.head, s.cookie, s.literal = head, cookie, literal
	switch mode {
	case modeRequest:
		s.line = requestLineBytes
	case modeResponse:
		s.line = responseLineBytes
	}
	s.size = s.line + endBytes
}

// end lets go of what is not the section's own, and of memory that one long block has taken.
func (s *section) end() {
	s.m = nil
	if s.mode == modeTrailer || cap(s.head)+cap(s.cookie)+cap(s.literal) > maxScratch {
		s.head, s.cookie, s.literal = nil, nil, nil
	}
}

// field takes the next field. It is false when the connection must end.
func (s *section) field(e *entry, line []byte) bool {
	if s.plain>>e.kind&1 != 0 && e.fault|s.fault == faultNone {
		s.late = true
		if s.room(len(line), 1) {
			s.add(e, line)
		}
		return true
	}
	if s.fault != faultNone { // for the table only
		s.size += len(line)
		s.count++
		return s.size <= bombFactor*s.lim.HeaderBytes && s.count <= bombFactor*s.lim.Headers
	}
	if s.fault = e.fault; s.fault == faultNone {
		if s.mode == modeTrailer {
			s.fault = s.trailer(e, line)
		} else if s.fault = kindFaults[e.kind]; s.fault == faultNone {
			s.fault = s.special(e, line)
		}
	}
	return true
}

// room takes account of bytes and fields before they are stored.
func (s *section) room(bytes, fields int) bool {
	s.size += bytes
	s.count += fields
	switch {
	case s.line > s.lim.HeaderBytes:
		s.fault = faultTargetTooLong
	case s.size > s.lim.HeaderBytes:
		s.fault = faultTooLarge
	case s.count > s.lim.Headers:
		s.fault = faultTooMany
	default:
		return true
	}
	return false
}

// add stores a line.
func (s *section) add(e *entry, line []byte) {
	start := uint32(len(s.head))
	s.head = append(s.head, line...)
	s.receive(start, e.name, e.id)
}

// receive makes a field of the line that stands at the end of head.
func (s *section) receive(start, name uint32, id core.FieldID) {
	end := uint32(len(s.head))
	s.m.Receive(core.Field{
		Name: core.Span{Start: start, End: start + name}, Value: core.Span{Start: start + name + 2, End: end - 2}, End: end, ID: id,
	})
}

// append stores bytes that are no line.
func (s *section) append(b []byte) core.Span {
	start := uint32(len(s.head))
	s.head = append(s.head, b...)
	return core.Span{Start: start, End: uint32(len(s.head))}
}

// value is that of a line whose name has so many bytes.
func (e *entry) value(line []byte) []byte { return line[e.name+2 : len(line)-2] }

// special takes a field that says something about the message. Its value has been checked by itself.
func (s *section) special(e *entry, line []byte) fault {
	value := e.value(line)
	twice := s.seen>>e.kind&1 != 0
	s.seen |= 1 << e.kind
	switch e.kind {
	case kindMethod, kindScheme, kindAuthority, kindPath, kindProtocol, kindStatus:
		switch {
		case s.late:
			return faultPseudoLate
		case twice:
			return faultPseudoTwice
		case (e.kind == kindStatus) != (s.mode == modeResponse):
			return faultPseudo
		}
		return s.pseudo(e, line)
	}
	s.late = true
	if e.kind == kindCookie {
		return s.crumb(line, value, twice)
	}
	if e.kind == kindHost {
		return s.host(e, line, twice)
	}
	if !s.room(len(line), 1) {
		return s.fault
	}
	switch e.kind {
	case kindContentLength:
		if twice {
			return faultLengths
		}
		s.add(e, line)
		return s.contentLength(value)
	case kindExpect: // a value that is not known is for the caller to answer, with 417
		s.m.Expect100 = (s.m.Expect100 || !twice) && core.EqualFold(value, "100-continue")
		s.add(e, line)
	}
	return faultNone // TE, proxy authentication and look-alikes end here
}

func (s *section) pseudo(e *entry, line []byte) fault {
	m, value := s.m, e.value(line)
	switch e.kind {
	case kindMethod:
		s.line += len(value)
		if s.room(len(value), 0) {
			m.MethodText, m.Method = s.append(value), core.LookupMethod(value)
		}
	case kindPath:
		s.line += len(value)
		if s.room(len(value), 0) {
			m.Target = s.append(value)
		}
	case kindScheme:
		if s.scheme = "http"; len(value) == len("https") {
			s.scheme = "https"
		}
	case kindAuthority: // becomes Host, which is where HTTP/1.1 has it
		if s.room(len("Host: \r\n")+len(value), 1) {
			start := uint32(len(s.head))
			s.head = append(append(s.head, "host"...), line[e.name:]...)
			s.receive(start, uint32(len("host")), core.FieldHost)
			s.authority = core.Span{Start: start + uint32(len("host: ")), End: uint32(len(s.head) - 2)}
			m.HostSpan = s.authority
		}
	case kindProtocol:
		if s.room(len("Upgrade: \r\n")+len(value), 1) {
			s.protocol = s.append(value)
		}
	case kindStatus:
		m.Status = int(value[0]-'0')*100 + int(value[1]-'0')*10 + int(value[2]-'0')
	}
	return s.fault
}

// host takes a Host field: in the place of the authority, or beside it if it says the same.
func (s *section) host(e *entry, line []byte, twice bool) fault {
	if twice {
		return faultHosts
	}
	if s.seen>>kindAuthority&1 == 0 {
		if s.room(len(line), 1) {
			s.m.HostSpan = core.Span{Start: uint32(len(s.head)) + e.name + 2, End: uint32(len(s.head)+len(line)) - 2}
			s.add(e, line)
		}
		return s.fault
	}
	port := "" // CONNECT has no scheme
	switch s.scheme {
	case "http":
		port = "80"
	case "https":
		port = "443"
	}
	if !core.AuthorityAgrees(s.head[s.authority.Start:s.authority.End], e.value(line), port) {
		return faultHostDisagrees
	}
	return faultNone
}

// crumb takes a part of Cookie (RFC 9113, 8.2.3). An empty one says nothing.
func (s *section) crumb(line, value []byte, again bool) fault {
	if !again {
		if s.room(len(line), 1) {
			s.cookie = append(s.cookie, value...)
		}
		return s.fault
	}
	if s.room(len("; ")+len(value), 0) && len(value) > 0 {
		if len(s.cookie) > 0 {
			s.cookie = append(s.cookie, "; "...)
		}
		s.cookie = append(s.cookie, value...)
	}
	return s.fault
}

// contentLength takes digits and nothing else, as in HTTP/1.1 (RFC 9110, 8.6).
func (s *section) contentLength(value []byte) fault {
	if len(value) == 0 || len(value) > 18 { // 18 digits are an exabyte and cannot overflow
		return faultLength
	}
	n := int64(0)
	for _, c := range value {
		if !isDigit(c) {
			return faultLength
		}
		n = n*10 + int64(c-'0')
	}
	s.m.ContentLength = n
	return faultNone
}

func (s *section) trailer(e *entry, line []byte) fault {
	if !s.room(len(line), 1) {
		return s.fault
	}
	keep, f := judgeTrailer(e, line[:e.name])
	if keep {
		s.head = append(s.head, line...)
	}
	return f
}

// finishRequest checks what only the whole section can tell, and completes the message.
func (s *section) finishRequest() fault {
	m := s.m
	if s.seen>>kindCookie&1 != 0 {
		start := uint32(len(s.head))
		s.head = append(append(append(s.head, "cookie: "...), s.cookie...), "\r\n"...)
		s.receive(start, uint32(len("cookie")), core.FieldCookie)
	}
	const target = 1<<kindScheme | 1<<kindPath
	switch {
	case s.seen>>kindMethod&1 == 0:
		return faultPseudoMissing
	case m.Method == core.MethodConnect && s.seen>>kindProtocol&1 == 0:
		return s.finishConnect()
	case s.seen&target != target:
		return faultPseudoMissing
	case m.Method == core.MethodConnect:
		return s.finishExtended()
	case s.seen>>kindProtocol&1 != 0:
		return faultProtocolPlace
	}
	asterisk := s.head[m.Target.Start] == '*'
	switch {
	case asterisk && m.Method != core.MethodOptions:
		return faultTargetForm
	case s.seen&(1<<kindAuthority|1<<kindHost) == 0:
		return faultNoHost
	case m.HostSpan.Start == m.HostSpan.End && !asterisk: // OPTIONS * may do with an empty one
		return faultHost
	}
	return faultNone
}

// finishConnect completes a request for a tunnel to a host (RFC 9113, 8.5).
func (s *section) finishConnect() fault {
	m := s.m
	switch {
	case s.seen&(1<<kindScheme|1<<kindPath) != 0 || !core.HasPort(s.head[s.authority.Start:s.authority.End]):
		return faultConnect
	case m.ContentLength > 0:
		return faultConnectBody
	}
	s.line += int(s.authority.End - s.authority.Start)
	if !s.room(int(s.authority.End-s.authority.Start), 0) {
		return s.fault
	}
	m.Target, m.Authority = s.authority, s.authority
	return faultNone
}

// finishExtended makes of an extended CONNECT (RFC 8441) what it is in HTTP/1.1: a GET that asks for another protocol.
func (s *section) finishExtended() fault {
	m := s.m
	switch {
	case s.seen>>kindAuthority&1 == 0:
		return faultPseudoMissing
	case s.head[m.Target.Start] == '*':
		return faultTargetForm
	case m.ContentLength > 0:
		return faultConnectBody
	}
	m.MethodText, m.Method = s.append([]byte("GET")), core.MethodGet
	m.Upgrade = true
	return faultNone
}

// finishResponse does as HTTP/1.1 does with answers that have no body (RFC 9110, 8.6).
func (s *section) finishResponse() fault {
	m := s.m
	switch {
	case s.seen>>kindStatus&1 == 0:
		return faultPseudoMissing
	case m.Status == 101:
		return faultSwitching // RFC 9113, 8.6
	case m.Status < 200 || m.Status == 204:
		if m.ContentLength > 0 {
			return faultNoContent
		}
		if m.ContentLength == 0 {
			m.ContentLength = -1
			m.Remove(core.FieldContentLength)
		}
	}
	return faultNone
}
