package http2

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// room is left before a piece of a body, for the head of the message that it is sent with.
const room = 1 << 10

// receive takes a piece of the body. size is what it counts against the windows.
func (t *stream) receive(body []byte, size int64) {
	c := t.conn
	t.received += int64(len(body))
	t.intake.left -= size
	switch {
	case t.intake.left < 0:
		c.giveBack(size)
		c.resetStream(t.id, CodeFlowControl)
		return
	case t.declared >= 0 && t.received > t.declared:
		c.giveBack(size)
		c.resetStream(t.id, CodeProtocol)
		return
	}
	if t.in.put(c.res, body) {
		c.crowded = true
	}
	t.x.Moved = c.res.loop.Now()
	t.give(size - int64(len(body)))
	if len(body) > 0 {
		t.wakeReader()
	}
}

// end notes that the peer has sent all.
func (t *stream) end() {
	if t.declared >= 0 && t.received != t.declared {
		t.conn.resetStream(t.id, CodeProtocol)
		return
	}
	t.ended = true
	t.wakeReader()
	if t.follower != nil {
		t.follower.unblock()
	}
}

func (t *stream) wakeReader() {
	if t.reading {
		t.reader.Wake()
	}
}

// Ready says whether a piece of the body is at hand.
func (t *stream) Ready() bool { return t.in.bytes > 0 || t.ended }

// Finished says that nothing is left of the body but its end, which has come.
func (t *stream) Finished() bool { return t.ended && t.in.bytes == 0 && !t.drawn }

// next gives what has come of the body, and waits for it. While the piece is used, more gathers behind it.
func (t *stream) next() (core.Piece, error) {
	t.Release()
	if t.drawn {
		return core.Piece{}, io.EOF
	}
	l := t.conn.res.loop
	since := l.Now()
	for !t.Ready() {
		t.intake.waited = true
		err := t.await(earlier(0, t.receivePace.Timeout(t.receiveTimeout), since))
		switch {
		case err != nil && (err != t.conn.blame.slowSender || t.x.Moved <= since):
			return core.Piece{}, err
		case !t.Ready(): // the other way is alive
			since = t.x.Moved
		}
	}
	t.out = t.in.take(t.conn.res)
	t.drawn = t.ended && t.in.bytes == 0
	end := len(t.out)
	t.lent = int64(end - room)
	t.receivePace.Moved(t.lent, l.Now()-since)
	return core.Piece{Buf: t.out[:cap(t.out)], Start: room, End: end, Last: t.drawn}, nil
}

// await waits for something to come until an instant on the loop's clock; 0: without end.
func (t *stream) await(deadline int64) error {
	if t.gone != nil {
		return t.gone
	}
	l := t.conn.res.loop
	t.reader, t.reading = l.Self(), true
	if t.until != 0 && (deadline == 0 || t.until < deadline) {
		deadline = t.until
	}
	err := l.Park(deadline)
	t.reading = false
	switch err {
	case nil, loop.ErrInterrupted, loop.ErrStopped:
		return err
	case loop.ErrTimeout:
		return t.conn.blame.slowSender
	}
	return core.ErrClientGone
}

// earlier is the earlier of an instant and timeout after since, of which either may be 0: never.
func earlier(instant, timeout, since int64) int64 {
	if timeout > 0 && (instant == 0 || since+timeout < instant) {
		return since + timeout
	}
	return instant
}

// Release lets the peer send as much as was taken.
func (t *stream) Release() {
	n := t.lent
	t.lent = 0
	t.give(n)
	t.out = t.conn.res.giveBack(t.out)
}
