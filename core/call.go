package core

import "github.com/sluice-gateway/sluice/core/loop"

// Call is a question that a policy puts to a service beside the loop. Do waits for the answer, within a bound of its own; Cancel
// makes it give up soon, and may be called at any time, also afterwards.
type Call[A any] struct {
	Do     func() A
	Cancel func()
}

// Calls are those that one policy has under way from one loop. Only that loop touches them.
type Calls[A any] struct {
	Most  int // under way at once, and as many again of those who wait for the answer to somebody else's
	open  map[string]*call[A]
	count int
	joint int // exchanges that wait for a call which another began
}

type call[A any] struct {
	answer   A
	answered bool
	done     bool
	waiters  []*callWaiter
	cancel   func()
}

type callWaiter struct{ task loop.Task }

// ErrCallsFull is why a question is not asked: too many are.
var ErrCallsFull = &Error{Status: 503, Reason: "calls_full", Side: SideInternal}

// Ask begins a call and waits for its answer while the loop serves others. Those who ask under the same key, unless it is empty,
// wait for the one call that is under way. When the last of them has gone it is cancelled.
//
// An error is ErrCallsFull, ErrClientGone, ErrStopping, or ErrInternal after a panic in the call.
func (c *Calls[A]) Ask(x *Exchange, key string, begin func() Call[A]) (answer A, failed *Error) {
	l := x.Worker.Loop
	q := c.open[key]
	switch {
	case q != nil && c.joint >= c.Most, q == nil && c.count >= c.Most:
		return answer, ErrCallsFull
	case q != nil:
		c.joint++
		defer func() { c.joint-- }()
	default:
		q = c.begin(l, key, begin())
	}
	w := &callWaiter{l.Self()}
	q.waiters = append(q.waiters, w)
	l.Watch(x.Downstream.Conn())
	var err error
	for err == nil && !q.done {
		err = l.Park(0)
	}
	l.Watch(nil)
	switch {
	case q.done && q.answered:
		return q.answer, nil
	case q.done:
		return answer, ErrInternal
	}
	c.leave(q, w, key)
	if err == loop.ErrStopped {
		return answer, ErrStopping
	}
	return answer, ErrClientGone
}

// begin runs the call in a task of its own, so that it outlives whoever began it if others wait too.
func (c *Calls[A]) begin(l *loop.Loop, key string, of Call[A]) *call[A] {
	q := &call[A]{cancel: of.Cancel}
	c.count++
	if key != "" {
		if c.open == nil {
			c.open = map[string]*call[A]{}
		}
		c.open[key] = q
	}
	l.Go(func() {
		defer c.end(q, key) // also after a panic
		l.Await(func() { q.answer = of.Do() })
		q.answered = true
	})
	return q
}

func (c *Calls[A]) end(q *call[A], key string) {
	q.done = true
	q.cancel()
	c.count--
	c.forget(q, key)
	for _, w := range q.waiters {
		w.task.Wake()
	}
}

// leave takes w off the call. One that nobody waits for is cancelled, and nobody joins it any more.
func (c *Calls[A]) leave(q *call[A], w *callWaiter, key string) {
	for i := range q.waiters {
		if q.waiters[i] == w {
			last := len(q.waiters) - 1
			q.waiters[i], q.waiters[last] = q.waiters[last], nil
			q.waiters = q.waiters[:last]
			break
		}
	}
	if len(q.waiters) == 0 {
		c.forget(q, key)
		q.cancel()
	}
}

func (c *Calls[A]) forget(q *call[A], key string) {
	if c.open[key] == q {
		delete(c.open, key)
	}
}
