package http2

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// beginBody prepares for the body that follows a request's head.
func (t *stream) beginBody(m *core.Message) *core.Error {
	t.declared = m.ContentLength
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
	t.in = append(t.reserve(len(body)), body...)
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
	if t.drawn {
		return core.Piece{}, io.EOF
	}
	for len(t.in) <= room && !t.ended {
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
	t.in, t.out = nil, t.reserve(0)
	t.drawn = t.ended
	end := len(t.out)
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
	t.out = t.conn.server.returnBody(t.out)
}

// reserve gives t.in with room for n bytes more, and for what a taker may write around them. With the whole window in it, it fits
// into a buffer of the loop.
func (t *stream) reserve(n int) []byte {
	s, size := t.conn.server, max(len(t.in), room)+n+core.PieceTail
	if size <= cap(t.in) {
		return t.in
	}
	b := s.borrowBody(size)
	if t.in == nil {
		return b[:room]
	}
	b = b[:copy(b, t.in)]
	t.in = s.returnBody(t.in)
	return b
}

// bodySizes are those of the buffers in which a server gathers what has come of bodies, below the loop's own: what streams hold of
// whoever sends little is in proportion to it.
var bodySizes = [...]int{4 << 10, 20 << 10}

// maxBodies bounds the buffers of each size that a server keeps for later.
const maxBodies = 64

// borrowBody gives a buffer of size or more.
func (s *Server) borrowBody(size int) []byte {
	for i, most := range bodySizes {
		if size > most {
			continue
		}
		if n := len(s.bodies[i]); n > 0 {
			b := s.bodies[i][n-1]
			s.bodies[i] = s.bodies[i][:n-1]
			return b
		}
		return make([]byte, most)
	}
	return s.worker.Loop.Borrow()
}

// returnBody takes back what borrowBody gave, or nil, and returns nil.
func (s *Server) returnBody(b []byte) []byte {
	b = b[:cap(b)]
	for i, size := range bodySizes {
		if len(b) == size {
			if len(s.bodies[i]) < maxBodies {
				s.bodies[i] = append(s.bodies[i], b)
			}
			return nil
		}
	}
	if b != nil {
		s.worker.Loop.Return(b)
	}
	return nil
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
