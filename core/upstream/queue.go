package upstream

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// queue is the exchanges of one loop that wait for a connection, the oldest first.
type queue struct {
	waiting []*waiter
	spare   []*waiter // to be used again
	yielded bool      // the last turn went to those who wait on other loops
}

// waiter is an exchange that waits. What it gets is its own before it is woken: nobody who comes later can have it. Who gives
// it takes the waiter out of the queue.
type waiter struct {
	share *share // whose picker it waits for
	task  loop.Task
	x     *core.Exchange
	fresh bool // a connection that was kept will not do
	seat       // given; a conn stays idle until the waiter runs
}

func (q *queue) len() int { return len(q.waiting) }

// wake makes all look again, in their places.
func (q *queue) wake() {
	for _, w := range q.waiting {
		w.task.Wake()
	}
}

// wait waits until a connection, or a place for one, may be had, up to the queue's timeout.
func (s *share) wait(x *core.Exchange, set *Settings, fresh bool) (seat, *core.Error) {
	u, l := s.upstream, s.worker.Loop
	if int(u.pending.Add(1)) > set.MaxPending {
		u.pending.Add(-1)
		return seat{}, core.ErrQueueFull
	}
	deadline := x.DeadlineIn(int64(set.QueueTimeout))
	if set.QueueTimeout <= 0 {
		deadline = l.Now()
	}
	w := s.enter(x, fresh)
	s.recall()
	for {
		// Once more now that it is counted: who freed a place before did not see it. No other task runs between this and Park.
		found, failure := s.find(x, set, fresh)
		if failure != core.ErrQueueFull {
			s.leave(w)
			return found, failure
		}
		err := l.Park(deadline)
		given := w.seat
		if given == (seat{}) {
			if err == nil { // the endpoints are others now
				continue
			}
			s.leave(w)
			return seat{}, waitError(x, err)
		}
		s.recycle(w)
		if given.conn != nil {
			given.conn.promised = nil
		}
		if err == nil {
			if given.conn != nil {
				given.conn.use()
			}
			return given, nil
		}
		s.decline(given, set)
		return seat{}, waitError(x, err)
	}
}

// decline leaves what a waiter was given, and has no use for any more, to others.
func (s *share) decline(given seat, set *Settings) {
	switch {
	case given.conn != nil:
		s.keep(given.conn, set)
	case given.mux != nil:
		given.mux.promised--
		given.mux.Changed()
		given.mux.retire()
	default:
		s.release(given.place)
	}
}

func waitError(x *core.Exchange, err error) *core.Error {
	switch err {
	case loop.ErrTimeout:
		return x.Overdue(core.ErrQueueTimeout)
	case loop.ErrHangup:
		return core.ErrClientGone
	}
	return core.ErrStopping
}

// enter puts the calling task at the end of the queue.
func (s *share) enter(x *core.Exchange, fresh bool) *waiter {
	q := &s.queue
	var w *waiter
	if n := len(q.spare); n > 0 {
		w, q.spare = q.spare[n-1], q.spare[:n-1]
	} else {
		w = &waiter{}
	}
	w.share, w.task, w.x, w.fresh = s, s.worker.Loop.Self(), x, fresh
	q.waiting = append(q.waiting, w)
	return w
}

// leave takes w, which got nothing from anybody, out of the queue.
func (s *share) leave(w *waiter) {
	s.remove(w)
	s.recycle(w)
}

func (s *share) remove(w *waiter) {
	q := &s.queue
	for i := range q.waiting {
		if q.waiting[i] == w {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			s.upstream.pending.Add(-1)
			return
		}
	}
}

// maxSpare bounds the memory that a queue keeps after a rush.
const maxSpare = 64

func (s *share) recycle(w *waiter) {
	*w = waiter{}
	if len(s.queue.spare) < maxSpare {
		s.queue.spare = append(s.queue.spare, w)
	}
}

// first is the oldest waiter that e is of use to: it has not tried e before. It stays in the queue. An endpoint that nobody would
// be sent to now is of use to none.
func (s *share) first(e *Endpoint) *waiter {
	for _, w := range s.queue.waiting {
		if w.share.has[e] && !w.x.Attempt.Has(&e.Endpoint) {
			return w
		}
	}
	return nil
}

// next is whose turn it is; nil: nobody's here. It stays in the queue. While exchanges wait on other loops, too, every other
// turn is theirs.
func (s *share) next(e *Endpoint, set *Settings) *waiter {
	if e.over(set) {
		return nil
	}
	if s.waitElsewhere() {
		if s.queue.yielded = !s.queue.yielded; s.queue.yielded {
			return nil
		}
	}
	return s.first(e)
}

// grant takes w out of the queue and gives it the place of a connection to e, which is counted. One that exchanges share is made at
// once: who comes before w runs finds it there, and does not make another beside it.
func (s *share) grant(w *waiter, e *Endpoint) {
	s.remove(w)
	if e.protocol.shared() {
		w.mux = w.share.newMux(e)
	} else {
		w.place = e
	}
	w.task.Wake()
}

// waitElsewhere says that exchanges wait on other loops, which cannot use this loop's connections.
func (s *share) waitElsewhere() bool { return int(s.upstream.pending.Load()) > s.queue.len() }

// keep leaves a clean connection, which no exchange uses any more, to whoever's turn it is, else to those who come.
func (s *share) keep(c *conn, set *Settings) {
	w := s.next(c.endpoint, set)
	switch {
	case w != nil:
		s.remove(w)
		c.promised, w.conn = w, c
		if w.fresh || !c.fits(w.x) {
			c.raw.Close() // which leaves w its place
		} else {
			c.raw.Idle(s.worker.Loop.Now() + int64(set.IdleTimeout))
		}
		w.task.Wake()
	case s.waitElsewhere() || c.endpoint.over(set):
		c.spare = true
		c.raw.Close()
	default:
		sh := c.shareOf()
		sh.idle = append(sh.idle, c)
		c.raw.Idle(s.worker.Loop.Now() + int64(set.IdleTimeout))
	}
}

// release gives the place of a connection to e that has ended to whoever's turn it is. If it is nobody's it is free.
func (s *share) release(e *Endpoint) {
	if w := s.next(e, s.upstream.Settings()); w != nil {
		s.grant(w, e)
		return
	}
	s.free(e)
}

// free gives a place up, and offers it to those who wait: on other loops, then here.
func (s *share) free(e *Endpoint) {
	e.open.Add(-1)
	if s.upstream.pending.Load() == 0 {
		return
	}
	for _, other := range s.upstream.shares {
		if other.worker != s.worker {
			other.worker.Loop.Post(func() { other.offer(e) })
		}
	}
	if s.queue.len() > 0 {
		s.worker.Loop.Post(func() { s.offer(e) })
	}
}

// offer gives a place at e, if there still is one, to the first here that can use it.
func (s *share) offer(e *Endpoint) {
	if w := s.first(e); w != nil && e.take(s.upstream.Settings()) {
		s.grant(w, e)
	}
}

// recall makes other loops close a connection that they keep idle: it counts against the limit that an exchange here waits for.
func (s *share) recall() {
	has := s.has
	for i, other := range s.upstream.shares {
		if other.worker == s.worker {
			continue
		}
		other.worker.Loop.Post(func() {
			for _, e := range s.upstream.Endpoints() {
				if sh := &e.shares[i]; len(sh.idle) > 0 && has[e] {
					sh.idle[0].raw.Close() // the one that was used longest ago
					return
				}
			}
		})
	}
}
