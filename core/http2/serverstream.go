package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// serverStream is one request of a client: the downstream side of its exchange. Its task serves the exchange.
type serverStream struct {
	stream
	server  *Server
	run     func()      // serve, bound once
	refusal *core.Error // the request is malformed

	answered bool // an answer has begun
	broken   bool // a panic happened: nothing of it is to be trusted
}

// serve takes the exchange through the gateway.
func (t *serverStream) serve() {
	s := t.server
	t.broken = true
	t.attempt()
	if t.broken {
		t.apologize()
		return
	}
	s.put(t)
}

// attempt is serve until a panic, which it ends.
func (t *serverStream) attempt() {
	x, w := t.x, t.server.worker
	defer func() {
		if !t.broken {
			return
		}
		if p := recover(); p != nil {
			w.Loop.Panicked(p)
		} else { // Goexit: nothing comes after this
			w.Abandon(x)
			t.end()
		}
	}()
	switch {
	case t.gone != nil: // before it began: no upstream need know
		w.Refuse(x, core.ErrClientGone)
	case t.refusal != nil:
		w.Refuse(x, t.refusal)
	default:
		w.Serve(x)
	}
	w.End(x)
	t.leave(CodeInternal, CodeNo) // the rest of the body is not wanted (RFC 9113, 8.1)
	t.broken = false
}

// apologize answers 500 after a panic, unless an answer has begun, and ends the stream.
func (t *serverStream) apologize() {
	defer t.end()
	if w := t.server.worker; t.answered || t.gone != nil {
		w.Abandon(t.x)
	} else {
		w.Apologize(t.x)
	}
}

// end ends the stream after a panic: its memory is not used again, because others may still work for it.
func (t *serverStream) end() {
	code := CodeInternal
	if t.finished {
		code = CodeNo
	}
	t.conn.cut(t.id, code, core.ErrInternal)
	t.leave(code, code)
	t.server.streams--
}

// beginBody prepares for the body that follows a request's head.
func (t *serverStream) beginBody(m *core.Message) *core.Error {
	l := t.x.Listener
	t.prioritise(m)
	t.receiveTimeout, t.sendTimeout = int64(l.BodyTimeout), int64(l.WriteTimeout)
	if m.AsksTunnel() { // what comes is the tunnel's
		t.connected = true
		return nil
	}
	if !m.GRPC { // whose streams may be silent for long, and be read as slowly as an application likes
		t.receivePace, t.sendPace = l.MinRate.NewPace(l.MinRate.Receive), l.MinRate.NewPace(l.MinRate.Send)
	}
	t.declared = m.ContentLength
	if t.ended {
		if t.declared > 0 {
			return errLength
		}
		m.Body = nil
		return nil
	}
	m.Body, m.Chunked = t, t.declared < 0
	return nil
}

var errLength = &core.Error{Status: 400, Reason: "bad_request", Detail: "body differs from Content-Length"}

// Next gives what has come of the request's body.
func (t *serverStream) Next() (core.Piece, error) {
	p, err := t.next()
	if err != nil {
		return p, err
	}
	x := t.x
	x.Sent.RequestBody += t.lent
	if p.Last {
		x.ReceiveTrailer(t.trailer)
	}
	if x.BodyLimit > 0 && x.Sent.RequestBody > x.BodyLimit {
		return p, core.ErrBodyTooLarge
	}
	return p, nil
}

// Conn is nil: no exchange of HTTP/2 has a connection of its own. A tunnel is the stream itself.
func (t *serverStream) Conn() *loop.Conn { return nil }

// Buffered is nil, as Conn.
func (t *serverStream) Buffered() []byte { return nil }

// Interim sends a 1xx answer.
func (t *serverStream) Interim(x *core.Exchange) *core.Error {
	if x.Response.Status == 101 {
		return nil
	}
	return t.sendHead(&x.Response, false)
}

// Respond sends the answer.
func (t *serverStream) Respond(x *core.Exchange) *core.Error {
	m := &x.Response
	if t.gone != nil {
		return core.ErrClientGone
	}
	t.answered = true
	if t.refusal != nil && t.refusal.Status == 400 { // malformed: an error of the stream (RFC 9113, 8.1.1)
		t.conn.resetStream(t.id, CodeProtocol)
		return nil
	}
	if x.OpensTunnel() {
		return t.openTunnel(m)
	}
	if t.connected && m.Status/100 == 2 && m.Body != nil { // made here: the client would take it for its tunnel (RFC 8441, 5)
		x.Fail(errNoTunnel)
	}
	t.reprioritise(m)
	if m.Body == nil || x.Request.Method == core.MethodHead || m.Status == 204 || m.Status == 304 {
		return t.sendHead(m, true)
	}
	if err := t.sendHead(m, false); err != nil {
		return err
	}
	err := t.relay(m, &x.Sent.ResponseBody)
	if err != nil && !t.finished && t.gone == nil {
		t.conn.cut(t.id, CodeInternal, err) // the body is cut off, and the client must see it
	}
	return err
}

// openTunnel accepts an extended CONNECT (RFC 8441, 5): what HTTP/1.1 says with 101 and more is a plain 200 here.
func (t *serverStream) openTunnel(m *core.Message) *core.Error {
	m.Remove(core.FieldContentLength)
	m.RemoveName(core.WebSocketAcceptField)
	m.ContentLength = -1
	status := m.Status
	m.Status = 200
	err := t.sendHead(m, false)
	m.Status = status
	return err
}

// sendHead sends a header block: a 1xx answer, or the answer's head.
func (t *serverStream) sendHead(m *core.Message, end bool) *core.Error {
	b, start, err := t.beginBlock()
	if err != nil {
		return err
	}
	b = t.conn.encoder.AppendResponse(b, m)
	t.endBlock(b, start, end)
	t.x.Sent.ResponseHead += int64(len(b) - start)
	return nil
}
