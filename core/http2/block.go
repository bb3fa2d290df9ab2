package http2

// headerBlock is a header block in the making (RFC 9113, 4.3).
type headerBlock struct {
	stream    uint32 // 0: none
	bytes     []byte
	frames    int
	endStream bool
	self      bool // the stream depends on itself
}

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
	if limit := 2 * c.limits.HeaderBytes; b.frames > maxBlockFrames+limit/MinMaxFrame || len(b.bytes) > limit {
		c.abused(calmBlock)
		return
	}
	if h.Flags.Has(FlagEndHeaders) {
		c.endBlock()
	}
}

// maxKeptBlock bounds the memory that a connection keeps for header blocks.
const maxKeptBlock = 8 << 10

// endBlock takes a whole header block: the head of a message, or the trailer section of one.
func (c *conn) endBlock() {
	b := c.block
	c.block.stream = 0
	if cap(c.block.bytes) > maxKeptBlock {
		c.block.bytes = nil
	}
	switch t := c.streams[b.stream]; {
	case t != nil || b.stream > c.last:
		c.side.onBlock(t, b)
	case c.departed.has(c.last, b.stream):
		if b.endStream {
			c.departed.remove(c.last, b.stream)
		}
		if c.stray() {
			c.skip(b.bytes)
		}
	default:
		c.fail(CodeStreamClosed, "HEADERS on a closed stream")
	}
}

// skip decodes a block that nobody wants, for the table's sake.
func (c *conn) skip(block []byte) {
	if _, err := c.decoder.DecodeTrailer(nil, block, &c.limits); err != nil {
		c.compression(err)
	}
}

// compression ends the connection if err is one of the connection, after which nothing can be decoded.
func (c *conn) compression(err error) bool {
	if e, ok := err.(*ConnError); ok {
		if e == errBomb {
			c.res.calm[calmBomb]++
		}
		c.fail(e.Code, e.Detail)
		return true
	}
	return false
}

// trailer ends a body.
func (c *conn) trailer(t *stream, b headerBlock) {
	lines, err := c.decoder.DecodeTrailer(nil, b.bytes, &c.limits)
	switch {
	case err != nil && c.compression(err):
	case t.ended:
		c.resetStream(t.id, CodeStreamClosed)
	case err != nil || !b.endStream || b.self || t.connected:
		c.resetStream(t.id, CodeProtocol)
	default:
		if len(lines) > 0 {
			t.trailer = lines
		}
		t.end()
	}
}
