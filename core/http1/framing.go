package http1

import "github.com/sluice-gateway/sluice/core"

// The fields of a request and of a response that decide where the message ends and what becomes of the connection.
const (
	watchBoth     core.FieldSet = 1<<core.FieldContentLength | 1<<core.FieldTransferEncoding | 1<<core.FieldConnection | 1<<core.FieldUpgrade
	watchRequest                = watchBoth | 1<<core.FieldHost | 1<<core.FieldExpect
	watchResponse               = watchBoth
)

// maxOptions bounds the work of removing what Connection names.
const maxOptions = 64

// field takes note of a watched field.
func (p *parser) field(id core.FieldID, start, end int) fault {
	m, value := p.m, p.b[start:end]
	before := p.seen
	p.seen |= 1 << id
	switch id {
	case core.FieldHost:
		if before>>core.FieldHost&1 != 0 {
			return faultHosts
		}
		m.HostSpan = span(start, end)
		if len(value) > 0 && !core.ValidAuthority(value) { // an empty one is judged at the end
			return faultHost
		}
	case core.FieldContentLength:
		if before>>core.FieldContentLength&1 != 0 {
			return faultLengths
		}
		if before>>core.FieldTransferEncoding&1 != 0 {
			return faultLengthAndCoding
		}
		return p.contentLength(value)
	case core.FieldTransferEncoding:
		if before>>core.FieldTransferEncoding&1 != 0 {
			return faultCodings
		}
		if before>>core.FieldContentLength&1 != 0 {
			return faultLengthAndCoding
		}
		if m.HTTP10 {
			return faultCodingVersion
		}
		m.Chunked = true
		return transferCoding(value)
	case core.FieldConnection:
		return p.connection(value)
	case core.FieldUpgrade:
		p.tunnel = (p.tunnel || before>>core.FieldUpgrade&1 == 0) && mayUpgrade(value)
	case core.FieldExpect: // a value that is not known is for the caller to answer, with 417
		m.Expect100 = (m.Expect100 || before>>core.FieldExpect&1 == 0) && core.EqualFold(value, "100-continue")
	}
	return faultNone
}

// contentLength takes digits and nothing else (RFC 9110, 8.6). A list of equal numbers may be accepted by the RFC, but
// not every recipient takes it for one number.
func (p *parser) contentLength(value []byte) fault {
	if len(value) == 0 || len(value) > 18 { // 18 digits are an exabyte and cannot overflow
		return faultLength
	}
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' {
			return faultLength
		}
		n = n*10 + int64(c-'0')
	}
	p.m.ContentLength = n
	return faultNone
}

// transferCoding accepts "chunked" alone (RFC 9112, 6.1 and 7). Other codings are well-formed and unknown, or a riddle.
func transferCoding(value []byte) fault {
	if core.EqualFold(value, "chunked") {
		return faultNone
	}
	for more := true; more; {
		element, rest := nextElement(value)
		more, value = rest != nil, rest
		name := element
		for i, c := range element {
			if c == ';' {
				name = trim(element[:i])
				break
			}
		}
		if !core.ValidToken(name) {
			return faultCoding
		}
		if core.EqualFold(name, "chunked") && (more || len(name) != len(element)) {
			return faultCoding // applied twice, not last, or with parameters
		}
	}
	return faultUnknownCoding
}

// connection reads the options (RFC 9110, 7.6.1). One that is no token names no field and means nothing.
func (p *parser) connection(value []byte) fault {
	m := p.m
	switch {
	case core.EqualFold(value, "keep-alive"):
		m.KeepAlive = true
		return faultNone
	case core.EqualFold(value, "close"):
		m.Close = true
		return faultNone
	}
	for len(value) > 0 {
		var option []byte
		option, value = nextElement(value)
		if p.options++; p.options > maxOptions {
			return faultOptions
		}
		switch {
		case core.EqualFold(option, "close"):
			m.Close = true
		case core.EqualFold(option, "keep-alive"):
			m.KeepAlive = true
		case core.EqualFold(option, "upgrade"):
			p.upgrade = true
		}
	}
	return faultNone
}

// mayUpgrade is false for h2c: through such a tunnel requests would pass that nobody here has looked at.
func mayUpgrade(value []byte) bool {
	if len(value) == 0 {
		return false
	}
	for len(value) > 0 {
		var protocol []byte
		protocol, value = nextElement(value)
		for i, c := range protocol {
			if c == '/' {
				protocol = protocol[:i]
				break
			}
		}
		if !core.ValidToken(protocol) || core.EqualFold(protocol, "h2c") || core.EqualFold(protocol, "h2") ||
			core.EqualFold(protocol, "http") || core.EqualFold(protocol, "tls") {
			return false
		}
	}
	return true
}

// finishRequest checks what only the whole head can tell.
func (p *parser) finishRequest() fault {
	m := p.m
	host := p.b[m.HostSpan.Start:m.HostSpan.End]
	switch {
	case p.seen>>core.FieldHost&1 == 0:
		if !m.HTTP10 {
			return faultNoHost
		}
	case m.Authority.End > m.Authority.Start:
		if !core.AuthorityAgrees(p.b[m.Authority.Start:m.Authority.End], host, p.port) {
			return faultHostDisagrees
		}
	case len(host) == 0 && !m.HTTP10 && p.b[m.Target.Start] != '*':
		return faultHost // the http scheme needs an authority (RFC 9110, 4.2.1); OPTIONS * may do without
	}
	if m.Method == core.MethodConnect && (m.Chunked || m.ContentLength > 0) {
		return faultConnectBody // RFC 9110, 9.3.6: it has none, and what follows is the tunnel's
	}
	if m.HTTP10 && p.seen>>core.FieldExpect&1 != 0 { // which does not have it (RFC 9110, 10.1.1)
		m.Expect100 = false
		m.Remove(core.FieldExpect)
	}
	p.finish()
	return faultNone
}

// finishResponse settles the framing of responses that cannot have a body. RFC 9112, 6.1 and RFC 9110, 8.6 forbid a
// server to announce one with 1xx and 204; whether bytes follow then is a guess, so it is refused. The exception is
// "Content-Length: 0", which is common, harmless, and not forwarded.
func (p *parser) finishResponse() fault {
	m := p.m
	if m.Status < 200 || m.Status == 204 {
		if m.Chunked || m.ContentLength > 0 {
			return faultNoContent
		}
		if m.ContentLength == 0 {
			m.ContentLength = -1
			m.Remove(core.FieldContentLength)
		}
	}
	p.finish()
	if m.Status == 101 && !m.Upgrade {
		return faultSwitching
	}
	m.Upgrade = m.Status == 101
	return faultNone
}

// finish settles what becomes of the connection (RFC 9112, 9.3); HTTP/1.0 knows no Upgrade (RFC 9110, 7.8), and a
// CONNECT asks for a tunnel already.
func (p *parser) finish() {
	m := p.m
	m.Upgrade = p.upgrade && p.tunnel && !m.HTTP10 && m.Method != core.MethodConnect
	if m.HTTP10 && !m.KeepAlive {
		m.Close = true
	}
}
