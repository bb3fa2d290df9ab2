package http2

import (
	"github.com/sluice-gateway/sluice/core"
)

// maxInterim bounds the 1xx answers before the real one.
const maxInterim = 16

// ClientStream is one request to an upstream. The exchange's task sends it and takes the answer; a request body that cannot be
// sent at once has a task of its own.
type ClientStream struct {
	stream
	owner    *ClientConn
	upload   upload
	head     core.Message    // of the answer, until the exchange's task takes it
	headAt   int64           // when it came, on the loop's clock
	interims []*core.Message // 1xx answers that were not yet passed on; they are rare
	informed int             // 1xx answers that have come
	answered bool            // the head of the answer has come
	reused   bool            // the connection had served before
}

// Do sends x.Request and waits for the head of the answer, which it leaves in x.Response with the body to come. header
// bounds the time from the end of the request to the end of that head, in nanoseconds; idle each wait for more of a body.
func (t *ClientStream) Do(x *core.Exchange, header, idle int64) *core.Error {
	c := t.owner
	t.x, t.until, t.reused = x, x.Deadline, c.served
	t.sendTimeout, t.receiveTimeout = idle, idle
	if x.Request.Protocol != nil {
		if err := t.askTunnel(x, header); err != nil {
			return err
		}
	}
	if c.Ending() || c.last >= maxStreamID {
		return core.ErrRefused
	}
	if err := t.send(x); err != nil {
		return err
	}
	if err := t.receive(x, header); err != nil {
		return err
	}
	return nil
}

// askTunnel prepares for a WebSocket (RFC 8441, 5), which the upstream must know how to open.
func (t *ClientStream) askTunnel(x *core.Exchange, timeout int64) *core.Error {
	c, m := t.owner, &x.Request
	if err := c.settle(x.DeadlineIn(timeout)); err != nil {
		return late(x, err, core.ErrHeaderTimeout)
	}
	if !c.peer.connect || !core.EqualFold(m.Protocol, core.WebSocket) {
		return errNoTunnel
	}
	return nil
}

// errNoTunnel is nobody's failure but the client's: an upstream need not open any.
var errNoTunnel = &core.Error{Status: 502, Reason: "no_tunnel", Detail: "the HTTP/2 upstream opens no such tunnel"}

// send sends the head, and what is there of the body as far as it can leave without a wait. The rest is left to the upload.
func (t *ClientStream) send(x *core.Exchange) *core.Error {
	c, m := t.owner, &x.Request
	var p core.Piece
	drawn := m.Body != nil && m.Body.Ready()
	if drawn {
		var err error
		if p, err = m.Body.Next(); err != nil {
			return core.BodyError(err)
		}
		x.KeepForReplay(p)
		if c.Ending() { // a Body that waits in spite of being ready
			return core.ErrRefused
		}
	}
	empty := m.Body == nil && !m.AsksTunnel() || drawn && p.Last && p.Start == p.End && len(m.Trailer) == 0
	id := max(c.last+2, 1) | 1
	c.departed.opened(c.last, id)
	c.last = id
	t.open(&c.conn, id)
	t.priority.incremental = true // what clients send goes on in turn, whatever one of them says of its own
	b := c.append(FrameHeaderBytes)
	start := len(b)
	b = append(b, make([]byte, FrameHeaderBytes)...)
	t.endBlock(c.encoder.AppendRequest(b, m, c.options.Scheme, nil, nil), start, empty)
	c.beat()
	switch {
	case m.Body == nil || empty:
		return nil
	case drawn && t.fits(p.End-p.Start):
		if err := t.sendData(p.Bytes(), p.Last && len(m.Trailer) == 0); err != nil {
			return err
		}
		m.Body.Release()
		if !p.Last {
			t.upload.start(core.Piece{})
		} else if len(m.Trailer) > 0 {
			return t.sendTrailer(m.Trailer)
		}
	default:
		t.upload.start(p)
	}
	return nil
}

// fits says that n bytes of body can be sent without a wait.
func (t *stream) fits(n int) bool {
	c := t.conn
	return int64(n) <= min(t.window, c.window) && !c.out.full() && n <= outBytes-len(c.out.pending)
}

// onHead takes the head of an answer from the connection's reader.
func (t *ClientStream) onHead(b headerBlock) {
	c, m := t.owner, &t.head
	m.Reset()
	err := c.decoder.DecodeResponse(m, b.bytes, &c.limits)
	if err != nil {
		if !c.compression(err) {
			c.cut(t.id, CodeProtocol, core.BodyError(err))
		}
		return
	}
	m.HTTP2 = true
	switch {
	case b.self, m.Status < 200 && b.endStream:
		c.resetStream(t.id, CodeProtocol)
	case m.Status < 200:
		if t.informed++; t.informed > maxInterim {
			c.cut(t.id, CodeCancel, errInterims)
			return
		}
		interim := t.head
		t.head = core.Message{}
		t.interims = append(t.interims, &interim)
		t.wakeReader()
	default:
		t.headAt = c.res.loop.Turned()
		t.answered = true
		if t.begin(m, b.endStream) {
			t.wakeReader()
		}
	}
}

var errInterims = &core.Error{Status: 502, Reason: "bad_response", Detail: "too many interim answers", Side: core.SideUpstream, Retry: core.RetryMalformed}

