package http2

import (
	"slices"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// inbox is what has come of a body and was not taken, in borrowed buffers that are filled one after the other. Each is a piece:
// none is longer than a buffer of the loop, however wide the window is. What all streams of a connection hold is bounded by the
// connection's window; of a buffer that is full at most the length of a frame is empty.
type inbox struct {
	full    [][]byte // in order
	filling []byte   // room, then what came last; nil: nothing
	bytes   int64
}

// put takes bytes of the body, a frame at most, and says whether they opened another buffer beside a full one.
func (b *inbox) put(r *resources, p []byte) (another bool) {
	if len(p) == 0 {
		return false
	}
	if another = len(b.filling)+len(p)+core.PieceTail > loop.BufferBytes; another {
		b.full = append(b.full, b.filling)
		b.filling = nil
	}
	b.filling = append(b.reserve(r, len(p)), p...)
	b.bytes += int64(len(p))
	return another
}

// take gives the buffer that was filled first, which may hold nothing, to whom it is lent.
func (b *inbox) take(r *resources) []byte {
	var p []byte
	if len(b.full) > 0 {
		p = b.full[0]
		b.full = slices.Delete(b.full, 0, 1)
	} else {
		p = b.reserve(r, 0)
		b.filling = nil
	}
	b.bytes -= int64(len(p) - room)
	return p
}

// drop gives all buffers back.
func (b *inbox) drop(r *resources) {
	for _, p := range b.full {
		r.giveBack(p)
	}
	r.giveBack(b.filling)
	*b = inbox{}
}

// reserve gives the buffer that is being filled, with space for n bytes more and for what a taker may write around them.
func (b *inbox) reserve(r *resources, n int) []byte {
	size := max(len(b.filling), room) + n + core.PieceTail
	if size <= cap(b.filling) {
		return b.filling
	}
	p := r.borrow(size)
	if b.filling == nil {
		return p[:room]
	}
	p = p[:copy(p, b.filling)]
	b.filling = r.giveBack(b.filling)
	return p
}
