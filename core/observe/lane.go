package observe

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// lane is a loop's side of an access log. What is not atomic is the loop's.
type lane struct {
	sample   float64
	byStatus *shares // nil: none is named
	maxLines int64   // that wait for the writer
	maxBatch int64

	batch *batch // that is being filled; nil: none
	spare *batch // empty ones, taken back from the writer
	timer *loop.Timer
	clock lineClock
	rand  *rand.PCG

	dropped atomic.Uint64 // changed by the loop alone
	_       [64]byte
	// Between loop and writer.
	full, empty    atomic.Pointer[batch]
	lines, batches atomic.Int64 // handed over and not yet back
}

func newLane(sample float64, by *shares, queue int, seed uint64) *lane {
	return &lane{sample: sample, byStatus: by, maxLines: int64(queue), maxBatch: int64(queue)/batchLines + 2, rand: rand.NewPCG(rand.Uint64(), seed)}
}

// observe writes x's line, if it is one of those that are written.
func (n *lane) observe(x *core.Exchange, t *times) {
	if share := n.share(x, t.status); share < 1 && (share <= 0 || float64(n.rand.Uint64()>>11)*0x1p-53 >= share) {
		return
	}
	b := n.batch
	if b == nil {
		if b = n.begin(x.Worker.Loop); b == nil {
			n.dropped.Store(n.dropped.Load() + 1)
			return
		}
	}
	b.buf = appendLine(b.buf, x, t, &n.clock)
	b.lines++
	if len(b.buf) >= batchBytes || int64(b.lines) >= n.maxLines {
		n.flush()
	}
}

// share is how many of those like x are written: what is named for the status, else every failure, else a sample.
func (n *lane) share(x *core.Exchange, status int) float64 {
	if n.byStatus != nil && uint(status) < uint(len(n.byStatus)) && n.byStatus[status] >= 0 {
		return n.byStatus[status]
	}
	switch {
	case status >= 500 || x.Err != nil:
		return 1
	case x.Route != nil && x.Route.LogSample >= 0:
		return x.Route.LogSample
	}
	return n.sample
}

// begin gives a batch to fill, nil when as much waits as may wait.
func (n *lane) begin(l *loop.Loop) *batch {
	if n.lines.Load() >= n.maxLines || n.batches.Load() >= n.maxBatch {
		return nil
	}
	if n.spare == nil {
		n.spare = n.empty.Swap(nil)
	}
	b := n.spare
	if b == nil {
		b = &batch{buf: make([]byte, 0, batchBytes+8<<10)}
	} else {
		n.spare, b.next = b.next, nil
	}
	n.batch = b
	if n.timer == nil {
		n.timer = l.NewTimer(n.flush)
	}
	n.timer.At(l.Now() + int64(batchAfter))
	return b
}

// flush hands over what there is.
func (n *lane) flush() {
	b := n.batch
	if b == nil {
		return
	}
	n.batch = nil
	n.timer.Stop()
	n.lines.Add(int64(b.lines))
	n.batches.Add(1)
	push(&n.full, b)
}

// takeFull gives what was handed over, the oldest first. For the writer.
func (n *lane) takeFull() (first *batch) {
	for b := n.full.Swap(nil); b != nil; {
		b.next, first, b = first, b, b.next
	}
	return first
}

// giveBack returns a batch whose lines have been written. For the writer.
func (n *lane) giveBack(b *batch) {
	n.lines.Add(-int64(b.lines))
	if n.batches.Add(-1) >= keptBatches || cap(b.buf) > maxRecycled {
		return
	}
	b.buf, b.lines = b.buf[:0], 0
	push(&n.empty, b)
}

// push puts b on a list whose taker takes it whole.
func push(list *atomic.Pointer[batch], b *batch) {
	for {
		b.next = list.Load()
		if list.CompareAndSwap(b.next, b) {
			return
		}
	}
}