// begin prepares for the body of the answer; false: its head is malformed.
func (t *ClientStream) begin(m *core.Message, end bool) bool {
	connect := t.x.Request.Method == core.MethodConnect
	if m.Status/100 == 2 && (connect || t.x.Request.Protocol != nil && !end) { // what comes is the tunnel's
		m.ContentLength = -1 // is ignored (RFC 9110, 9.3.6)
		t.connected, t.ended, t.drawn = true, end, end
		return true
	}
	bodiless := t.x.Request.Method == core.MethodHead || m.Status == 204 || m.Status == 304
	if end && !bodiless && m.ContentLength > 0 {
		t.conn.cut(t.id, CodeProtocol, core.ErrBadResponse)
		return false
	}
	t.ended = end
	switch {
	case bodiless:
		t.declared = 0
		t.drawn = true
	case end:
		t.drawn = true
	default:
		t.declared = m.ContentLength
		m.Body, m.Chunked = t, t.declared < 0
	}
	return true
}

// receive waits for the head of the answer, and hands on the interim ones.
func (t *ClientStream) receive(x *core.Exchange, header int64) *core.Error {
	due, uploaded := int64(0), t.upload.running
	for {
		switch {
		case len(t.interims) > 0:
			if err := t.inform(x); err != nil {
				return err
			}
			continue
		case t.answered && (t.gone == nil || t.ended): // what broke off before any of it was passed on is no answer
			t.accept(x)
			return nil
		case t.upload.failure != nil:
			return t.upload.failure
		case t.gone != nil:
			return late(x, t.failure(), core.ErrIdleTimeout)
		}
		if due == 0 && !t.upload.running { // the request is complete: the time for the answer runs from now on
			if uploaded {
				x.RestartTry()
			}
			due = x.DeadlineIn(header)
		}
		if err := t.await(due); err != nil && t.gone == nil {
			return late(x, core.BodyError(err), core.ErrHeaderTimeout)
		}
	}
}

// late says which time is over where err is that a peer is slow: step's, where none that is longer is.
func late(x *core.Exchange, err, step *core.Error) *core.Error {
	if err == clientBlame.slowSender || err == core.ErrHeaderTimeout {
		return x.Overdue(step)
	}
	return err
}

// inform passes an interim answer on.
func (t *ClientStream) inform(x *core.Exchange) *core.Error {
	m := t.interims[0]
	t.interims = t.interims[1:]
	if m.Status == 100 && !x.Request.Expect100 {
		return nil
	}
	x.Response, *m = *m, x.Response
	err := x.Downstream.Interim(x)
	x.Response, *m = *m, x.Response
	return err
}

// accept hands the final answer to the exchange.
func (t *ClientStream) accept(x *core.Exchange) {
	l := t.conn.res.loop
	x.Response, t.head = t.head, x.Response
	x.Times.Sent, x.Times.Head = l.Yielded(), t.headAt
	if t.drawn {
		x.Times.Done = t.headAt
	}
	if m := &x.Response; x.Request.Protocol != nil && m.Status/100 == 2 && m.Body == nil && !t.drawn { // as HTTP/1.1 says it
		m.Status, m.Protocol = 101, x.Request.Protocol
		if key, ok := x.Request.Lookup(core.WebSocketKeyField); ok && !x.Request.HTTP2 {
			m.AddName(core.WebSocketAcceptField, core.WebSocketAccept(key))
		}
	}
	if t.upload.running && x.Response.Status >= 400 {
		t.upload.stop() // nobody wants the rest; with any other answer the upstream may well go on reading
	}
}

// failure is what the loss of the stream means before its answer has come. A connection that had served before was most likely
// closed while it was idle; only then may the request be tried again, and never once an answer has begun. One that ends before its first
// SETTINGS never came to be: it waited for a server that has stopped.
func (t *ClientStream) failure() *core.Error {
	switch {
	case t.gone == core.ErrUpstreamClosed && (t.answered || !t.reused && t.conn.settled):
		return errClosed
	case t.gone == core.ErrRefused && t.answered:
		return errReset
	}
	return t.gone
}

// Next gives what has come of the answer's body.
func (t *ClientStream) Next() (core.Piece, error) {
	if t.x.Over() && t.in.bytes > 0 { // which no wait would find out
		return core.Piece{}, core.ErrTakenSlowly
	}
	p, err := t.next()
	if err != nil {
		if failure := t.upload.failure; failure != nil {
			return p, failure
		}
		if err == error(clientBlame.slowSender) {
			return p, t.x.Overdue(core.ErrIdleTimeout)
		}
		return p, err
	}
	if p.Last {
		t.x.Response.Trailer = t.trailer
		t.x.Times.Done = t.conn.res.loop.Turned()
	}
	return p, nil
}

// Adopt makes the answer, whose head has come to another exchange with the same request, that of x.
func (t *ClientStream) Adopt(x *core.Exchange) { t.x = x }

// Finish ends the exchange's use of the stream, which must not be touched afterwards, and says whether it was taken to its end.
func (t *ClientStream) Finish(*core.Exchange) bool {
	c := t.owner
	t.upload.stop()
	whole := t.answered && t.ended
	c.served = c.served || whole
	t.leave(CodeCancel, CodeCancel)
	c.pool.put(t)
	if !c.closed {
		c.owner.Changed()
	}
	return whole
}

// Buffered is nil: what came is the stream's, which becomes a tunnel itself.
func (t *ClientStream) Buffered() []byte { return nil }
