package http2

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// stream is one request of a client: the downstream side of its exchange, and the body of the request. Its task serves the
// exchange; the connection's reader gives it what comes.
type stream struct {
	conn    *conn
	id      uint32
	x       *core.Exchange
	run     func() // serve, bound once
	task    loop.Task
	refusal *core.Error // the request is malformed
	gone    bool        // reset, or its connection is: nothing can be sent or received

	// The body of the request.
	in       []byte // borrowed: room, then what has come and was not taken; nil: nothing
	out      []byte // borrowed: the piece that was taken last
	lent     int64  // bytes of that piece, not yet given back to the client
	credit   int64  // bytes that the client may still send
	returned int64  // bytes used up, not yet given back
	received int64
	declared int64 // Content-Length; -1: none
	ended    bool  // the client has sent all
	drawn    bool  // to the last piece
	trailer  []byte
	reader   loop.Task // waits in Next
	reading  bool

	// The response.
	window   int64
	sender   loop.Task // waits for the window, or for room
	waiting  bool
	stalled  int64 // since when it waits without having sent anything; 0: it does not
	finished bool  // END_STREAM has been sent
	urgency  uint8
}

// room is left before a piece of a request body, for the head of the request that it is sent with.
const room = 1 << 10

// serve takes the exchange through the gateway.
func (t *stream) serve() {
	c, x := t.conn, t.x
	w := c.server.worker
	done := false
	defer func() {
		if !done { // a panic: nothing of the exchange is to be trusted
			w.Abandon(x)
			c.resetStream(t.id, CodeInternal)
			t.leave()
			c.server.counts.Streams--
		}
	}()
	switch {
	case t.gone: // before it began: no upstream need know
		w.Refuse(x, core.ErrClientGone)
	case t.refusal != nil:
		w.Refuse(x, t.refusal)
	default:
		w.Serve(x)
	}
	w.End(x)
	t.leave()
	c.server.returnBody(t.in)
	c.server.returnBody(t.out)
	done = true
	c.server.put(t)
}

// leave ends the stream, whatever state it is in.
func (t *stream) leave() {
	c := t.conn
	if !t.gone {
		switch {
		case !t.finished:
			c.resetStream(t.id, CodeInternal)
		case !t.ended:
			c.resetStream(t.id, CodeNo) // the rest of the body is not wanted (RFC 9113, 8.1)
		default:
			delete(c.streams, t.id)
		}
	}
	c.giveBack(t.lent + t.buffered())
	c.running--
	if c.running == 0 && !c.out.waits() {
		c.rest()
	}
}

// abandon tells the stream's task that nobody waits for it.
func (t *stream) abandon() {
	t.gone = true
	t.task.Hangup()
	if t.reading {
		t.reader.Interrupt(loop.ErrHangup)
	}
}

// Conn is nil: no exchange of HTTP/2 has a connection of its own.
func (t *stream) Conn() *loop.Conn { return nil }

// Buffered is nil, as Conn.
func (t *stream) Buffered() []byte { return nil }

// Interim sends a 1xx answer.
func (t *stream) Interim(x *core.Exchange) *core.Error {
	if x.Response.Status == 101 {
		return nil
	}
	return t.sendHead(&x.Response, false)
}

// Respond sends the answer.
func (t *stream) Respond(x *core.Exchange) *core.Error {
	m := &x.Response
	if t.gone {
		return core.ErrClientGone
	}
	if t.refusal != nil && t.refusal.Status == 400 { // malformed: an error of the stream (RFC 9113, 8.1.1)
		t.conn.resetStream(t.id, CodeProtocol)
		return nil
	}
	if m.Body == nil || x.Request.Method == core.MethodHead || m.Status == 204 || m.Status == 304 {
		return t.sendHead(m, true)
	}
	if err := t.sendHead(m, false); err != nil {
		return err
	}
	return t.relay(x)
}

// relay sends the body as fast as the client takes it. A piece is drawn when some of it can be sent.
func (t *stream) relay(x *core.Exchange) *core.Error {
	m := &x.Response
	for {
		if err := t.sendable(); err != nil {
			return err
		}
		p, err := m.Body.Next()
		if err != nil {
			if err == io.EOF {
				return t.sendData(nil, true)
			}
			t.conn.resetStream(t.id, CodeInternal) // the body is cut off, and the client must see it
			return core.BodyError(err)
		}
		data, trailer := p.Bytes(), m.Trailer
		if err := t.sendData(data, p.Last && len(trailer) == 0); err != nil {
			return err
		}
		x.Sent.ResponseBody += int64(len(data))
		if p.Last {
			if len(trailer) > 0 {
				return t.sendTrailer(trailer)
			}
			return nil
		}
		m.Body.Release() // no buffer is held while the client's window is shut
	}
}
