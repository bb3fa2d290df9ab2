package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// conn is a connection as both of its sides see it: frames that come and go, windows, streams. What only one side does is
// in serverConn and ClientConn.
type conn struct {
	side   side
	client bool // we have made the connection, and open the streams
	res    *resources
	raw    *loop.Conn
	blame  blame

	held     []byte // borrowed: received, and not yet a whole frame; nil: nothing
	greeted  bool   // the preface has come, or is ours to send
	settled  bool   // the peer's first SETTINGS have
	serving  bool   // Serve runs
	limits   Limits // of header blocks, as of when the connection last rested
	decoder  *Decoder
	encoder  *Encoder
	block    headerBlock
	streams  map[uint32]*stream // open on the wire
	last     uint32             // the highest stream that the client has opened
	running  int                // streams whose exchange has not ended
	departed departed           // streams that we have reset
	strays   int                // frames that may still come on those without being counted

	out    output
	peer   remote
	window int64 // bytes of bodies that the peer takes now
	credit int64 // bytes of bodies that the peer may still send
	taken  int64 // of those it has sent, what is used up and not yet given back to it
	wide   int   // streams that the peer may send more on than at first

	blocked  []*stream // in line to send, in the order of their priorities
	turns    uint64    // frames of bodies that were sent
	foretold *foretold // nil: no priority has come before its stream
	sent     int64     // when bytes were last written
	came     int64     // when what Serve takes had come
	due      int64     // when what the peer has begun must be complete, or a failed connection is closed; 0: nothing is due
	calm     calm
	pulse
	crowded   bool // a stream holds more than fits into a buffer: its taker should have its turn
	ending    bool // the end was announced
	dying     bool // the connection has failed: what comes is thrown away
	discarded int  // bytes of that
	closed    bool
}

// side is what clients and servers do differently. It is asked between frames, and must not wait.
type side interface {
	// onBlock takes a header block. t is the stream that it came on; nil: one that was not open yet.
	onBlock(t *stream, b headerBlock)
	// onReset is told that the peer has reset t, which is open.
	onReset(t *stream, code ErrorCode)
	// rest leaves the connection to the loop, for as long as it may be silent. All that came was taken.
	rest()
}

// blame is what the streams of a side fail with.
type blame struct {
	gone                  *core.Error // the peer has gone
	wrong                 *core.Error // the peer broke the protocol
	slowSender, slowTaker *core.Error // the peer let a body wait, or did not take one
}

// remote is what the other side has told in its settings.
type remote struct {
	initialWindow int64  // of each new stream
	maxFrame      int    // the longest payload that it takes
	maxStreams    uint32 // that it lets a client have open; a client's says nothing
	connect       bool   // it knows the extended CONNECT (RFC 8441, 3)
	goAway        bool   // it takes no more streams
	lastStream    uint32 // with goAway: it looks at none above
}

// assumedStreams is how many streams a peer is taken to allow that does not say: none should allow less (RFC 9113, 6.5.2).
const assumedStreams = 100

// open makes the connection ready for frames. What we say first is left to the caller, who appends it.
func (c *conn) open(side side, client bool, r *resources, raw *loop.Conn, b blame) {
	c.side, c.client, c.greeted, c.res, c.raw, c.blame = side, client, client, r, raw, b
	c.decoder, c.encoder = NewDecoder(defaultTableBytes), NewEncoder()
	c.decoder.Use(&r.scratch)
	c.streams = map[uint32]*stream{}
	c.peer = remote{initialWindow: streamWindow, maxFrame: MinMaxFrame, maxStreams: assumedStreams}
	c.window, c.credit = streamWindow, connWindow
	raw.Busy = true
}

// Serve takes frames until nothing more is there.
func (c *conn) Serve(raw *loop.Conn) {
	l := raw.Loop()
	c.serving, c.came = true, raw.Came()
	buf := l.Borrow()
	n := copy(buf, c.held)
	c.held = c.res.giveBack(c.held)
	var err error
	for reads := 1; err == nil; reads++ {
		if reads%maxReads == 0 || c.crowded {
			c.crowded = false
			l.Yield()
			c.came = l.Turned()
		}
		if c.dying && (l.Now() >= c.due || c.discarded > lingerBytes) {
			err = loop.ErrTimeout
			break
		}
		if n > 0 {
			n = copy(buf, buf[c.take(buf[:n]):n])
		}
		var k int
		if k, err = raw.ReadNow(buf[n:]); k > 0 {
			n += k
			c.heard = l.Now()
		}
	}
	if c.serving = false; err == loop.ErrAgain {
		c.held = c.res.hold(buf[:n])
	}
	l.Return(buf)
	if err != loop.ErrAgain {
		raw.Close()
		return
	}
	c.side.rest()
}

// maxReads is how often a connection reads before others have their turn.
const maxReads = 16

// take uses up the whole frames at the start of b.
func (c *conn) take(b []byte) (used int) {
	if c.dying {
		c.discarded += len(b)
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
		if t := c.streams[h.Stream]; t != nil {
			c.side.onReset(t, parseResetStream(payload))
		} else {
			c.closedStream(h)
		}
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
		c.fail(CodeProtocol, "PUSH_PROMISE that nobody may send")
	case FrameGoAway:
		if c.calmly(calmControl) {
			last, _, _ := parseGoAway(payload)
			c.peer.goAway, c.peer.lastStream = true, last
		}
	default:
		c.calmly(calmControl)
	}
}

// settings takes what the peer asks for, and acknowledges it.
func (c *conn) settings(h FrameHeader, payload []byte) {
	if !c.calmly(calmSettings) || h.Flags.Has(FlagAck) {
		return
	}
	if !c.settled && c.client {
		c.peer.maxStreams = assumedStreams // unless it says so: what it told before is of no account any more
	}
	c.settled = true
	code := parseSettings(payload, func(id SettingID, v uint32) ErrorCode {
		switch id {
		case SettingEnablePush: // a server must not allow it (RFC 9113, 6.5.2)
			if c.client && v != 0 {
				return CodeProtocol
			}
		case SettingHeaderTableSize:
			c.encoder.SetMaxTable(int(min(v, defaultTableBytes)))
		case SettingInitialWindowSize:
			change := int64(v) - c.peer.initialWindow
			c.peer.initialWindow = int64(v)
			for _, t := range c.streams {
				if t.window += change; t.window > MaxWindow {
					return CodeFlowControl
				}
			}
			if change > 0 {
				c.wakeBlocked()
			}
		case SettingMaxFrameSize:
			c.peer.maxFrame = int(min(v, maxSent))
		case SettingMaxConcurrentStreams:
			c.peer.maxStreams = v
		case SettingEnableConnectProtocol:
			c.peer.connect = v == 1
		}
		return CodeNo
	})
	if code != CodeNo {
		c.fail(code, "bad SETTINGS")
		return
	}
	c.appended(AppendSettingsAck(c.append(FrameHeaderBytes)))
}
