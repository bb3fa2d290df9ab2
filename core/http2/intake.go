package http2

const (
	streamWindow = 64<<10 - 1 // bytes of a body that may come before any was taken: the protocol's initial value
	connWindow   = 1 << 20    // the same, of all streams of a connection together

	// wideWindow bounds what streams with more than the initial window may have together. What is left of the connection's is for
	// the others, should the takers of those stop.
	wideWindow = connWindow / 4 * 3
)

// intake is the window in which the body of a stream comes. It is as wide as it must be for the peer to send all the time: a
// taker that waits for the peer is not what limits, so that the window may be; one that always finds something is. No more than
// the initial width is needed then, nor held in memory. Neither needs a measurement of the round trip, through which a peer could
// talk us into anything; a window that is wider than it had to be costs nothing while its taker keeps up.
type intake struct {
	width    int64 // bytes that the peer may have sent without our having taken them
	left     int64 // what it may still send
	returned int64 // bytes taken, and not yet given back; below 0 while the window becomes narrower
	passed   int64 // bytes taken since the width was last looked at
	waited   bool  // the taker has waited since then
}

// take notes that n bytes were taken. due is what is to be given back to the peer now; 0: nothing. most is how wide the window may be.
func (w *intake) take(n, most int64) (due int64) {
	w.returned += n
	if w.passed += n; w.passed >= w.width {
		w.resize(most)
	}
	if w.returned < w.width/2 {
		return 0
	}
	due = w.returned
	w.left, w.returned = w.left+due, 0
	return due
}

// resize judges a window that was used up once: it is made twice as wide, or half.
func (w *intake) resize(most int64) {
	width := w.width / 2
	if w.waited {
		width = 2 * w.width
	}
	width = max(min(width, most), streamWindow)
	w.returned += width - w.width
	w.width, w.passed, w.waited = width, 0, false
}

// wide says whether the window is wider than it was at first.
func (w *intake) wide() bool { return w.width > streamWindow }

// give gives n used bytes back to the peer, on the stream and on the connection.
func (t *stream) give(n int64) {
	if n == 0 {
		return
	}
	c := t.conn
	c.giveBack(n)
	if t.ended || t.gone != nil || c.dying {
		return
	}
	others := c.wide
	if t.intake.wide() {
		others--
	}
	due := t.intake.take(n, wideWindow/int64(others+1))
	if c.wide = others; t.intake.wide() {
		c.wide++
	}
	if due > 0 {
		c.appended(AppendWindowUpdate(c.append(FrameHeaderBytes+4), t.id, uint32(due)))
	}
}
