package http1

import (
	"bytes"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// maxInterim bounds the 1xx answers before the real one.
const maxInterim = 16

// responseLimits bound what an upstream may send as a head.
var responseLimits = Limits{HeaderBytes: 48 << 10, Headers: 500}

// Client is a connection to an upstream, which serves one exchange after another.
type Client struct {
	conn     *loop.Conn
	worker   *core.Worker
	body     responseBody
	upload   upload
	reused   bool // it has served before: it may have been closed while it was idle
	keeps    bool // the request may be sent again if the connection turns out to have been closed meanwhile
	started  bool // bytes of the answer have come
	clean    bool // the exchange was taken to its end, and nothing is left over
	awaiting bool // the exchange's task waits for the head of the answer
}

// NewClient takes a fresh connection.
func NewClient(w *core.Worker, c *loop.Conn) *Client {
	u := &Client{conn: c, worker: w}
	u.body.client = u
	u.upload.client, u.upload.task = u, u.upload.run
	return u
}

// Conn is the connection.
func (u *Client) Conn() *loop.Conn { return u.conn }

// Do sends x.Request and waits for the head of the answer, which it leaves in x.Response with the body to come. timeout
// bounds the time from the end of the request to the end of that head, in nanoseconds; idle each wait for more of a body.
func (u *Client) Do(x *core.Exchange, timeout, idle int64) *core.Error {
	u.clean, u.started = false, false
	u.keeps = x.KeepBody == core.KeepAlways || u.reused && x.KeepBody == core.KeepIfReused
	u.conn.Deadline, u.conn.ReadTimeout, u.conn.WriteTimeout = x.DeadlineIn(0), 0, idle
	err := u.send(x)
	if err == nil {
		err = u.receive(x, timeout)
	}
	u.reused = true
	u.conn.Deadline, u.conn.ReadTimeout = x.Deadline, idle
	return err
}

// send writes the head together with what is there of the body, and leaves the rest of the body to a task of its own.
func (u *Client) send(x *core.Exchange) *core.Error {
	l := u.worker.Loop
	m := &x.Request
	if m.Protocol != nil && m.HTTP2 { // the client was not asked for a key (RFC 8441, 5)
		m.RemoveName(core.WebSocketKeyField)
		m.AddName(core.WebSocketKeyField, u.worker.WebSocketKey())
	}
	scratch := l.Borrow()
	defer l.Return(scratch)
	head := appendRequest(scratch[:0], m)
	if m.Body == nil || !m.Body.Ready() {
		if err := u.write(x, head); err != nil {
			return err
		}
		if m.Body != nil {
			u.upload.start(x)
		}
		return nil
	}
	p, err := m.Body.Next()
	if err != nil {
		return core.BodyError(err)
	}
	if u.keeps {
		x.KeepForReplay(p)
	}
	start, end := p.Start, p.End
	if m.Chunked {
		start, end = frameChunk(p, len(m.Trailer) == 0)
	}
	if len(head) <= start {
		start -= copy(p.Buf[start-len(head):], head)
	} else if err := u.write(x, head); err != nil {
		return err
	}
	failure := u.write(x, p.Buf[start:end])
	m.Body.Release()
	if failure != nil {
		return failure
	}
	if !p.Last {
		u.upload.start(x)
	} else if m.Chunked && len(m.Trailer) > 0 {
		return u.write(x, appendTrailer(nil, m.Trailer))
	}
	return nil
}

// write sends. A connection that the upstream has reset may still hold its answer: reading finds out.
func (u *Client) write(x *core.Exchange, p []byte) *core.Error {
	_, err := u.conn.Write(p)
	switch err {
	case nil, loop.ErrReset:
		return nil
	}
	return upstreamError(x, err, core.ErrIdleTimeout)
}

// receive waits for the head of the answer, and hands on the interim ones.
func (u *Client) receive(x *core.Exchange, timeout int64) *core.Error {
	for range maxInterim {
		if err := u.head(x, timeout); err != nil {
			return err
		}
		m := &x.Response
		if m.Status >= 200 || m.Status == 101 {
			return u.accept(x)
		}
		RemoveHopByHop(m)
		if m.Status != 100 || x.Request.Expect100 {
			if err := x.Downstream.Interim(x); err != nil {
				return err
			}
		}
	}
	return errInterims
}

// head reads one head into x.Response. What follows it stands in the body's buffer.
func (u *Client) head(x *core.Exchange, timeout int64) *core.Error {
	b, m := &u.body, &x.Response
	u.conn.Deadline = x.Deadline // while the client sends, the endpoint is not to blame
	if !u.upload.running {
		u.conn.Deadline = x.DeadlineIn(timeout)
	}
	for tried := b.start; ; {
		if hasNewline(b.buf[tried:b.end]) {
			m.Reset()
			n, err := ParseResponse(m, b.buf[b.start:b.end], &responseLimits)
			if err != nil {
				return err
			}
			if n > 0 {
				m.Adopt(b.buf[b.start : b.start+n])
				b.start += n
				return nil
			}
		}
		if b.end-b.start >= responseLimits.HeaderBytes {
			return errResponseHead
		}
		tried = b.end - b.start
		u.awaiting = true
		err := b.more(false)
		u.awaiting = false
		switch {
		case err == nil:
		case u.upload.failure != nil:
			return u.upload.failure
		case err == loop.ErrInterrupted: // the request is complete: the time for the answer runs from now on
			x.RestartTry()
			u.conn.Deadline = x.DeadlineIn(timeout)
		default:
			return u.failure(x, err)
		}
		if tried += b.start; !u.started && b.end > b.start {
			u.started = true
			x.Times.Sent, x.Times.Head = u.worker.Loop.Yielded(), u.worker.Loop.Turned()
		}
	}
}

// failure is what an error while waiting for the answer means. A kept connection that broke before a byte came was most
// likely closed by the upstream while the request was on its way.
func (u *Client) failure(x *core.Exchange, err error) *core.Error {
	f := upstreamError(x, err, core.ErrHeaderTimeout)
	if f.Retry == core.RetryIfReused && (!u.reused || u.started) {
		if f == core.ErrUpstreamReset {
			return errResetFinal
		}
		return errClosedFinal
	}
	return f
}

// accept prepares the final answer: framing, and the fields that end here.
func (u *Client) accept(x *core.Exchange) *core.Error {
	m := &x.Response
	if m.Status == 101 {
		if x.Request.Protocol == nil {
			return errUnaskedUpgrade
		}
		if m.Protocol = m.Get(core.FieldUpgrade); m.Protocol == nil {
			return errUnaskedUpgrade
		}
		if x.Request.HTTP2 && !accepted(x) {
			return errWebSocketAccept
		}
	} else if x.Request.HTTP2 && x.Request.Protocol != nil && m.Status/100 == 2 { // the client would take it for its tunnel (RFC 8441, 5)
		x.Times.Sent, x.Times.Head = 0, 0 // what it gets is not the upstream's answer, nor its fault
		return errNoTunnel
	}
	RemoveHopByHop(m)
	if u.upload.running && m.Status >= 400 {
		u.upload.stop() // nobody wants the rest; with any other answer the upstream may well go on reading
	}
	u.body.begin(x)
	return nil
}

// accepted says whether the upstream has answered the key that it was sent for a client that does not look (RFC 6455, 4.1).
func accepted(x *core.Exchange) bool {
	key, _ := x.Request.Lookup(core.WebSocketKeyField)
	answer, _ := x.Response.Lookup(core.WebSocketAcceptField)
	return core.EqualFold(x.Response.Protocol, core.WebSocket) && bytes.Equal(answer, core.WebSocketAccept(key))
}

// seen notes that the whole answer has been read. After one that opens a tunnel the upstream speaks HTTP no more, whatever becomes of the
// tunnel.
func (u *Client) seen(x *core.Exchange) {
	x.Times.Done = u.worker.Loop.Turned()
	u.clean = !x.OpensTunnel()
}

// Adopt makes the answer, whose head has come to another exchange with the same request, that of x.
func (u *Client) Adopt(x *core.Exchange) { u.body.x = x }

// Finish ends the exchange and says whether the connection can serve another.
func (u *Client) Finish(x *core.Exchange) bool {
	whole := u.upload.finish()
	m, b, c := &x.Response, &u.body, u.conn
	rest := b.end - b.start
	b.release()
	return whole && u.clean && rest == 0 && !m.Close && (!m.HTTP10 || m.KeepAlive) &&
		!c.Ended() && !c.Readable() && !c.Closed()
}

// Buffered is what has come after the head of an answer that opens a tunnel.
func (u *Client) Buffered() []byte { return u.body.buf[u.body.start:u.body.end] }

// Reused says whether the connection had served before its last exchange.
func (u *Client) Reused() bool { return u.reused }

// upstreamError is what an error of the connection means; late is the time of the step, where none that is longer is over.
func upstreamError(x *core.Exchange, err error, late *core.Error) *core.Error {
	switch err {
	case loop.ErrTimeout:
		return x.Overdue(late)
	case loop.ErrHangup:
		return core.ErrClientGone
	case loop.ErrStopped:
		return core.ErrStopping
	case loop.ErrReset:
		return core.ErrUpstreamReset
	}
	return core.ErrUpstreamClosed
}

var (
	errInterims        = &core.Error{Status: 502, Reason: "bad_response", Detail: "too many interim answers", Side: core.SideUpstream, Retry: core.RetryMalformed}
	errResponseHead    = &core.Error{Status: 502, Reason: "bad_response", Detail: "head too large", Side: core.SideUpstream, Retry: core.RetryMalformed}
	errUnaskedUpgrade  = &core.Error{Status: 502, Reason: "bad_response", Detail: "101 that was not asked for", Side: core.SideUpstream, Retry: core.RetryMalformed}
	errWebSocketAccept = &core.Error{Status: 502, Reason: "bad_response", Detail: "101 without the answer to the WebSocket's key", Side: core.SideUpstream}
	errNoTunnel        = &core.Error{Status: 502, Reason: "no_tunnel", Detail: "a WebSocket was answered like another request"}
	errResetFinal      = &core.Error{Status: 502, Reason: "upstream_reset", Side: core.SideUpstream, Retry: core.RetryReset}
	errClosedFinal     = &core.Error{Status: 502, Reason: "upstream_closed", Side: core.SideUpstream, Retry: core.RetryReset}
)
