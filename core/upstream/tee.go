package upstream

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
)

// tee is the body of a client's request, of which a reflection gets a copy. It is not used again: who has taken the body may release
// its last piece when the reflection is somebody else's.
type tee struct {
	core.Body
	x    *core.Exchange
	to   *reflection    // nil: it has gone, or will not
	next core.EndPolicy // who else wants to know of the exchange's end; nil: nobody
}

// OnEnd lets a reflection go whose body is not whole yet: nobody takes the rest any more.
func (t *tee) OnEnd(x *core.Exchange) {
	if c := t.to; c != nil {
		t.to = nil
		c.lane.put(c)
	}
	if t.next != nil {
		t.next.OnEnd(x)
	}
}

// Next gives the next piece, and keeps a copy. With the last piece the reflection leaves.
func (t *tee) Next() (core.Piece, error) {
	p, err := t.Body.Next()
	c := t.to
	if err != nil || c == nil {
		return p, err
	}
	if len(c.body.data)+p.End-p.Start > c.mirror.spec.BodyBytes {
		t.to = nil
		c.lane.counts.TooLong++
		c.lane.put(c)
		return p, nil
	}
	c.body.data = append(c.body.data, p.Bytes()...)
	if p.Last {
		t.to = nil
		m := &c.x.Request
		m.Trailer = append([]byte(nil), t.x.Request.Trailer...)
		c.body.x, m.Body = c.x, &c.body
		c.fly()
	}
	return p, nil
}

// Finished says what the body says, if it can tell.
func (t *tee) Finished() bool {
	f, ok := t.Body.(core.Finisher)
	return ok && f.Finished()
}

// Source is the client's body.
func (t *tee) Source() core.Body { return t.Body }

// memoryBody is a body that stands in memory. It holds a buffer of the loop from a piece's Next to its Release.
type memoryBody struct {
	x    *core.Exchange
	data []byte
	sent int
	done bool // the last piece was given
	buf  []byte
}

// Ready is true: it stands in memory.
func (b *memoryBody) Ready() bool { return true }

// Next gives as much as a buffer takes.
func (b *memoryBody) Next() (core.Piece, error) {
	if b.done {
		return core.Piece{}, io.EOF
	}
	if b.buf == nil {
		b.buf = b.x.Worker.Loop.Borrow()
	}
	const room = 2048 // for the head to leave in the same write
	n := copy(b.buf[room:len(b.buf)-core.PieceTail], b.data[b.sent:])
	b.sent += n
	b.done = b.sent == len(b.data)
	return core.Piece{Buf: b.buf, Start: room, End: room + n, Last: b.done}, nil
}

// Release gives the buffer back.
func (b *memoryBody) Release() {
	if b.buf != nil {
		b.x.Worker.Loop.Return(b.buf)
		b.buf = nil
	}
}
