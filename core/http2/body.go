package http2

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// beginBody prepares for the body that follows a request's head.
func (t *stream) beginBody(m *core.Message) *core.Error {
	t.credit, t.declared, t.urgency = streamWindow, m.ContentLength, defaultUrgency
	if p, ok := m.Lookup("priority"); ok {
		t.urgency = urgencyOf(p, t.urgency)
	}
	if t.ended {
		if t.declared > 0 {
			return errLength
		}
		m.Body = nil
		return nil
	}
	m.Body, m.Chunked = t, t.declared < 0
	return nil
}

var errLength = &core.Error{Status: 400, Reason: "bad_request", Detail: "body differs from Content-Length"}

// receive takes a piece of the body. size is what it counts against the windows.
func (t *stream) receive(body []byte, size int64) {
	c := t.conn
	t.received += int64(len(body))
	t.credit -= size
	switch {
	case t.credit < 0:
		c.giveBack(size)
		c.resetStream(t.id, CodeFlowControl)
		return
	case t.declared >= 0 && t.received > t.declared:
		c.giveBack(size)
		c.resetStream(t.id, CodeProtocol)
		return
	}
	if len(t.in) == 0 {
		if cap(t.in) < room {
			t.in = make([]byte, room, 2*room)
		}
		t.in = t.in[:room]
	}
	t.in = append(t.in, body...)
	t.give(size - int64(len(body)))
	if len(body) > 0 {
		t.wakeReader()
	}
}

// end notes that the client has sent all.
func (t *stream) end() {
	if t.declared >= 0 && t.received != t.declared {
		t.conn.resetStream(t.id, CodeProtocol)
		return
	}
	t.ended = true
	t.wakeReader()
}

func (t *stream) wakeReader() {
	if t.reading {
		t.reader.Wake()
	}
}

// buffered is what was received and not taken.
func (t *stream) buffered() int64 { return int64(max(len(t.in)-room, 0)) }

// Ready says whether a piece of the body is at hand.
func (t *stream) Ready() bool { return len(t.in) > room || t.ended }

// Next gives what has come of the body.
func (t *stream) Next() (core.Piece, error) {
	t.Release()
	l := t.conn.server.worker.Loop
	for len(t.in) <= room && !t.ended {
		if t.drawn {
			return core.Piece{}, io.EOF
		}
		if t.gone {
			return core.Piece{}, core.ErrClientGone
		}
		deadline := int64(0)
		if timeout := t.x.Listener.BodyTimeout; timeout > 0 {
			deadline = l.Now() + int64(timeout)
		}
		t.reader, t.reading = l.Self(), true
		err := l.Park(deadline)
		t.reading = false
		switch err {
		case nil:
		case loop.ErrTimeout:
			return core.Piece{}, core.ErrRequestTimeout
		case loop.ErrInterrupted, loop.ErrStopped:
			return core.Piece{}, err
		default:
			return core.Piece{}, core.ErrClientGone
		}
	}
	return t.piece()
}

// piece gives all that is there. While it is used, more gathers in the other buffer.
func (t *stream) piece() (core.Piece, error) {
	x := t.x
	if len(t.in) == 0 { // an end without anything before it
		t.in = append(t.in, make([]byte, room)...)
	}
	t.in, t.out = t.out[:0], t.in
	t.drawn = t.ended
	end := len(t.out)
	if cap(t.out)-end < core.PieceTail {
		t.out = append(t.out, make([]byte, core.PieceTail)...)
	}
	p := core.Piece{Buf: t.out[:cap(t.out)], Start: room, End: end, Last: t.drawn}
	t.lent = int64(end - room)
	x.Sent.RequestBody += t.lent
	if t.drawn {
		x.Request.Trailer = t.trailer
	}
	if x.BodyLimit > 0 && x.Sent.RequestBody > x.BodyLimit {
		return p, core.ErrBodyTooLarge
	}
	return p, nil
}

// Release lets the client send as much as was taken.
func (t *stream) Release() {
	n := t.lent
	t.lent = 0
	t.give(n)
}

// give gives n used bytes back to the client, on the stream and on the connection.
func (t *stream) give(n int64) {
	if n == 0 {
		return
	}
	c := t.conn
	c.giveBack(n)
	if t.returned += n; t.returned < streamWindow/2 || t.ended || t.gone || c.dying {
		return
	}
	c.appended(AppendWindowUpdate(c.append(FrameHeaderBytes+4), t.id, uint32(t.returned)))
	t.credit += t.returned
	t.returned = 0
}
