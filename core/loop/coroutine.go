package loop

import (
	"errors"
	"fmt"
	"iter"
	"time"
)

// What a wait may end with.
var (
	ErrTimeout     = errors.New("timeout")
	ErrHangup      = errors.New("the watched peer has hung up")
	ErrInterrupted = errors.New("interrupted")
	ErrStopped     = errors.New("the loop stops")
	ErrClosed      = errors.New("use of closed connection")
	ErrReset       = errors.New("connection reset by peer")
	ErrAgain       = errors.New("nothing to read now")
)

// maxIdle bounds the coroutines without a task that a loop keeps, each with its stack.
const maxIdle = 256

// turnBudget is how many reads and writes a coroutine may make before the others have their turn.
const turnBudget = 32

// coroutine runs one task, then another.
type coroutine struct {
	loop   *Loop
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	index  int // in loop.all
	task   func()
	conn   *Conn // the task serves it; nil: an inner task
	timer  timer
	budget int
	parked bool
	ready  bool  // in loop.ready
	result error // of the wait
	ran    int64 // when it last yielded
	peer   *Conn // watched while parked: its hang-up ends the wait
	hungUp bool  // by Hangup
}

// Task is the handle of a coroutine, for those who wake or interrupt it. It must not be used after the task has ended.
type Task struct{ co *coroutine }

// Go runs f as a task of its own, from the end of this turn on.
func (l *Loop) Go(f func()) Task {
	co := l.take()
	co.task = f
	l.makeReady(co)
	return Task{co}
}

// Self is the task that calls it.
func (l *Loop) Self() Task { return Task{l.current} }

// serve runs c's handler in a coroutine, at once.
func (l *Loop) serve(c *Conn) {
	co := l.take()
	co.conn = c
	l.resume(co)
}

func (l *Loop) take() *coroutine {
	if n := len(l.idle); n > 0 {
		co := l.idle[n-1]
		l.idle = l.idle[:n-1]
		co.ran = l.now
		return co
	}
	co := &coroutine{loop: l, index: len(l.all), ran: l.now}
	co.timer.owner = co
	l.all = append(l.all, co)
	co.next, co.stop = iter.Pull(co.life)
	return co
}

// life is the coroutine: tasks, with a rest in the idle list between them.
func (co *coroutine) life(yield func(struct{}) bool) {
	co.yield = yield
	defer co.forget() // also by a Goexit
	for {
		co.run()
		l := co.loop
		if len(l.idle) >= maxIdle || l.stopping {
			return
		}
		l.idle = append(l.idle, co)
		if !yield(struct{}{}) {
			return
		}
	}
}

// run runs one task. A panic ends it, and the connection that it served.
func (co *coroutine) run() {
	done := false
	defer co.clear()
	defer func() {
		if !done {
			if p := recover(); p != nil {
				co.loop.panicked(co.String(), p)
			}
			if co.conn != nil {
				co.conn.Close()
			}
		}
	}()
	if c := co.conn; c != nil {
		c.handler.Serve(c)
		if !c.idle {
			c.Close()
		}
	} else {
		co.task()
	}
	done = true
}

// clear makes co ready for another task: nothing of the last may reach it.
func (co *coroutine) clear() {
	if co.peer != nil {
		co.peer.watcher = nil
	}
	co.conn, co.task, co.peer, co.hungUp = nil, nil, nil, false
	co.timer.deadline = 0
}

// forget takes an ending coroutine off the loop's list.
func (co *coroutine) forget() {
	l := co.loop
	l.wheel.remove(&co.timer)
	last := len(l.all) - 1
	l.all[co.index] = l.all[last]
	l.all[co.index].index = co.index
	l.all[last] = nil
	l.all = l.all[:last]
}

// endIdle ends the coroutines that have no task.
func (l *Loop) endIdle() {
	idle := l.idle
	l.idle = nil
	for _, co := range idle {
		co.stop()
	}
}

