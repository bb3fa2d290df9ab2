package http1

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// Interim sends a 1xx answer, which only HTTP/1.1 knows.
func (e *exchange) Interim(x *core.Exchange) *core.Error {
	if x.Request.HTTP10 {
		return nil
	}
	return e.sendHead(framingNone, "")
}

// Respond sends the answer, and decides whether the connection goes on afterwards.
func (e *exchange) Respond(x *core.Exchange) *core.Error {
	m := &x.Response
	e.answered = true
	if x.OpensTunnel() {
		return e.switchProtocols(x)
	}
	if x.Request.HTTP10 {
		m.Chunked = false
	}
	f := e.framing(x)
	e.keep = e.mayKeep(x, f)
	connection := ""
	switch {
	case !e.keep:
		connection = "Connection: close\r\n"
	case x.Request.HTTP10:
		connection = "Connection: keep-alive\r\n"
	}
	if f == framingNone || m.Body == nil {
		return e.sendHead(f, connection)
	}
	return e.sendBody(f, connection)
}

// framing decides how the end of the body is shown (RFC 9112, 6.3).
func (e *exchange) framing(x *core.Exchange) framing {
	m := &x.Response
	switch {
	case x.Request.Method == core.MethodHead, m.Status/100 == 1, m.Status == 204, m.Status == 304:
		return framingNone
	case m.Body == nil:
		m.ContentLength = 0
		return framingLength
	case m.ContentLength >= 0 && (x.Request.HTTP10 || !m.HTTP2 || !m.Has(core.FieldTrailer)): // else trailers follow
		return framingLength
	case x.Request.HTTP10:
		return framingClose
	}
	return framingChunked
}

func (e *exchange) mayKeep(x *core.Exchange, f framing) bool {
	m := &x.Request
	if m.Close || x.Worker.Draining() || x.Upstream == nil && x.Response.Close || f == framingClose || e.err != nil || x.Err != nil && x.Err.Close || m.HTTP10 && !m.KeepAlive {
		return false
	}
	// The rest of a body that nobody asked for is read and thrown away; one that may be long is not waited for, nor one that
	// the client holds back until it is told to continue.
	return e.body.done || !m.Expect100 && (x.Uploading || e.body.left <= discardBytes)
}

// sendHead sends an answer without a body.
func (e *exchange) sendHead(f framing, connection string) *core.Error {
	l := e.conn.conn.Loop()
	buf := l.Borrow()
	head := appendResponse(buf[:0], &e.x.Response, f, connection)
	e.x.Sent.ResponseHead += int64(len(head))
	err := e.send(head)
	l.Return(buf)
	return err
}

// sendBody sends the answer with its body; the head leaves together with the first piece if that is there.
func (e *exchange) sendBody(f framing, connection string) *core.Error {
	m, l := &e.x.Response, e.conn.conn.Loop()
	if !m.Body.Ready() && m.ContentLength > 0 {
		l.Yield() // a body is mostly hard on its head's heels, and a turn's patience saves a write
	}
	if !m.Body.Ready() {
		if err := e.sendHead(f, connection); err != nil {
			return err
		}
		return e.relay(f)
	}
	scratch := l.Borrow()
	head := appendResponse(scratch[:0], m, f, connection)
	e.x.Sent.ResponseHead += int64(len(head))
	p, failure := e.next(f)
	if failure != nil {
		l.Return(scratch)
		if failure.Status == 0 {
			return failure
		}
		e.failed = false // nothing has been sent: the client can still be told
		e.x.Sent.ResponseHead = 0
		e.x.Fail(failure)
		return e.Respond(e.x)
	}
	start, end := frame(f, p, m.Trailer)
	if len(head) <= start {
		start -= copy(p.Buf[start-len(head):], head)
	} else {
		failure = e.send(head)
	}
	l.Return(scratch) // the client may keep us waiting
	if failure == nil {
		failure = e.sendPiece(f, p, start, end)
	}
	if failure != nil || p.Last {
		return failure
	}
	return e.relay(f)
}

// relay sends the body piece by piece, as fast as the client takes it.
func (e *exchange) relay(f framing) *core.Error {
	for {
		p, err := e.next(f)
		if err != nil {
			return err
		}
		start, end := frame(f, p, e.x.Response.Trailer)
		if err = e.sendPiece(f, p, start, end); err != nil || p.Last {
			return err
		}
	}
}

// next draws a piece of the answer. When the upstream fails, the client must see that the body is cut off.
func (e *exchange) next(f framing) (core.Piece, *core.Error) {
	p, err := e.x.Response.Body.Next()
	if err == nil {
		return p, nil
	}
	e.cut(f)
	return p, core.BodyError(err)
}

// cut makes the connection end in a way that no client takes for the end of a body. Where the end of the connection would
// be taken for it, that must be a reset, which may cost the client what it has not read yet.
func (e *exchange) cut(f framing) {
	e.failed = true
	if f == framingClose {
		e.conn.conn.Reset()
	}
}

// frame puts what f needs around a piece; start and end are the whole in its buffer.
func frame(f framing, p core.Piece, trailer []byte) (start, end int) {
	if f != framingChunked {
		return p.Start, p.End
	}
	return frameChunk(p, len(trailer) == 0)
}

func (e *exchange) sendPiece(f framing, p core.Piece, start, end int) *core.Error {
	if start < end {
		if err := e.send(p.Buf[start:end]); err != nil {
			return err
		}
	}
	e.x.Sent.ResponseBody += int64(p.End - p.Start)
	if trailer := e.x.Response.Trailer; p.Last && f == framingChunked && len(trailer) > 0 {
		return e.send(appendTrailer(nil, trailer))
	}
	return nil
}

// send writes p, which it may overwrite. All that it waits, it waits for the client.
func (e *exchange) send(p []byte) *core.Error {
	c := e.conn.conn
	since := c.Loop().Now()
	c.WriteTimeout = e.pace.Timeout(int64(e.x.Listener.WriteTimeout))
	if _, err := c.WriteOver(p); err != nil {
		e.failed = true
		c.Reset()
		return clientError(err)
	}
	e.pace.Moved(int64(len(p)), c.Loop().Now()-since)
	return nil
}

func clientError(err error) *core.Error {
	if err == loop.ErrTimeout {
		return core.ErrClientSlow
	}
	return core.ErrClientGone
}

// switchProtocols answers a request for a tunnel; the tunnel itself is the upstream side's.
func (e *exchange) switchProtocols(x *core.Exchange) *core.Error {
	m := &x.Response
	e.keep, e.failed = false, true // when the tunnel has ended there is nothing to wait for
	l := e.conn.conn.Loop()
	buf := l.Borrow()
	m.Remove(core.FieldContentLength)
	m.ContentLength = -1
	head := appendResponse(buf[:0], m, framingNone, "")
	if m.Status == 101 {
		head = appendUpgrade(head[:len(head)-len("\r\n")], m.Protocol)
		head = append(head, "\r\n"...)
	}
	x.Sent.ResponseHead += int64(len(head))
	_, err := e.conn.conn.Write(head)
	l.Return(buf)
	if err != nil {
		return clientError(err)
	}
	return nil
}
