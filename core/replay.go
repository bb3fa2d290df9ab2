package core

import "io"

// maxReplayKept bounds the memory that an idle exchange keeps for bodies.
const maxReplayKept = 16 << 10

// KeepBody says when an attempt keeps what it sends of the request's body, so that it can be sent again.
type KeepBody uint8

const (
	KeepNot      KeepBody = iota
	KeepIfReused          // on a connection that has served before, which may turn out to be lost
	KeepAlways
)

// replayBody is a request body of which the start is kept in memory, for an attempt that may have to be repeated: then it gives
// that start once more, and goes on with what the client sends.
type replayBody struct {
	x     *Exchange
	data  []byte // all that was taken of the body
	kept  bool   // something was taken, and all of it stands in data
	lost  bool   // it became too long
	whole bool   // nothing follows
	at    int64  // when it became whole, on the loop's clock
	rest  Body   // what the client still sends
	given bool   // data was, in this attempt
	buf   []byte // borrowed while data is sent again
}

// KeepForReplay keeps a piece of the request's body as long as all of it is no longer than x.ReplayLimit. It is called for every
// piece that an attempt takes, or for none.
func (x *Exchange) KeepForReplay(p Piece) {
	if x.Request.Body != Body(&x.replay) { // which keeps by itself
		x.replay.keep(x, p)
	}
}

func (b *replayBody) keep(x *Exchange, p Piece) {
	if b.lost {
		return
	}
	if n := int64(len(b.data) + p.End - p.Start); max(n, x.Request.ContentLength) > int64(x.ReplayLimit) {
		b.lost = true
		return
	}
	b.data = append(b.data, p.Bytes()...)
	b.kept, b.whole = true, p.Last
	if p.Last {
		b.at = x.Worker.Loop.Now()
	}
}

// BodyKept says whether all of the request's body is kept, and since when on the loop's clock, while an attempt may still be sending it; 0:
// there is no body. never says that it will not be: it is too long, or nobody keeps it.
func (x *Exchange) BodyKept() (since int64, whole, never bool) {
	switch b := &x.replay; {
	case x.Request.Body == nil:
		return 0, true, false
	case b.lost, x.KeepBody != KeepAlways, x.Request.ContentLength > int64(x.ReplayLimit):
		return 0, false, true
	default:
		return b.at, b.kept && b.whole, false
	}
}

// CopyBody gives x, which CopyFrom has made of from, the body of from, which must be kept whole, in memory of its own. Nobody need be asked for
// it any more.
func (x *Exchange) CopyBody(from *Exchange) {
	m, b := &x.Request, &x.replay
	if from.Request.Body == nil {
		return
	}
	b.x, b.data, b.kept, b.whole = x, append(b.data[:0], from.replay.data...), true, true
	m.Body, m.Trailer = b, append([]byte(nil), from.Request.Trailer...)
	m.Remove(FieldExpect)
}

// CanReplay says whether Replay will succeed, while an attempt may still be sending the request.
func (x *Exchange) CanReplay() bool {
	switch b := &x.replay; {
	case x.Request.Body == nil:
		return true
	case b.lost:
		return false
	case !b.kept:
		return x.Sent.RequestBody == 0 // nothing was taken of it yet
	}
	return true
}

// Replay makes the request ready to be sent once more; false when some of its body is gone. No attempt may be under way.
func (x *Exchange) Replay() bool {
	b, m := &x.replay, &x.Request
	b.release(x)
	if m.Body == nil || !b.kept || b.lost {
		return x.CanReplay()
	}
	if m.Body != Body(b) {
		b.x, b.rest = x, m.Body
		m.Body = b
	}
	b.given = false
	return true
}

// Ready says whether a piece is at hand.
func (b *replayBody) Ready() bool { return !b.given || !b.whole && b.rest.Ready() }

// Finished says what the rest says, if it can tell, once that is all there is.
func (b *replayBody) Finished() bool {
	f, ok := b.rest.(Finisher)
	return ok && b.given && !b.whole && f.Finished()
}

// Source is the rest.
func (b *replayBody) Source() Body { return b.rest }

// Next gives what was kept, and then the rest.
func (b *replayBody) Next() (Piece, error) {
	b.release(b.x)
	switch {
	case !b.given:
		b.given = true
		b.buf = b.x.Worker.Loop.Borrow()
		n := copy(b.buf[headRoom:len(b.buf)-PieceTail], b.data)
		return Piece{Buf: b.buf, Start: headRoom, End: headRoom + n, Last: b.whole}, nil
	case b.whole:
		return Piece{}, io.EOF
	}
	p, err := b.rest.Next()
	if err == nil {
		b.keep(b.x, p)
	}
	return p, err
}

// Release gives the last piece's memory back.
func (b *replayBody) Release() {
	if b.buf != nil {
		b.release(b.x)
	} else if !b.whole {
		b.rest.Release()
	}
}

func (b *replayBody) release(x *Exchange) {
	if b.buf != nil {
		x.Worker.Loop.Return(b.buf)
		b.buf = nil
	}
}

func (b *replayBody) reset() {
	if b.buf != nil {
		b.release(b.x)
	}
	data := b.data[:0]
	if cap(data) > maxReplayKept {
		data = nil
	}
	*b = replayBody{data: data}
}
