package http2

// windowUpdate lets us send more (RFC 9113, 6.9).
func (c *conn) windowUpdate(h FrameHeader, increment int64) {
	if !c.calmly(calmWindow) {
		return
	}
	if h.Stream == 0 {
		if increment == 0 {
			c.fail(CodeProtocol, "window update of nothing")
		} else if c.window += increment; c.window > MaxWindow {
			c.fail(CodeFlowControl, "window overflow")
		} else {
			c.wakeBlocked()
		}
		return
	}
	t := c.streams[h.Stream]
	switch {
	case t == nil:
		c.closedStream(h)
	case increment == 0:
		c.resetStream(h.Stream, CodeProtocol)
	default:
		if t.window += increment; t.window > MaxWindow {
			c.resetStream(h.Stream, CodeFlowControl)
			return
		}
		t.unblock()
	}
}

// data takes a piece of a body. All of it counts against the windows, padding too (RFC 9113, 6.9.1).
func (c *conn) data(h FrameHeader, payload []byte) {
	t := c.streams[h.Stream]
	if t == nil && c.unopened(h.Stream) {
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
	case t.asked != nil && !t.asked.answered: // a body without a head (RFC 9113, 8.1)
		c.giveBack(int64(h.Length))
		c.resetStream(t.id, CodeProtocol)
	default:
		t.receive(body, int64(h.Length))
		if h.Flags.Has(FlagEndStream) && c.streams[h.Stream] == t {
			t.end()
		}
	}
}

// giveBack lets the peer send n bytes more on the connection, once it is worth a frame.
func (c *conn) giveBack(n int64) {
	if c.taken += n; c.taken < connWindow/4 || c.dying || c.closed {
		return
	}
	c.appended(AppendWindowUpdate(c.append(FrameHeaderBytes+4), 0, uint32(c.taken)))
	c.credit += c.taken
	c.taken = 0
}