func (co *coroutine) String() string {
	if co.conn != nil {
		return fmt.Sprint(co.conn.handler)
	}
	return "inner task"
}

// resume runs co until it yields or its task ends.
func (l *Loop) resume(co *coroutine) {
	co.parked, co.ready, co.budget = false, false, turnBudget
	c := co.conn
	l.current = co
	co.next()
	l.current = nil
	if held := l.tick(); held > LateAfter {
		by := "inner task"
		if c != nil {
			by = fmt.Sprint(c.handler)
		}
		l.late(held, by)
	}
	co.ran = l.now
}

// tick moves the coarse clock on, and returns by how much.
func (l *Loop) tick() time.Duration {
	before := l.now
	l.now = l.Clock()
	return time.Duration(l.now - before)
}

func (l *Loop) late(held time.Duration, by string) {
	l.log.Debug("a task held the loop", "loop", l.options.Index, "held", held, "task", by)
	if l.options.Late != nil {
		l.options.Late(held, by)
	}
}

// park yields until the coroutine is resumed, and returns why. deadline is on the loop's clock; 0: none.
func (co *coroutine) park(deadline int64) error {
	l := co.loop
	if l.stopping {
		return ErrStopped
	}
	if co.hungUp || co.peer != nil && co.peer.gone() {
		return ErrHangup
	}
	l.wheel.set(&co.timer, deadline)
	co.parked, co.result = true, nil
	co.yield(struct{}{})
	co.timer.deadline = 0
	return co.result
}

// expire ends the wait of a coroutine whose deadline has passed.
func (co *coroutine) expire() { co.loop.interrupt(co, ErrTimeout) }

// interrupt ends co's wait with err, if it waits.
func (l *Loop) interrupt(co *coroutine, err error) {
	if co.parked && !co.ready {
		co.result = err
		l.makeReady(co)
	}
}

func (l *Loop) makeReady(co *coroutine) {
	co.ready = true
	l.ready.add(co)
}

// spend counts an operation of the running coroutine; one that has used up its budget lets the others run first. Without
// a wait, this is also where it learns that the loop has been stopped.
func (l *Loop) spend() error {
	co := l.current
	if co == nil {
		return nil
	}
	if co.budget--; co.budget <= 0 {
		l.Yield()
		if l.stopping {
			return ErrStopped
		}
	}
	return nil
}

// Yielded is when the running task last began to wait: all that it did before was done by then.
func (l *Loop) Yielded() int64 { return l.current.ran }

// Yield lets everything else that is ready run before it returns.
func (l *Loop) Yield() {
	co := l.current
	co.parked = true
	l.makeReady(co)
	co.yield(struct{}{})
}

// Park waits for Wake. It returns ErrTimeout once the deadline on the loop's clock has passed (0: none), and whatever
// Interrupt was called with.
func (l *Loop) Park(deadline int64) error { return l.current.park(deadline) }

// Watch makes every wait of the calling task end with ErrHangup once the peer of c, which the task does not read
// meanwhile, has hung up. nil ends it.
func (l *Loop) Watch(c *Conn) {
	co := l.current
	if co.peer != nil {
		co.peer.watcher = nil
	}
	if co.peer = c; c != nil {
		if c.watcher != nil {
			c.watcher.peer = nil
		}
		c.watcher = co
	}
}

// Wake ends t's Park.
func (t Task) Wake() { t.co.loop.interrupt(t.co, nil) }

// Hangup tells t that whom it works for has gone: it ends every wait of t with ErrHangup, now and from now on.
func (t Task) Hangup() {
	t.co.hungUp = true
	t.co.loop.interrupt(t.co, ErrHangup)
}

// Interrupt ends whatever t waits for with err. One that does not wait takes no notice: ask again, or leave it a sign.
func (t Task) Interrupt(err error) { t.co.loop.interrupt(t.co, err) }
