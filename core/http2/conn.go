package http2

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// conn is one client's connection.
type conn struct {
	server *Server
	raw    *loop.Conn
	port   Port
	origin core.Origin

	held     []byte // borrowed: received, and not yet a whole frame; nil: nothing
	greeted  bool   // the preface has come
	settled  bool   // the client's first SETTINGS have
	serving  bool   // Serve runs
	decoder  *Decoder
	encoder  *Encoder
	block    headerBlock
	streams  map[uint32]*stream // open on the wire
	last     uint32             // the highest stream that the client has opened
	accepted uint32             // no stream above is served; once the end was announced
	running  int                // streams whose task has not ended
	departed departed           // streams that we have reset

	out           output
	window        int64 // bytes of bodies that the client takes now
	initialWindow int64 // of each new stream
	maxFrame      int   // the longest payload that the client takes
	credit        int64 // bytes of bodies that the client may still send
	taken         int64 // of those it has sent, what is used up and not yet given back to it
	blocked       []*stream

	sent   int64 // when bytes were last written
	due    int64 // when what the client has begun must be complete, or a failed connection is closed; 0: nothing is due
	calm   calm
	ending bool // the end was announced
	final  bool // and which streams are the last
	dying  bool // the connection has failed: what comes is thrown away
	closed bool
}

// headerBlock is a header block in the making (RFC 9113, 4.3).
type headerBlock struct {
	stream    uint32 // 0: none
	bytes     []byte
	frames    int
	endStream bool
	self      bool // the stream depends on itself
}

func (c *conn) String() string { return "http/2 client " + c.origin.Peer.String() }

// open says how we want to be spoken to.
func (c *conn) open() {
	settings := c.port.Settings()
	c.decoder, c.encoder = NewDecoder(defaultTableBytes), NewEncoder()
	c.decoder.Use(&c.server.scratch)
	c.streams = map[uint32]*stream{}
	c.window, c.initialWindow, c.maxFrame, c.credit = 64<<10-1, 64<<10-1, MinMaxFrame, connWindow
	c.raw.WriteTimeout = int64(settings.WriteTimeout)
	c.raw.Busy = true
	b := c.append(64)
	b = AppendSettings(b,
		Setting{SettingMaxConcurrentStreams, maxStreams},
		Setting{SettingMaxHeaderListSize, uint32(settings.HeaderBytes)},
		Setting{SettingNoRFC7540Priorities, 1})
	c.appended(AppendWindowUpdate(b, 0, connWindow-(64<<10-1)))
}

// Closed ends what the connection's streams were working for.
func (c *conn) Closed(*loop.Conn) {
	c.closed = true
	delete(c.server.conns, c)
	c.held = c.server.returnBody(c.held)
	c.abandonStreams()
	c.port.Release(c.origin.Peer)
}

func (c *conn) abandonStreams() {
	for id, t := range c.streams {
		delete(c.streams, id)
		t.abandon()
	}
}

// Serve takes frames until nothing more is there.
func (c *conn) Serve(raw *loop.Conn) {
	l := raw.Loop()
	c.serving = true
	buf := l.Borrow()
	n := copy(buf, c.held)
	c.held = c.server.returnBody(c.held)
	var err error
	for reads := 1; err == nil; reads++ {
		if reads%maxReads == 0 {
			l.Yield()
			if c.dying && l.Now() >= c.due {
				err = loop.ErrTimeout
				break
			}
		}
		if n > 0 {
			n = copy(buf, buf[c.take(buf[:n]):n])
		}
		var k int
		k, err = raw.ReadNow(buf[n:])
		n += k
	}
	if c.serving = false; err == loop.ErrAgain {
		c.held = c.server.hold(buf[:n])
	}
	l.Return(buf)
	if err != loop.ErrAgain {
		raw.Close()
		return
	}
	c.rest()
}

// maxReads is how often a connection reads before others have their turn.
const maxReads = 16

// hold gives a copy of b, which is less than a frame and its header, in a buffer that is borrowed; nil if there is nothing.
func (s *Server) hold(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append(s.borrowBody(len(b))[:0], b...)
}

