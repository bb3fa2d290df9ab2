package health

import "sync/atomic"

// ringTenths is how finely a window moves: what is older than it is forgotten by tenths.
const ringTenths = 10

// ring counts requests over a window that moves with time. Loops add to it at once. It takes 64 bytes for each of eleven
// buckets and the sum.
//
// Requests are added before what they came to, and taken off after it, so that who looks at the sum meanwhile sees too few
// failures rather than too many. The sum is always what the buckets add up to, once all who add have finished. The first who
// adds after a tenth without requests empties the bucket to which others may add in that instant: it may lose them, or what
// they came to, at most one for each loop.
type ring struct {
	width   int64        // of a bucket, nanoseconds
	last    atomic.Int64 // the tenth that was begun last
	sum     counts
	buckets [ringTenths + 1]counts // one is empty, for the next tenth
}

type counts struct {
	requests, failures, slow atomic.Int64

	_ [40]byte
}

// add counts a request.
func (r *ring) add(failed, slow bool, now int64) {
	n := now / r.width
	if last := r.last.Load(); n > last && r.last.CompareAndSwap(last, n) {
		r.expire(last, n)
	}
	b := &r.buckets[uint64(n)%(ringTenths+1)]
	b.requests.Add(1)
	r.sum.requests.Add(1)
	if failed {
		b.failures.Add(1)
		r.sum.failures.Add(1)
	}
	if slow {
		b.slow.Add(1)
		r.sum.slow.Add(1)
	}
}

// expire moves the window from the tenth last to n. It empties one bucket more than that, which is of the tenth after n: while requests
// come in every tenth, nobody adds to a bucket that is emptied.
func (r *ring) expire(last, n int64) {
	for i := max(last+1, n-ringTenths) + 1; i <= n+1; i++ {
		b := &r.buckets[uint64(i)%(ringTenths+1)]
		r.sum.failures.Add(-b.failures.Swap(0))
		r.sum.slow.Add(-b.slow.Swap(0))
		r.sum.requests.Add(-b.requests.Swap(0))
	}
}

// clear forgets everything.
func (r *ring) clear() {
	last := r.last.Load()
	r.expire(last-ringTenths-2, last)
}
