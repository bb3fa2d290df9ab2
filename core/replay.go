package core

import "io"

// maxReplayKept bounds the memory that an idle exchange keeps for bodies.
const maxReplayKept = 16 << 10

// replayBody is a request body that is kept in memory, for an attempt that may have to be repeated.
type replayBody struct {
	x     *Exchange
	data  []byte
	whole bool
	buf   []byte // borrowed while the body is sent again
}

// KeepForReplay keeps a request's body if p is the whole of it and no longer than x.ReplayLimit.
func (x *Exchange) KeepForReplay(p Piece) {
	if p.Last && p.End-p.Start <= x.ReplayLimit && x.Request.Trailer == nil {
		x.replay.data = append(x.replay.data[:0], p.Bytes()...)
		x.replay.whole = true
	}
}

// Replay makes the request ready to be sent once more; false when its body is gone.
func (x *Exchange) Replay() bool {
	b := &x.replay
	b.release(x)
	if x.Request.Body == nil {
		return true
	}
	if !b.whole {
		return x.Sent.RequestBody == 0 // nothing was taken of it yet
	}
	b.x = x
	x.Request.Body = b
	return true
}

// Ready is true: the body stands in memory.
func (b *replayBody) Ready() bool { return true }

// Next gives the whole body.
func (b *replayBody) Next() (Piece, error) {
	if b.buf != nil {
		return Piece{}, io.EOF
	}
	b.buf = b.x.Worker.Loop.Borrow()
	n := copy(b.buf[headRoom:len(b.buf)-PieceTail], b.data)
	return Piece{Buf: b.buf, Start: headRoom, End: headRoom + n, Last: true}, nil
}

// Release gives the buffer back.
func (b *replayBody) Release() { b.release(b.x) }

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
	if b.whole = false; cap(b.data) > maxReplayKept {
		b.data = nil
	}
	b.x = nil
}
