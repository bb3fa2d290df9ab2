package http1

import "github.com/sluice-gateway/sluice/core"

// parser is the state of one pass over a head. It lives on the stack of the caller.
type parser struct {
	m         *core.Message
	b         []byte
	maxFields int
	watch     core.FieldSet // the fields that say something about framing or the connection
	seen      core.FieldSet // those of them that have come
	options   int           // in Connection
	upgrade   bool          // Connection: upgrade
	tunnel    bool          // an Upgrade field that may be obeyed
	port      string        // default port of an absolute-form target's scheme
}

// requestLine parses "method SP target SP version CRLF" (RFC 9112, 3). One empty line before it is skipped
// (RFC 9112, 2.2): more of them are not the work of an old client.
func (p *parser) requestLine() (int, fault) {
	b, i := p.b, 0
	if len(b) > 0 && b[0] == '\r' {
		if len(b) < 2 {
			return 0, faultMore
		}
		if b[1] != '\n' {
			return 0, faultBareCR
		}
		i = 2
	}
	start := i
	for i < len(b) && core.TokenClass(b[i]) != 0 {
		i++
	}
	if i == len(b) {
		return 0, faultMore
	}
	if i == start || b[i] != ' ' {
		return 0, faultRequestLine
	}
	m := p.m
	m.MethodText = span(start, i)
	m.Method = core.LookupMethod(b[start:i])
	i++
	start = i
	i = core.ScanTarget(b, i)
	if i == len(b) {
		return 0, faultMore
	}
	if f := targetEnd(b[i]); f != faultNone {
		return 0, f
	}
	if i == start {
		return 0, faultRequestLine
	}
	m.Target = span(start, i)
	next, f := p.version(i + 1)
	if f == faultNone {
		next, f = crlf(b, next)
	}
	if f != faultNone {
		return 0, f
	}
	if v := b[i+1:]; v[5] != '1' || v[7] > '1' {
		return 0, faultVersion
	}
	return next, p.targetForm()
}

// targetEnd is the fault of a byte that ends a target.
func targetEnd(c byte) fault {
	switch c {
	case ' ':
		return faultNone
	case '#':
		return faultFragment
	case '\r', '\n':
		return faultRequestLine
	}
	return faultTarget
}

// version reads "HTTP/" DIGIT "." DIGIT. Which versions will do is for the caller to say, once the line is whole.
func (p *parser) version(i int) (int, fault) {
	const form = "HTTP/d.d"
	b := p.b
	if i+len(form) <= len(b) && string(b[i:i+len(form)]) == "HTTP/1.1" {
		return i + len(form), faultNone
	}
	for k := range len(form) {
		if i+k >= len(b) {
			return 0, faultMore
		}
		if c := b[i+k]; c != form[k] && (form[k] != 'd' || c < '0' || c > '9') {
			return 0, faultRequestLine
		}
	}
	p.m.HTTP10 = string(b[i+5:i+8]) == "1.0"
	return i + len(form), faultNone
}

func crlf(b []byte, i int) (int, fault) {
	switch {
	case i >= len(b):
		return 0, faultMore
	case b[i] == '\n':
		return 0, faultBareLF
	case b[i] != '\r':
		return 0, faultRequestLine
	case i+1 >= len(b):
		return 0, faultMore
	case b[i+1] != '\n':
		return 0, faultBareCR
	}
	return i + 2, faultNone
}

// targetForm checks the four forms of a target against the method (RFC 9112, 3.2).
func (p *parser) targetForm() fault {
	m := p.m
	t := p.b[m.Target.Start:m.Target.End]
	switch {
	case m.Method == core.MethodConnect:
		if !core.ValidAuthority(t) || !core.HasPort(t) {
			return faultTargetForm
		}
		m.Authority = m.Target
	case t[0] == '/':
	case len(t) == 1 && t[0] == '*':
		if m.Method != core.MethodOptions {
			return faultTargetForm
		}
	default:
		return p.absoluteForm(t)
	}
	return faultNone
}

func (p *parser) absoluteForm(t []byte) fault {
	start := 0
	switch {
	case len(t) > 7 && core.EqualFold(t[:7], "http://"):
		start, p.port = 7, "80"
	case len(t) > 8 && core.EqualFold(t[:8], "https://"):
		start, p.port = 8, "443"
	default:
		return faultTargetForm
	}
	end := start
	for end < len(t) && t[end] != '/' && t[end] != '?' {
		end++
	}
	if !core.ValidAuthority(t[start:end]) {
		return faultAuthority
	}
	first := int(p.m.Target.Start)
	p.m.Authority = span(first+start, first+end)
	return faultNone
}

// statusLine parses "version SP status SP [reason] CRLF" (RFC 9112, 4). The second SP may be missing when there is no
// reason: many servers leave it out, and the line has one meaning all the same.
func (p *parser) statusLine() (int, fault) {
	b, m := p.b, p.m
	i, f := p.version(0)
	if f == faultRequestLine {
		return 0, faultStatusLine
	}
	if f != faultNone {
		return 0, f
	}
	if b[5] != '1' || b[7] > '1' {
		return 0, faultVersion
	}
	if i+4 >= len(b) { // a byte after the status is needed in any case
		return 0, p.shortStatus(i)
	}
	d1, d2, d3 := b[i+1]-'0', b[i+2]-'0', b[i+3]-'0'
	if b[i] != ' ' || d1 < 1 || d1 > 5 || d2 > 9 || d3 > 9 {
		return 0, faultStatusLine
	}
	m.Status = int(d1)*100 + int(d2)*10 + int(d3)
	i += 4
	if b[i] == ' ' {
		i++
	} else if b[i] != '\r' {
		return 0, faultStatusLine
	}
	start := i
	i = core.ScanText(b, i)
	m.Reason = span(start, i)
	return endOfLine(b, i, faultStatusLine)
}

// shortStatus tells a status line that breaks off early from one that is wrong already.
func (p *parser) shortStatus(i int) fault {
	for k, c := range p.b[i:] {
		if k == 0 && c != ' ' || k > 0 && (c < '0' || c > '9') {
			return faultStatusLine
		}
	}
	return faultMore
}

// endOfLine checks the CRLF at i where scanText stopped.
func endOfLine(b []byte, i int, wrong fault) (int, fault) {
	if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
		return i + 2, faultNone
	}
	switch {
	case i >= len(b):
		return 0, faultMore
	case b[i] == '\n':
		return 0, faultBareLF
	case b[i] != '\r':
		return 0, wrong
	case i+1 >= len(b):
		return 0, faultMore
	}
	return 0, faultBareCR
}
