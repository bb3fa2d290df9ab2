package upstream

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// queue is the exchanges of one loop that wait for a connection, the oldest first.
type queue struct{ waiting []loop.Task }

func (q *queue) len() int { return len(q.waiting) }

func (q *queue) remove(t loop.Task) {
	for i := range q.waiting {
		if q.waiting[i] == t {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return
		}
	}
}

// wait waits until a connection may be had, up to the queue's timeout since from.
func (s *share) wait(x *core.Exchange, set *Settings, from int64) *core.Error {
	u, l := s.upstream, s.worker.Loop
	if int(u.pending.Add(1)) > set.MaxPending {
		u.pending.Add(-1)
		return core.ErrQueueFull
	}
	deadline := from + int64(set.QueueTimeout)
	if x.Deadline != 0 && x.Deadline < deadline {
		deadline = x.Deadline
	}
	s.recall()
	t := l.Self()
	s.queue.waiting = append(s.queue.waiting, t)
	err := l.Park(deadline)
	s.queue.remove(t)
	u.pending.Add(-1)
	switch err {
	case nil:
		return nil
	case loop.ErrTimeout:
		return core.ErrQueueTimeout
	case loop.ErrHangup:
		return core.ErrClientGone
	}
	return core.ErrStopping
}

// recall makes other loops close a connection that they keep idle: it counts against the limit that this exchange waits for.
func (s *share) recall() {
	for i, other := range s.upstream.shares {
		if other == s {
			continue
		}
		other.worker.Loop.Post(func() {
			for _, e := range s.upstream.Endpoints() {
				if sh := &e.shares[i]; len(sh.idle) > 0 {
					sh.idle[0].raw.Close() // the one that was used longest ago
					return
				}
			}
		})
	}
}

// wake lets the first that waits try again: here if any does, else on the loops where some do.
func (s *share) wake() {
	if s.queue.len() > 0 {
		t := s.queue.waiting[0]
		s.queue.remove(t)
		t.Wake()
		return
	}
	if s.upstream.pending.Load() == 0 {
		return
	}
	for _, other := range s.upstream.shares {
		if other != s {
			other.worker.Loop.Post(func() {
				if other.queue.len() > 0 {
					other.wake()
				}
			})
		}
	}
}
