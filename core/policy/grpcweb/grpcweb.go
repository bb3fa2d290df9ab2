// Package grpcweb is the policy that lets browsers call gRPC servers: it translates gRPC-Web, binary and text, to gRPC over
// HTTP/2 and back (gRPC's PROTOCOL-WEB.md). The messages stay as they are; what differs is the content type, base64 in the text
// form, and the trailers, which a browser cannot read and so gets at the end of the body.
package grpcweb

import (
	"github.com/sluice-gateway/sluice/core"
)

// Translator is the policy. It is immutable but for the calls that each loop keeps for later, which only that loop touches.
type Translator struct{ free [][]*call }

// New gives a translator for so many loops.
func New(loops int) *Translator { return &Translator{free: make([][]*call, loops)} }

// call is what one translated call needs.
type call struct {
	text     bool
	request  decoder
	response encoder
}

// maxFree bounds the calls that a loop keeps for later.
const maxFree = 64

const (
	webType  = "application/grpc-web"
	textType = "application/grpc-web-text"
	grpcType = "application/grpc"
)

// OnRequest makes a call of gRPC of one of gRPC-Web. Whatever else a request is, it is left alone.
func (t *Translator) OnRequest(x *core.Exchange) core.Verdict {
	m := &x.Request
	format, text, ok := webFormat(m.Get(core.FieldContentType))
	if m.Method != core.MethodPost || !ok {
		return core.Continue
	}
	c := t.take(x.Worker.Loop.Index())
	c.text = text
	setType(m, grpcType, format)
	m.GRPC = true
	if text && m.Body != nil {
		m.Remove(core.FieldContentLength)
		m.ContentLength, m.Chunked = -1, true
		c.request = decoder{body: m.Body}
		m.Body = &c.request
	}
	x.Keep(c)
	return core.Continue
}

// OnResponse makes an answer of gRPC-Web of one of gRPC. What an upstream that is no gRPC server has answered is passed on.
func (t *Translator) OnResponse(x *core.Exchange) {
	c, ok := x.Kept().(*call)
	if !ok {
		return
	}
	m := &x.Response
	kind := m.Get(core.FieldContentType)
	if !core.IsGRPC(kind) {
		return
	}
	to := webType
	if c.text {
		to = textType
	}
	setType(m, to, kind[len(grpcType):])
	m.Remove(core.FieldTrailer)
	if m.Body == nil {
		return // the status stands in the head
	}
	m.Remove(core.FieldContentLength)
	m.ContentLength, m.Chunked = -1, true
	c.response.begin(x, m.Body, c.text)
	m.Body = &c.response
}

// OnEnd takes the call back when nobody reads or sends its bodies any more.
func (t *Translator) OnEnd(x *core.Exchange) {
	c, ok := x.Kept().(*call)
	if !ok {
		return
	}
	c.response.end()
	i := x.Worker.Loop.Index()
	if *c = (call{}); len(t.free[i]) < maxFree {
		t.free[i] = append(t.free[i], c)
	}
}

func (t *Translator) take(loop int) *call {
	free := t.free[loop]
	if n := len(free); n > 0 {
		t.free[loop] = free[:n-1]
		return free[n-1]
	}
	return &call{}
}

// webFormat reads a content type of gRPC-Web: format is what follows the name, such as "+proto".
func webFormat(kind []byte) (format []byte, text, ok bool) {
	if len(kind) < len(webType) || !core.EqualFold(kind[:len(webType)], webType) {
		return nil, false, false
	}
	format = kind[len(webType):]
	suffix := textType[len(webType):]
	if len(format) >= len(suffix) && core.EqualFold(format[:len(suffix)], suffix) {
		format, text = format[len(suffix):], true
	}
	return format, text, len(format) == 0 || format[0] == '+' || format[0] == ';'
}

func setType(m *core.Message, name string, format []byte) {
	line := m.Begin(core.FieldContentType.String())
	line.String(name)
	line.Bytes(format)
	m.Remove(core.FieldContentType)
	line.End(core.FieldContentType)
}
