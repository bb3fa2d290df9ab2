package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// stream is one stream as both of its ends see it: the body that comes, and what is sent. The connection's reader gives it
// what has come; a task takes it, and that task or another sends.
type stream struct {
	conn  *conn
	id    uint32
	x     *core.Exchange
	task  loop.Task     // serves the exchange and must hear of it when the stream is gone; none: nobody need
	asked *ClientStream // who has opened it; nil: the peer
	gone  *core.Error   // why nothing can be sent or received any more; nil: it can
	until int64         // when every wait ends, on the loop's clock; 0: when its timeout has passed

	// The body that comes.
	in             inbox  // has come and was not taken
	out            []byte // borrowed: the piece that was taken last
	lent           int64  // bytes of that piece, not yet given back to the peer
	intake         intake
	received       int64
	declared       int64 // Content-Length; -1: none
	receiveTimeout int64 // nanoseconds for each wait; 0: none
	receivePace    core.Pace
	ended          bool // the peer has sent all
	drawn          bool // to the last piece
	trailer        []byte
	reader         loop.Task // waits for more
	reading        bool
	follower       *stream // to which the body goes on, and which waits for its window; nil: none

	// What is sent.
	window      int64
	sendTimeout int64 // nanoseconds without progress; 0: none
	sendPace    core.Pace
	sender      loop.Task // waits for the window, or for room
	waiting     bool
	stalled     int64 // since when it waits without having sent anything; 0: it does not
	starved     bool  // it waits for the peer's window for it
	finished    bool  // END_STREAM has been sent
	priority    priority
	preferred   bool   // the priority is what the client said
	turn        uint64 // when it last sent, of the connection's turns

	connected bool // DATA alone may come, and ends it (RFC 9113, 8.5)
	tunnel    bool // bytes pass unread both ways, from OpenTunnel on
}

// open makes t a stream of c.
func (t *stream) open(c *conn, id uint32) {
	t.conn, t.id = c, id
	t.window, t.declared, t.priority = c.peer.initialWindow, -1, priority{urgency: defaultUrgency}
	t.turn = c.turns
	t.intake = intake{width: streamWindow, left: streamWindow}
	c.streams[id] = t
}

// abandon tells those who work for the stream that nothing more can be sent or received on it.
func (t *stream) abandon(err *core.Error) {
	t.gone = err
	if t.task != (loop.Task{}) {
		t.task.Hangup()
	}
	if t.reading {
		t.reader.Wake()
	}
	t.unblock()
}

// leave ends the stream, whatever state it is in. The peer is told with unfinished that our body breaks off, else with unwanted
// that the rest of its own is of no use.
func (t *stream) leave(unfinished, unwanted ErrorCode) {
	c := t.conn
	if t.gone == nil && t.id != 0 {
		switch {
		case !t.finished:
			c.cut(t.id, unfinished, c.blame.gone)
		case !t.ended:
			c.cut(t.id, unwanted, c.blame.gone)
		default:
			delete(c.streams, t.id)
		}
	}
	c.giveBack(t.lent + t.in.bytes)
	t.in.drop(c.res)
	t.out, t.lent = c.res.giveBack(t.out), 0
	if t.intake.wide() {
		c.wide--
	}
	c.running--
	if c.running == 0 && !c.out.waits() {
		c.side.rest()
	}
}
