package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

func (t *stream) sendTrailer(lines []byte) *core.Error {
	b, start, err := t.beginBlock()
	if err != nil {
		return err
	}
	t.endBlock(t.conn.encoder.AppendTrailer(b, lines), start, true)
	return nil
}

// beginBlock gives the output with room for a frame header, for a block that endBlock must follow before any wait.
func (t *stream) beginBlock() (b []byte, start int, err *core.Error) {
	if err = t.roomy(); err != nil {
		return nil, 0, err
	}
	b = t.conn.append(0)
	start = len(b)
	return append(b, make([]byte, FrameHeaderBytes)...), start, nil
}

// endBlock writes the frame headers of the block that stands in b behind the room for the first of them. Nothing can come
// between the frames of a block: all are appended at once.
func (t *stream) endBlock(b []byte, start int, end bool) {
	c := t.conn
	h := FrameHeader{Type: FrameHeaders, Stream: t.id}
	if end {
		h.Flags, t.finished = FlagEndStream, true
	}
	t.stalled = 0
	for {
		n := len(b) - start - FrameHeaderBytes
		if n <= c.peer.maxFrame {
			h.Length, h.Flags = uint32(n), h.Flags|FlagEndHeaders
			PutFrameHeader(b[start:], h)
			break
		}
		h.Length = uint32(c.peer.maxFrame)
		PutFrameHeader(b[start:], h)
		start += FrameHeaderBytes + c.peer.maxFrame
		b = append(b, make([]byte, FrameHeaderBytes)...)
		copy(b[start+FrameHeaderBytes:], b[start:len(b)-FrameHeaderBytes])
		h = FrameHeader{Type: FrameContinuation, Stream: t.id}
	}
	c.appended(b)
}

// sendData sends bytes of the body; end says that they are the last.
func (t *stream) sendData(p []byte, end bool) *core.Error {
	for {
		if len(p) > 0 {
			if err := t.turned(); err != nil {
				return err
			}
		} else if err := t.roomy(); err != nil {
			return err
		}
		if p = t.sendFrame(p, end); len(p) == 0 {
			return nil
		}
	}
}

// sendFrame sends as much of p as the windows and the length of a frame let it, and gives the rest. To send the end of a body
// alone takes no window (RFC 9113, 6.9.1).
func (t *stream) sendFrame(p []byte, end bool) (rest []byte) {
	c := t.conn
	n := int(max(min(int64(len(p)), int64(c.peer.maxFrame), t.window, c.window), 0))
	last := end && n == len(p)
	if n > 0 || last {
		h := FrameHeader{Length: uint32(n), Type: FrameData, Stream: t.id}
		if last {
			h.Flags, t.finished = FlagEndStream, true
		}
		b := AppendFrameHeader(c.append(0), h)
		c.appended(append(b, p[:n]...))
		t.window -= int64(n)
		c.window -= int64(n)
		c.turns++
		t.turn = c.turns
		c.calm.sent(n)
		t.moved(n)
	}
	return p[n:]
}

// moved counts n bytes of the body as sent.
func (t *stream) moved(n int) {
	waited := int64(0)
	if t.stalled != 0 {
		waited = t.conn.res.loop.Now() - t.since()
	}
	t.sendPace.Moved(int64(n), waited)
	t.stalled = 0
}

// since is when the wait of a stream that is stalled began, as far as it is the peer's: if it waits for the peer's window for it,
// nothing that goes on beside it counts, else what the connection has sent does.
func (t *stream) since() int64 {
	if t.starved {
		return t.stalled
	}
	return max(t.stalled, t.conn.sent)
}

// passes says whether the windows let bytes of the body pass.
func (t *stream) passes() bool { return t.window > 0 && t.conn.window > 0 }

// turned waits until it is t's turn to send bytes that are at hand.
func (t *stream) turned() *core.Error {
	if err := t.sendable(nil); err != nil || len(t.conn.blocked) == 0 {
		return err
	}
	t.giveWay()
	return t.sendable(nil)
}

// sendable waits until the peer takes bytes of the body and there is room for them, or only the end is left of body, if it is given.
func (t *stream) sendable(body core.Body) *core.Error {
	for {
		if err := t.roomy(); err != nil {
			return err
		}
		if t.passes() {
			return nil
		}
		if f, ok := body.(core.Finisher); ok && f.Finished() {
			return nil
		}
		source := sourceOf(body)
		if source != nil {
			source.follower = t
		}
		err := t.wait()
		if source != nil {
			source.follower = nil
		}
		if err != nil {
			return err
		}
	}
}

// roomy waits until the connection's output takes more.
func (t *stream) roomy() *core.Error {
	for {
		switch {
		case t.gone != nil:
			return t.gone
		case !t.conn.out.full():
			return nil
		}
		if err := t.wait(); err != nil {
			return err
		}
	}
}

// wait waits in line until something has changed.
func (t *stream) wait() *core.Error {
	c := t.conn
	l := c.res.loop
	since := int64(0)
	if t.sendTimeout > 0 {
		if t.stalled == 0 {
			t.stalled = l.Now()
		}
		t.starved = t.window <= 0
		since = t.since()
	}
	t.sender = l.Self()
	c.line(t)
	err := l.Park(earlier(t.until, t.sendPace.Timeout(t.sendTimeout), since))
	c.unblock(t)
	switch {
	case err == nil:
		return nil
	case err == loop.ErrTimeout:
		return t.slow()
	case t.gone != nil:
		return t.gone
	}
	return core.ErrClientGone
}

// line puts t in line, at the place that its priority gives it.
func (c *conn) line(t *stream) {
	i := len(c.blocked)
	for i > 0 && t.before(c.blocked[i-1]) {
		i--
	}
	c.blocked = append(c.blocked, nil)
	copy(c.blocked[i+1:], c.blocked[i:])
	c.blocked[i] = t
	t.waiting = true
}

func (c *conn) unblock(t *stream) {
	t.waiting = false
	for i := range c.blocked {
		if c.blocked[i] == t {
			c.blocked = append(c.blocked[:i], c.blocked[i+1:]...)
			return
		}
	}
}

// overtakes says whether somebody is in line who can send and whose turn is before t's.
func (t *stream) overtakes() bool {
	for _, o := range t.conn.blocked {
		if !o.before(t) {
			return false
		}
		if o.passes() {
			return true
		}
	}
	return false
}

// giveWay lets those go first whom t would overtake. While there is room they were woken, so that they run before t does again, if
// only to leave the line.
func (t *stream) giveWay() {
	if c := t.conn; t.overtakes() {
		t.sender = c.res.loop.Self()
		c.line(t)
		c.res.loop.Yield()
		c.unblock(t)
	}
}

// unblock lets the stream look again whether it can send.
func (t *stream) unblock() {
	if t.waiting {
		t.sender.Wake()
	}
}
