package loop

const (
	// BufferBytes is the size of the loop's buffers, and what one connection may hold of a slow reader's data: 64 KiB, a head,
	// and the room to write another head before it.
	BufferBytes = 68 << 10
	// BulkBytes is the size of the few large buffers that a loop lends to long transfers.
	BulkBytes = 260 << 10

	// maxBuffers bounds the buffers that a loop keeps for later.
	maxBuffers = 32
	// maxBulk bounds the large buffers of a loop, lent and kept: slow readers hold 4 MiB in them at most, whatever their number.
	maxBulk = 16
)

// buffers is a stack: the buffer used last, which the processor's cache still holds, is used next.
type buffers struct {
	free, bulk [][]byte
	lent       int // large ones
}

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

// BorrowLong is Borrow for a transfer of which much is still to come. It gives BulkBytes while the loop has such a buffer to
// lend: moving 1 MiB in four pieces costs a quarter less CPU than in sixteen.
func (l *Loop) BorrowLong() []byte {
	if l.buffers.lent >= maxBulk {
		return l.Borrow()
	}
	return l.borrowBulk()
}

// BorrowFor is Borrow for n bytes that are there already, BulkBytes at most: more of them than fit into a buffer were read into a
// large one.
func (l *Loop) BorrowFor(n int) []byte {
	if n <= BufferBytes {
		return l.Borrow()
	}
	return l.borrowBulk()
}

func (l *Loop) borrowBulk() []byte {
	b := &l.buffers
	b.lent++
	if n := len(b.bulk); n > 0 {
		p := b.bulk[n-1]
		b.bulk = b.bulk[:n-1]
		return p
	}
	return make([]byte, BulkBytes)
}

// Return gives a buffer back that was borrowed, whole.
func (l *Loop) Return(p []byte) {
	b := &l.buffers
	switch len(p) {
	case BufferBytes:
		if len(b.free) < maxBuffers {
			b.free = append(b.free, p)
		}
	case BulkBytes:
		b.lent--
		if len(b.bulk) < maxBulk {
			b.bulk = append(b.bulk, p)
		}
	default:
		panic("BUG: returned buffer is not whole")
	}
}
