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
// calls Go. Posts of one goroutine run in order.
func (l *Loop) Post(f func()) {
	p := &post{f: f}
	for {
		p.next = l.posted.Load()
		if l.posted.CompareAndSwap(p.next, p) {
			break
		}
	}
	if p.next == nil {
		one := [8]byte{1}
		_, _ = write(l.wakeFD, one[:])
	}
}

func (l *Loop) runPosted() {
	var b [8]byte
	_, _ = read(l.wakeFD, b[:])
	var first *post
	for p := l.posted.Swap(nil); p != nil; {
		p.next, first, p = first, p, p.next
	}
	for ; first != nil; first = first.next {
		first.f()
	}
}

// ErrLate is the answer of a loop that did not come to Do's function in time.
var ErrLate = errors.New("the event loop is held up")

// Do runs f on the loop and waits until it has returned. After the timeout it gives up with ErrLate; f may run later.
// Never call it on a loop.
func (l *Loop) Do(timeout time.Duration, f func()) error {
	done := make(chan struct{})
	l.Post(func() {
		f()
		close(done)
	})
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-done:
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
				failure = errors.New("Goexit in an awaited function")
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
