package loop

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// post is work for the loop from elsewhere, in a list that is taken whole.
type post struct {
	f    func()
	next *post
}

// Post makes the loop run f soon, and may be called from any goroutine, a loop's included. f must not wait; what must
// calls Go. Posts of one goroutine run in order. A loop that has ended runs nothing more.
func (l *Loop) Post(f func()) {
	if l.closed.Load() {
		return
	}
	p := &post{f: f}
	for {
		last := l.posted.Load()
		p.next = last
		if l.posted.CompareAndSwap(last, p) { // from here on p is the loop's
			if last == nil {
				l.wake()
			}
			return
		}
	}
}

// wake makes the loop see what is posted. It is counted, so that the descriptor is not closed, and given to somebody else,
// just before it is written to.
func (l *Loop) wake() {
	l.wakers.Add(1)
	if !l.closed.Load() {
		one := [8]byte{1}
		_, _ = write(l.wakeFD, one[:])
	}
	l.wakers.Add(-1)
}

func (l *Loop) runPosted() {
	var b [8]byte
	_, _ = read(l.wakeFD, b[:])
	l.runTaken() // left by a turn that was cut short
	for p := l.posted.Swap(nil); p != nil; {
		p.next, l.taken, p = l.taken, p, p.next
	}
	l.runTaken()
}

func (l *Loop) runTaken() {
	for l.taken != nil {
		f := l.taken.f
		l.taken = l.taken.next
		f()
	}
}

// ErrLate is the answer of a loop that did not come to Do's function in time.
var ErrLate = errors.New("the event loop is held up")

var errPanic = errors.New("the function panicked on the event loop")

// Do runs f on the loop and waits until it has returned. After the timeout it gives up with ErrLate; f may run later.
// Never call it on a loop.
func (l *Loop) Do(timeout time.Duration, f func()) error {
	done := make(chan struct{})
	returned := false
	l.Post(func() {
		defer close(done)
		f()
		returned = true
	})
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-done:
		if !returned {
			return errPanic
		}
		return nil
	case <-l.stopped:
		return ErrStopped
	case <-t.C:
		return ErrLate
	}
}

// Await runs f, which may block or compute for long, on an ordinary goroutine while the loop serves others, and returns
// when f has. f must not touch what the loop owns. A panic in f is one of the calling task.
func (l *Loop) Await(f func()) {
	co := l.current
	var failure error
	finished := false
	go func() {
		defer func() {
			if p := recover(); p != nil {
				failure = fmt.Errorf("%v\n%s", p, debug.Stack())
			} else if !finished {
				failure = errors.New("an awaited function ended its goroutine by Goexit")
			}
			l.Post(func() {
				l.awaits--
				l.resume(co)
			})
		}()
		f()
		finished = true
	}()
	l.awaits++
	co.yield(struct{}{}) // not parked: nothing but f's end resumes it
	if failure != nil {
		panic(failure)
	}
}
