package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// resources are what the connections of one side share on a loop: none of them holds more than it needs at the moment.
type resources struct {
	worker  *core.Worker
	loop    *loop.Loop
	scratch Scratch
	bodies  [len(bodySizes)][][]byte
	calm    [calmCount]uint64 // connections ended for abuse, by what
}

func newResources(w *core.Worker) resources { return resources{worker: w, loop: w.Loop} }

// bodySizes are those of the buffers in which is gathered what has come of bodies, below the loop's own: what streams hold of
// whoever sends little is in proportion to it.
var bodySizes = [...]int{4 << 10, 20 << 10}

// maxBodies bounds the buffers of each size that are kept for later.
const maxBodies = 64

// borrow gives a buffer of size or more.
func (r *resources) borrow(size int) []byte {
	for i, most := range bodySizes {
		if size > most {
			continue
		}
		if n := len(r.bodies[i]); n > 0 {
			b := r.bodies[i][n-1]
			r.bodies[i] = r.bodies[i][:n-1]
			return b
		}
		return make([]byte, most)
	}
	return r.loop.Borrow()
}

// giveBack takes back what borrow gave, or nil, and returns nil.
func (r *resources) giveBack(b []byte) []byte {
	b = b[:cap(b)]
	for i, size := range bodySizes {
		if len(b) == size {
			if len(r.bodies[i]) < maxBodies {
				r.bodies[i] = append(r.bodies[i], b)
			}
			return nil
		}
	}
	if b != nil {
		r.loop.Return(b)
	}
	return nil
}

// hold gives a copy of b, which is less than a frame and its header, in a buffer that is borrowed; nil if there is nothing.
func (r *resources) hold(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append(r.borrow(len(b))[:0], b...)
}
