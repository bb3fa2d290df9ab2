package loop

const (
	// BufferBytes is the size of the loop's buffers, and what one connection may hold of a slow reader's data: 64 KiB, a head,
	// and the room to write another head before it.
	BufferBytes = 68 << 10
	// maxBuffers bounds the buffers that a loop keeps for later.
	maxBuffers = 32
)

// buffers is a stack: the buffer used last, which the processor's cache still holds, is used next.
type buffers struct{ free [][]byte }

// Borrow gives a buffer of BufferBytes. Hold none while waiting for a peer to send: WaitRead first.
func (l *Loop) Borrow() []byte {
	b := &l.buffers
	if n := len(b.free); n > 0 {
		p := b.free[n-1]
		b.free = b.free[:n-1]
		return p
	}
	return make([]byte, BufferBytes)
}

// Return gives a buffer back that Borrow gave, whole.
func (l *Loop) Return(p []byte) {
	if len(p) != BufferBytes {
		panic("BUG: returned buffer is not whole")
	}
	if b := &l.buffers; len(b.free) < maxBuffers {
		b.free = append(b.free, p)
	}
}
