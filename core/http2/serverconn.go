package http2

import (
	"cmp"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// serverConn is one client's connection.
type serverConn struct {
	conn
	server   *Server
	port     Port
	origin   core.Origin
	most     int         // streams that may be open at once
	old      *loop.Timer // ends it for its age; nil: nothing does
	accepted uint32      // no stream above is served; once the end was announced
	final    bool        // it was announced which streams are the last
}

func (c *serverConn) String() string { return "http/2 client " + c.origin.Peer.String() }

var serverBlame = blame{gone: core.ErrClientGone, wrong: core.ErrClientGone, slowSender: core.ErrRequestTimeout, slowTaker: core.ErrClientSlow}

// greet says how we want to be spoken to.
func (c *serverConn) greet() {
	settings := c.port.Settings()
	if c.raw.WriteTimeout = int64(settings.WriteTimeout); settings.WriteTimeout > 0 {
		c.raw.WriteTimeout += int64(lingerTime) // streams that wait give up earlier, and a client that comes back by then may read why
	}
	c.limit(settings)
	c.most = cmp.Or(settings.HTTP2.Streams, defaultStreams)
	c.setAge(&settings.HTTP2)
	b := AppendSettings(c.append(64),
		Setting{SettingMaxConcurrentStreams, uint32(c.most)},
		Setting{SettingMaxHeaderListSize, uint32(settings.HeaderBytes)},
		Setting{SettingEnableConnectProtocol, 1},
		Setting{SettingNoRFC7540Priorities, 1})
	c.appended(AppendWindowUpdate(b, 0, connWindow-streamWindow))
}

func (c *serverConn) limit(settings *core.Listener) {
	c.limits = Limits{HeaderBytes: settings.HeaderBytes, Headers: settings.Headers}
	c.keepAlive = KeepAlive{Interval: settings.HTTP2.KeepAlive, Timeout: settings.HTTP2.KeepAliveTimeout}
}

// Closed ends what the connection's streams were working for.
func (c *serverConn) Closed(*loop.Conn) {
	delete(c.server.conns, c)
	if c.old != nil {
		c.old.Stop()
	}
	c.end()
	c.port.Release(c.origin.Peer)
}

// rest leaves the connection to the loop, for as long as it may be silent.
func (c *serverConn) rest() {
	if c.closed || c.serving {
		return
	}
	if c.port.Draining() {
		c.drain()
	}
	settings, now := c.port.Settings(), c.res.loop.Now()
	c.limit(settings)
	deadline := int64(0)
	switch {
	case c.dying:
		deadline = c.due
	case c.final && c.running == 0 && !c.out.waits():
		c.raw.CloseWrite()
		c.die()
		deadline = c.due
	case !c.settled || c.block.stream != 0 || len(c.held) > 0:
		if c.due == 0 {
			c.due = now + int64(c.patience(settings))
		}
		deadline = c.due
	case c.running == 0 && !c.out.waits():
		deadline = now + int64(settings.IdleTimeout)
	}
	c.raw.Busy = c.running > 0 || c.out.waits() || c.ending
	c.raw.Use()
	c.raw.Idle(deadline)
}

// patience is how long a client may take for what it has begun: a frame of body, or anything else.
func (c *serverConn) patience(settings *core.Listener) time.Duration {
	if c.settled && c.block.stream == 0 && len(c.held) >= FrameHeaderBytes && ParseFrameHeader(c.held).Type == FrameData {
		return settings.BodyTimeout
	}
	return settings.HeaderTimeout
}

// onBlock takes a request, or the trailer section of one.
func (c *serverConn) onBlock(t *stream, b headerBlock) {
	if t != nil {
		c.trailer(t, b)
		return
	}
	c.departed.opened(c.last, b.stream)
	c.last = b.stream
	c.request(b)
}

// onReset ends a stream that its client does not want any more.
func (c *serverConn) onReset(t *stream, _ ErrorCode) {
	c.server.resets++
	c.calm.pinged()
	if c.calmly(calmReset) {
		delete(c.streams, t.id)
		t.abandon(core.ErrClientGone)
	}
}

// request begins the exchange of a new stream.
func (c *serverConn) request(b headerBlock) {
	if c.ending && b.stream > c.accepted || c.running >= c.most {
		c.skip(b.bytes)
		c.resetStream(b.stream, CodeRefusedStream)
		c.calmly(calmReset)
		return
	}
	t := c.server.take(c)
	x := t.x
	m := &x.Request
	_, err := c.decoder.DecodeRequest(m, b.bytes, &c.limits)
	if err != nil && c.compression(err) {
		c.server.worker.End(x)
		c.server.put(t)
		return
	}
	x.Times.Start = c.came
	c.origin.Identify(x)
	m.HTTP2 = true
	m.GRPC = m.Method == core.MethodPost && core.IsGRPC(m.Get(core.FieldContentType))
	switch {
	case err != nil:
	case b.self:
		err = errSelfDependency
	case m.Protocol != nil && !core.EqualFold(m.Protocol, core.WebSocket):
		err = errProtocol // nothing is known of how HTTP/1.1 says it
	}
	t.open(&c.conn, b.stream)
	t.ended = b.endStream
	if err != nil {
		t.refusal, _ = err.(*core.Error)
		m.Reset()
	} else {
		t.refusal = t.beginBody(m)
	}
	c.running++
	c.beat()
	t.task = c.res.loop.Begin(t.run)
}

var errProtocol = &core.Error{Status: 501, Reason: "not_implemented", Detail: "extended CONNECT for another protocol than websocket"}

var errSelfDependency = &core.Error{Status: 400, Reason: "bad_request", Detail: "stream depends on itself"}
