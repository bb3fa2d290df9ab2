package http2

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// lingerTime is how long a failed connection is read from, so that its last words are not destroyed by a reset.
const lingerTime = time.Second

// lingerBytes is how much of that, about: who goes on sending has had what was under way, and shall not have the processor.
const lingerBytes = 1 << 20

// unopened says that nobody has opened the stream of this number.
func (c *conn) unopened(id uint32) bool { return id > c.last || id&1 == 0 }

// closedStream judges a frame on a stream that is not open: one that was never opened is an error of the connection, one
// that we have reset may still be sent on by a peer that does not know, and so may small frames be on any other.
func (c *conn) closedStream(h FrameHeader) {
	switch {
	case c.unopened(h.Stream):
		c.fail(CodeProtocol, "frame on an idle stream")
	case h.Type == FrameWindowUpdate: // has been counted
	case h.Type == FrameResetStream:
		c.departed.remove(c.last, h.Stream)
		c.stray()
	case !c.departed.has(c.last, h.Stream):
		c.fail(CodeStreamClosed, "frame on a closed stream")
	case h.Flags.Has(FlagEndStream) && c.departed.remove(c.last, h.Stream): // it can come but once
	case h.Length < smallData:
		c.stray()
	}
}

// stray counts a frame on a stream that we have reset; false: the connection has ended. A client resets streams for reasons of its
// own: whatever the upstream could have sent by then is no fault of it, and must not end what others have under way.
func (c *conn) stray() bool {
	if c.strays > 0 {
		c.strays--
		return true
	}
	return c.calmly(calmControl)
}

// smallData is what a frame of body must bring so that it costs its sender more than us when nobody wants it.
const smallData = 1 << 10

// maxStrays is how many small frames fit into the window of a stream, besides its head and its end.
const maxStrays = streamWindow/smallData + 2

// resetStream ends a stream, if it is open, for what the peer did wrong, and tells it.
func (c *conn) resetStream(id uint32, code ErrorCode) { c.cut(id, code, c.blame.wrong) }

// cut ends a stream, if it is open, because of err, and tells the peer why.
func (c *conn) cut(id uint32, code ErrorCode, err *core.Error) {
	if c.dying || c.closed {
		return
	}
	c.departed.add(c.last, id)
	c.appended(AppendResetStream(c.append(FrameHeaderBytes+4), id, code))
	if t := c.streams[id]; t != nil {
		if c.client {
			c.strays += maxStrays
		}
		delete(c.streams, id)
		t.abandon(err)
	}
}

// fail ends the connection with a GOAWAY frame that says why.
func (c *conn) fail(code ErrorCode, why string) {
	if c.dying || c.closed {
		return
	}
	last := c.last
	if c.client { // a client says which of the server's streams it has seen: there are none
		last = 0
	}
	c.appended(AppendGoAway(c.append(FrameHeaderBytes+8+len(why)), last, code, why))
	c.die()
	c.abandonStreams(c.blame.wrong)
}

// die makes what still comes be thrown away, for a moment.
func (c *conn) die() {
	c.dying, c.ending = true, true
	c.due = c.res.loop.Now() + int64(lingerTime)
}

// abandonStreams ends the streams because of err.
func (c *conn) abandonStreams(err *core.Error) {
	for id, t := range c.streams {
		delete(c.streams, id)
		t.abandon(err)
	}
}

// end takes the connection off the books after it was closed.
func (c *conn) end() {
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.held = c.res.giveBack(c.held)
	c.abandonStreams(c.blame.gone)
}
