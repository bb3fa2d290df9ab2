package http2

import (
	"github.com/sluice-gateway/sluice/core"
)

// headers takes the start of a header block.
func (c *conn) headers(h FrameHeader, payload []byte) {
	if h.Stream&1 == 0 {
		c.fail(CodeProtocol, "stream with an even number")
		return
	}
	fragment, self, code := headersPayload(h, payload)
	if code != CodeNo {
		c.fail(code, "malformed HEADERS")
		return
	}
	c.block = headerBlock{stream: h.Stream, bytes: append(c.block.bytes[:0], fragment...), endStream: h.Flags.Has(FlagEndStream), self: self}
	if h.Flags.Has(FlagEndHeaders) {
		c.endBlock()
	}
}

// maxBlockFrames bounds the frames of one header block, besides those that its bytes fill.
const maxBlockFrames = 32

// continuation takes more of a header block. Compressed it can hardly be longer than the lines that it stands for.
func (c *conn) continuation(h FrameHeader, payload []byte) {
	b := &c.block
	if b.stream == 0 {
		c.fail(CodeProtocol, "CONTINUATION without HEADERS")
		return
	}
	b.frames++
	b.bytes = append(b.bytes, payload...)
	if len(payload) == 0 && !c.calmly(calmEmpty) {
		return
	}
	if limit := 2 * c.port.Settings().HeaderBytes; b.frames > maxBlockFrames+limit/MinMaxFrame || len(b.bytes) > limit {
		c.server.counts.Calm[calmBlock]++
		c.fail(CodeEnhanceYourCalm, CalmReasons()[calmBlock])
		return
	}
	if h.Flags.Has(FlagEndHeaders) {
		c.endBlock()
	}
}

// endBlock takes a whole header block: a request, or the trailer section of one.
func (c *conn) endBlock() {
	b := c.block
	c.block.stream = 0
	if cap(c.block.bytes) > maxKeptBlock {
		c.block.bytes = nil
	}
	switch t := c.streams[b.stream]; {
	case t != nil:
		c.trailer(t, b)
	case b.stream > c.last:
		c.departed.opened(c.last, b.stream)
		c.last = b.stream
		c.request(b)
	case c.departed.has(c.last, b.stream):
		if b.endStream {
			c.departed.remove(c.last, b.stream)
		}
		if c.calmly(calmControl) {
			c.skip(b.bytes)
		}
	default:
		c.fail(CodeStreamClosed, "HEADERS on a closed stream")
	}
}

// maxKeptBlock bounds the memory that a connection keeps for header blocks.
const maxKeptBlock = 8 << 10

func (c *conn) limits() Limits {
	s := c.port.Settings()
	return Limits{HeaderBytes: s.HeaderBytes, Headers: s.Headers}
}

// skip decodes a block that nobody wants, for the table's sake.
func (c *conn) skip(block []byte) {
	limits := c.limits()
	if _, err := c.decoder.DecodeTrailer(nil, block, &limits); err != nil {
		c.compression(err)
	}
}

// compression ends the connection if err is one of the connection, after which nothing can be decoded.
func (c *conn) compression(err error) bool {
	if e, ok := err.(*ConnError); ok {
		if e == errBomb {
			c.server.counts.Calm[calmBomb]++
		}
		c.fail(e.Code, e.Detail)
		return true
	}
	return false
}

// request begins the exchange of a new stream.
func (c *conn) request(b headerBlock) {
	if c.ending && b.stream > c.accepted || c.running >= maxStreams {
		c.skip(b.bytes)
		c.resetStream(b.stream, CodeRefusedStream)
		c.calmly(calmReset)
		return
	}
	t := c.server.take(c, b.stream)
	x, limits := t.x, c.limits()
	m := &x.Request
	_, err := c.decoder.DecodeRequest(m, b.bytes, &limits)
	if err != nil && c.compression(err) {
		c.server.worker.End(x)
		c.server.put(t)
		return
	}
	l := c.server.worker.Loop
	x.Times.Start = l.Turned()
	c.origin.Identify(x)
	m.HTTP2 = true
	t.ended = b.endStream
	switch {
	case err != nil:
	case b.self:
		err = errSelfDependency
	case m.Method == core.MethodConnect || m.Protocol != nil:
		err = core.ErrMethod // no stream becomes a tunnel
	}
	if err != nil {
		t.refusal, _ = err.(*core.Error)
		m.Reset()
	} else {
		t.refusal = t.beginBody(m)
	}
	c.streams[b.stream] = t
	c.running++
	t.task = l.Go(t.run)
}

var errSelfDependency = &core.Error{Status: 400, Reason: "bad_request", Detail: "stream depends on itself"}

// trailer ends a request's body.
func (c *conn) trailer(t *stream, b headerBlock) {
	limits := c.limits()
	lines, err := c.decoder.DecodeTrailer(nil, b.bytes, &limits)
	switch {
	case err != nil && c.compression(err):
	case t.ended:
		c.resetStream(t.id, CodeStreamClosed)
	case err != nil || !b.endStream || b.self:
		c.resetStream(t.id, CodeProtocol)
	default:
		if len(lines) > 0 {
			t.trailer = lines
		}
		t.end()
	}
}

// data takes a piece of a request's body. All of it counts against the windows, padding too (RFC 9113, 6.9.1).
func (c *conn) data(h FrameHeader, payload []byte) {
	t := c.streams[h.Stream]
	if t == nil && (h.Stream > c.last || h.Stream&1 == 0) {
		c.fail(CodeProtocol, "DATA on an idle stream")
		return
	}
	if c.credit -= int64(h.Length); c.credit < 0 {
		c.fail(CodeFlowControl, "more DATA than the window takes")
		return
	}
	body, code := unpad(h, payload)
	if code != CodeNo {
		c.fail(code, "malformed DATA")
		return
	}
	if len(body) == 0 && !h.Flags.Has(FlagEndStream) && !c.calmly(calmEmpty) {
		return
	}
	switch {
	case t == nil:
		c.giveBack(int64(h.Length))
		c.closedStream(h)
	case t.ended:
		c.giveBack(int64(h.Length))
		c.resetStream(t.id, CodeStreamClosed)
	default:
		t.receive(body, int64(h.Length))
		if h.Flags.Has(FlagEndStream) && c.streams[h.Stream] == t {
			t.end()
		}
	}
}

// giveBack lets the client send n bytes more on the connection, once it is worth a frame.
func (c *conn) giveBack(n int64) {
	if c.taken += n; c.taken < connWindow/4 || c.dying || c.closed {
		return
	}
	c.appended(AppendWindowUpdate(c.append(FrameHeaderBytes+4), 0, uint32(c.taken)))
	c.credit += c.taken
	c.taken = 0
}
