package http1

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// requestBody draws the body of a request from the client's connection.
type requestBody struct {
	e          *exchange
	buf        []byte // borrowed; nil: nothing is buffered
	start, end int    // received and not yet taken
	left       int64  // bytes to come with Content-Length
	chunked    bool
	decoder    ChunkDecoder
	pace       core.Pace
	done       bool // the body has been taken to its end
}

// begin takes over buf, where what has come after the head stands at start..end.
func (b *requestBody) begin(e *exchange, buf []byte, start, end int) {
	m := &e.x.Request
	b.e, b.buf, b.start, b.end = e, buf, start, end
	b.chunked, b.left = m.Chunked, max(m.ContentLength, 0)
	b.done = !b.chunked && b.left == 0
	if b.chunked {
		b.decoder.Reset()
	}
	if !b.done {
		m.Body = b
		r := &e.x.Listener.MinRate
		b.pace = r.NewPace(r.Receive)
		return
	}
	m.Body = nil
	b.holdRest()
	b.release()
}

// holdRest moves what was received after the body to where the next request is read from: who takes the last piece may
// write into the room behind it, and no buffer is held for a pipelined request while this one is answered.
func (b *requestBody) holdRest() {
	s := b.e.conn
	s.held = append(s.held[:0], b.buf[b.start:b.end]...)
	b.end = b.start
}

// Release gives the buffer back if all in it has been taken: none is held while the upstream thinks.
func (b *requestBody) Release() {
	if b.start == b.end {
		b.release()
	}
}

func (b *requestBody) release() {
	if b.buf != nil {
		b.e.conn.server.worker.Loop.Return(b.buf)
		b.buf = nil
	}
	b.start, b.end = 0, 0
}

// Next gives the next piece of the body, decoded and counted. The buffer is given back while nothing is there.
func (b *requestBody) Next() (core.Piece, error) {
	if b.done {
		return core.Piece{}, io.EOF
	}
	if b.start == b.end {
		if err := b.fill(); err != nil {
			return core.Piece{}, err
		}
	}
	p, err := b.take()
	if err != nil {
		return p, err
	}
	x := b.e.x
	x.Sent.RequestBody += int64(p.End - p.Start)
	if x.BodyLimit > 0 && x.Sent.RequestBody > x.BodyLimit {
		return p, core.ErrBodyTooLarge
	}
	return p, nil
}

// Ready says whether bytes are at hand.
func (b *requestBody) Ready() bool { return b.start < b.end }

// fill waits for bytes and reads them.
func (b *requestBody) fill() error {
	c := b.e.conn.conn
	since := c.Loop().Now()
	if !c.Readable() || b.long() {
		b.release()
		c.ReadTimeout = b.pace.Timeout(int64(b.e.x.Listener.BodyTimeout))
		if err := c.WaitRead(); err != nil {
			return b.failure(err)
		}
	}
	if b.buf == nil {
		b.buf = borrow(c.Loop(), b.long())
	}
	n, err := c.Read(b.buf[headRoom : len(b.buf)-core.PieceTail])
	if err != nil {
		return b.failure(err)
	}
	b.start, b.end = headRoom, headRoom+n
	b.pace.Moved(int64(n), c.Loop().Now()-since)
	return nil
}

// long says whether much of the body is still to come; without a length the past stands for the future.
func (b *requestBody) long() bool {
	return b.left >= longBytes || b.chunked && b.e.x.Sent.RequestBody >= longBytes
}

func (b *requestBody) failure(err error) error {
	switch err {
	case loop.ErrTimeout:
		return core.ErrRequestTimeout
	case loop.ErrInterrupted, loop.ErrStopped:
		return err
	}
	b.e.failed = true
	return core.ErrClientGone
}

// take gives what is buffered of the body.
func (b *requestBody) take() (p core.Piece, err error) {
	if b.chunked {
		p, err = b.decode()
	} else {
		n := int(min(int64(b.end-b.start), b.left))
		p = core.Piece{Buf: b.buf, Start: b.start, End: b.start + n}
		b.start += n
		b.left -= int64(n)
		p.Last = b.left == 0
	}
	if p.Last {
		b.done = true
		b.holdRest()
	}
	return p, err
}

func (b *requestBody) decode() (core.Piece, error) {
	start, end, consumed, done, err := b.decoder.Decode(b.buf[b.start:b.end])
	if err != nil {
		return core.Piece{}, err
	}
	p := core.Piece{Buf: b.buf, Start: b.start + start, End: b.start + end, Last: done}
	b.start += consumed
	if done {
		b.e.x.ReceiveTrailer(b.decoder.Trailer())
	}
	return p, nil
}

// discard reads what is left of a body that nobody wanted, if it is little enough to keep the connection for.
func (b *requestBody) discard() bool {
	if b.done {
		return true
	}
	if b.e.x.Request.Expect100 || b.left > discardBytes {
		return false
	}
	b.e.x.BodyLimit = b.e.x.Sent.RequestBody + discardBytes
	for !b.done {
		if _, err := b.Next(); err != nil {
			return false
		}
	}
	return true
}

// longBytes is where a transfer counts as long.
const longBytes = loop.BufferBytes

// borrow gives the buffer for the next read of a body.
func borrow(l *loop.Loop, long bool) []byte {
	if long {
		return l.BorrowLong()
	}
	return l.Borrow()
}