// rest leaves the connection to the loop, for as long as it may be silent.
func (c *conn) rest() {
	if c.closed || c.serving {
		return
	}
	if c.port.Draining() {
		c.drain()
	}
	settings, now := c.port.Settings(), c.server.worker.Loop.Now()
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
func (c *conn) patience(settings *core.Listener) time.Duration {
	if c.settled && c.block.stream == 0 && len(c.held) >= FrameHeaderBytes && ParseFrameHeader(c.held).Type == FrameData {
		return settings.BodyTimeout
	}
	return settings.HeaderTimeout
}

// take uses up the whole frames at the start of b.
func (c *conn) take(b []byte) (used int) {
	if c.dying {
		return len(b)
	}
	if !c.greeted {
		n := min(len(b), len(core.HTTP2Preface))
		if string(b[:n]) != core.HTTP2Preface[:n] {
			c.fail(CodeProtocol, "no preface")
			return len(b)
		}
		if n < len(core.HTTP2Preface) {
			return 0
		}
		c.greeted, used = true, n
	}
	for len(b)-used >= FrameHeaderBytes {
		h := ParseFrameHeader(b[used:])
		if code := h.check(MinMaxFrame); code != CodeNo {
			c.fail(code, "malformed frame")
			return len(b)
		}
		end := used + FrameHeaderBytes + int(h.Length)
		if end > len(b) {
			break
		}
		c.frame(h, b[used+FrameHeaderBytes:end])
		if c.dying {
			return len(b)
		}
		if used = end; c.settled && c.block.stream == 0 {
			c.due = 0
		}
	}
	return used
}

// frame takes one frame, whose header is in order.
func (c *conn) frame(h FrameHeader, payload []byte) {
	switch {
	case !c.settled && (h.Type != FrameSettings || h.Flags.Has(FlagAck)):
		c.fail(CodeProtocol, "first frame is not SETTINGS")
		return
	case c.block.stream != 0 && (h.Type != FrameContinuation || h.Stream != c.block.stream):
		c.fail(CodeProtocol, "header block interrupted")
		return
	}
	switch h.Type {
	case FrameData:
		c.data(h, payload)
	case FrameHeaders:
		c.headers(h, payload)
	case FrameContinuation:
		c.continuation(h, payload)
	case FrameResetStream:
		c.resetByClient(h, parseResetStream(payload))
	case FrameSettings:
		c.settings(h, payload)
	case FramePing:
		if c.calmly(calmPing) && !h.Flags.Has(FlagAck) {
			c.appended(AppendPing(c.append(FrameHeaderBytes+8), true, [8]byte(payload)))
		}
	case FrameWindowUpdate:
		c.windowUpdate(h, parseWindowUpdate(payload))
	case FramePriority:
		if !c.calmly(calmControl) {
			return
		}
		if code := priorityPayload(h, payload); code != CodeNo {
			c.resetStream(h.Stream, code)
		}
	case FramePriorityUpdate:
		if stream, value, code := parsePriorityUpdate(payload); code != CodeNo {
			c.fail(code, "malformed PRIORITY_UPDATE")
		} else if c.calmly(calmControl) {
			c.prioritise(stream, value)
		}
	case FramePushPromise:
		c.fail(CodeProtocol, "PUSH_PROMISE from a client")
	case FrameGoAway: // the client opens no more streams, which shows by itself
		c.calmly(calmControl)
	default:
		c.calmly(calmControl)
	}
}

// settings takes what the client asks for, and acknowledges it.
func (c *conn) settings(h FrameHeader, payload []byte) {
	if !c.calmly(calmSettings) || h.Flags.Has(FlagAck) {
		return
	}
	c.settled = true
	code := parseSettings(payload, func(id SettingID, v uint32) ErrorCode {
		switch id {
		case SettingHeaderTableSize:
			c.encoder.SetMaxTable(int(min(v, defaultTableBytes)))
		case SettingInitialWindowSize:
			change := int64(v) - c.initialWindow
			c.initialWindow = int64(v)
			for _, t := range c.streams {
				if t.window += change; t.window > MaxWindow {
					return CodeFlowControl
				}
			}
			if change > 0 {
				c.wakeBlocked()
			}
		case SettingMaxFrameSize:
			c.maxFrame = int(min(v, maxSent))
		}
		return CodeNo
	})
	if code != CodeNo {
		c.fail(code, "bad SETTINGS")
		return
	}
	c.appended(AppendSettingsAck(c.append(FrameHeaderBytes)))
}

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

// closedStream judges a frame on a stream that is not open: one that was never opened is an error of the connection, one
// that we have reset may still be sent on by a client that does not know, and so may small frames be on any other.
func (c *conn) closedStream(h FrameHeader) {
	switch {
	case h.Stream > c.last || h.Stream&1 == 0:
		c.fail(CodeProtocol, "frame on an idle stream")
	case h.Type == FrameWindowUpdate: // has been counted
	case h.Type == FrameResetStream:
		c.departed.remove(c.last, h.Stream)
		c.calmly(calmControl)
	case !c.departed.has(c.last, h.Stream):
		c.fail(CodeStreamClosed, "frame on a closed stream")
	case h.Flags.Has(FlagEndStream) && c.departed.remove(c.last, h.Stream): // it can come but once
	case h.Length < smallData:
		c.calmly(calmControl)
	}
}

// smallData is what a frame of body must bring so that it costs its sender more than us when nobody wants it.
const smallData = 1 << 10

// resetByClient ends a stream that its client does not want any more.
func (c *conn) resetByClient(h FrameHeader, _ ErrorCode) {
	t := c.streams[h.Stream]
	if t == nil {
		c.closedStream(h)
		return
	}
	c.server.counts.Resets++
	if c.calmly(calmReset) {
		delete(c.streams, h.Stream)
		t.abandon()
	}
}

// resetStream ends a stream, if it is open, and tells the client why.
func (c *conn) resetStream(id uint32, code ErrorCode) {
	if c.dying || c.closed {
		return
	}
	c.departed.add(c.last, id)
	c.appended(AppendResetStream(c.append(FrameHeaderBytes+4), id, code))
	if t := c.streams[id]; t != nil {
		delete(c.streams, id)
		t.abandon()
	}
}

// fail ends the connection with a GOAWAY frame that says why.
func (c *conn) fail(code ErrorCode, why string) {
	if c.dying || c.closed {
		return
	}
	c.appended(AppendGoAway(c.append(FrameHeaderBytes+8+len(why)), c.last, code, why))
	c.die()
	c.abandonStreams()
}

// die makes what still comes be thrown away, for a moment.
func (c *conn) die() {
	c.dying, c.ending = true, true
	c.due = c.server.worker.Loop.Now() + int64(lingerTime)
}

// drain announces the end, and a moment later which streams are the last.
func (c *conn) drain() {
	if c.ending || c.closed {
		return
	}
	c.ending, c.accepted = true, MaxWindow
	c.appended(AppendGoAway(c.append(FrameHeaderBytes+8), MaxWindow, CodeNo, ""))
	l := c.server.worker.Loop
	l.NewTimer(c.drained).At(l.Now() + int64(drainTime))
}

func (c *conn) drained() {
	if c.closed || c.dying {
		return
	}
	c.accepted, c.final = c.last, true
	c.appended(AppendGoAway(c.append(FrameHeaderBytes+8), c.last, CodeNo, ""))
}

// remembered is of how many streams a connection knows, after their end, whether it was us who reset them.
const remembered = 1024

// departed are the streams, of those opened last, that we have reset: the client may not have known yet when it sent more on them.
type departed [remembered / 64]uint64

func (d *departed) bit(id uint32) (*uint64, uint64) {
	i := id / 2 % remembered
	return &d[i/64], 1 << (i % 64)
}

// opened forgets what was known of the streams whose places id takes, and those that it skips.
func (d *departed) opened(last, id uint32) {
	for range min((id-last+1)/2, remembered) {
		word, bit := d.bit(id)
		*word &^= bit
		id -= 2
	}
}

func (d *departed) add(last, id uint32) {
	if id <= last && last-id < 2*remembered {
		word, bit := d.bit(id)
		*word |= bit
	}
}

// remove notes that the client has ended its side, too; false: it was not known.
func (d *departed) remove(last, id uint32) bool {
	if last-id >= 2*remembered {
		return false
	}
	word, bit := d.bit(id)
	was := *word&bit != 0
	*word &^= bit
	return was
}

// has says whether we have reset the stream, or it is too old to tell.
func (d *departed) has(last, id uint32) bool {
	if last-id >= 2*remembered {
		return true
	}
	word, bit := d.bit(id)
	return *word&bit != 0
}
