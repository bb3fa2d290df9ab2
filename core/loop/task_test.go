package loop

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"
)

// Park ends by Wake, by Interrupt and by its deadline; who is not parked takes no notice of the first two.
func TestParkWakeInterrupt(t *testing.T) {
	l, _ := start(t, Options{})
	mine := errors.New("my own")
	task(t, l, func() {
		self := l.Self()
		self.Wake()
		self.Interrupt(mine)
		begun := l.Clock()
		if err := l.Park(l.Now() + int64(20*time.Millisecond)); err != ErrTimeout || l.Clock()-begun < int64(19*time.Millisecond) {
			t.Errorf("the deadline ended the wait with %v after %v", err, time.Duration(l.Clock()-begun))
		}
		l.Go(self.Wake)
		if err := l.Park(0); err != nil {
			t.Errorf("Wake ended the wait with %v", err)
		}
		l.Go(func() {
			self.Interrupt(mine)
			self.Wake() // too late
		})
		if err := l.Park(l.Now() + int64(time.Hour)); err != mine {
			t.Errorf("Interrupt ended the wait with %v", err)
		}
		// The deadline of the last wait is not one of the next.
		if err := l.Park(l.Now() + int64(oneTick)); err != ErrTimeout {
			t.Errorf("the last wait ended with %v", err)
		}
	})
}

// Interrupt ends whatever its task waits for.
func TestInterruptOfARead(t *testing.T) {
	l, _ := start(t, Options{})
	c, _ := used(t, l)
	task(t, l, func() {
		self := l.Self()
		l.Go(func() { self.Interrupt(ErrInterrupted) })
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != ErrInterrupted {
			t.Errorf("read %d bytes: %v", n, err)
		}
		l.Go(self.Wake) // not for a read: it waits on
		c.ReadTimeout = 1
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != ErrTimeout {
			t.Errorf("read %d bytes: %v", n, err)
		}
		c.Close()
	})
}

// Tasks run in the order in which they were begun, from the end of the turn on, and each when the other waits.
func TestOrderOfTasks(t *testing.T) {
	l, _ := start(t, Options{})
	var order []int
	task(t, l, func() {
		left := 3
		self := l.Self()
		for i := range 3 {
			l.Go(func() {
				order = append(order, i)
				l.Yield()
				order = append(order, 10+i)
				if left--; left == 0 {
					self.Wake()
				}
			})
		}
		order = append(order, -1)
		_ = l.Park(0)
	})
	if want := []int{-1, 0, 1, 2, 10, 11, 12}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

// The hang-up of a watched peer ends the watcher's waits, those that come later too, and nobody else's.
func TestWatch(t *testing.T) {
	l, _ := start(t, Options{})
	client, peer := used(t, l)
	upstream, _ := used(t, l)
	var other error
	bystander := spawn(l, func() { other = l.Park(l.Now() + int64(time.Second/4)) })
	over := make(chan error, 3)
	spawn(l, func() {
		defer upstream.Close()
		defer client.Close()
		l.Watch(client)
		_, err := upstream.Read(make([]byte, 1))
		over <- err
		over <- l.Park(0)
		l.Watch(nil)
		over <- l.Park(l.Now() + 1)
	})
	eventually(t, l, "the task waits", func() bool { return upstream.reader != nil })
	_, err := peer.Write([]byte("a pipelined request is no hang-up"))
	check(t, err)
	eventually(t, l, "the bytes are seen", client.Readable)
	select {
	case err := <-over:
		t.Fatalf("bytes ended the wait: %v", err)
	default:
	}
	check(t, peer.Close())
	for _, want := range []error{ErrHangup, ErrHangup, ErrTimeout} {
		if err := receive(t, over, "the end of a wait"); err != want {
			t.Errorf("the wait ended with %v, want %v", err, want)
		}
	}
	receive(t, bystander, "the bystander")
	if other != ErrTimeout {
		t.Errorf("the bystander's wait ended with %v", other)
	}
}

// With HalfClose, the end of the peer's sending is no hang-up; its reset is.
func TestWatchHalfClosed(t *testing.T) {
	l, _ := start(t, Options{})
	client, peer := used(t, l)
	over := make(chan error, 2)
	spawn(l, func() {
		client.HalfClose = true
		l.Watch(client)
		for !client.Ended() {
			l.Yield()
		}
		over <- l.Park(l.Now() + oneTick)
		over <- l.Park(0)
		client.Close()
	})
	check(t, peer.CloseWrite())
	if err := receive(t, over, "the first wait"); err != ErrTimeout {
		t.Errorf("the end of sending ended the wait with %v", err)
	}
	check(t, peer.SetLinger(0))
	check(t, peer.Close())
	if err := receive(t, over, "the second wait"); err != ErrHangup {
		t.Errorf("the reset ended the wait with %v", err)
	}
}

// A task that ends without Watch(nil) leaves nothing behind: its coroutine's next task is not told of the hang-up.
func TestWatchEndsWithItsTask(t *testing.T) {
	l, _ := start(t, Options{})
	client, peer := used(t, l)
	var first, second *coroutine
	task(t, l, func() {
		first = l.current
		l.Watch(client)
	})
	over := make(chan error, 1)
	spawn(l, func() {
		second = l.current
		over <- l.Park(l.Now() + int64(50*time.Millisecond))
	})
	eventually(t, l, "the next task waits", func() bool { return second != nil && second.parked })
	check(t, peer.Close())
	if err := receive(t, over, "the next task's wait"); err != ErrTimeout || first != second {
		t.Errorf("the next task's wait ended with %v; same coroutine: %t", err, first == second)
	}
	on(t, l, client.Close)
}

// A connection with endless input has its turn, and so have the others: an echo on the same loop is answered, and between
// two runs of another task the busy one makes no more than its budget of reads.
func TestFairness(t *testing.T) {
	l, _ := start(t, Options{})
	at := accepting(t, l, serve(echo))
	flood, peer := used(t, l)
	reads, stopped := 0, false
	sink := spawn(l, func() {
		defer flood.Close()
		buf := l.Borrow()
		defer l.Return(buf)
		for !stopped {
			flood.readable = true // there is always more, as far as the task can see
			n, err := flood.Read(buf[:16])
			if reads++; err != nil && err != ErrTimeout || n < 0 {
				return
			}
		}
	})
	stopFlood := make(chan struct{})
	source := make(chan struct{})
	go func() {
		defer close(source)
		for p := make([]byte, 1<<20); ; {
			select {
			case <-stopFlood:
				return
			default:
			}
			if _, err := peer.Write(p); err != nil {
				return
			}
		}
	}()
	eventually(t, l, "the flood is read", func() bool { return reads > 1000 })
	c := dialed(t, at)
	for i := range 50 {
		check(t, exchange(c, 1, int64(i)*100, 100))
	}
	task(t, l, func() {
		most := 0
		for range 100 {
			before := reads
			l.Yield()
			most = max(most, reads-before)
		}
		if most == 0 || most > 2*turnBudget {
			t.Errorf("the busy task made %d reads in one turn; its budget is %d", most, turnBudget)
		}
	})
	on(t, l, func() { stopped = true })
	receive(t, sink, "the sink's end")
	close(stopFlood)
	receive(t, source, "the source's end")
}

// An idle connection with something left to read is served again, although its own task left it idle; one that is used
// before that comes is not.
func TestIdleWithUnreadBytes(t *testing.T) {
	l, _ := start(t, Options{})
	var got []byte
	over := make(chan error, 1)
	_, peer := served(t, l, serve(func(c *Conn) {
		p := make([]byte, 1)
		n, err := c.ReadNow(p) // leaves the rest
		got = append(got, p[:n]...)
		switch err {
		case nil, ErrAgain:
			c.Idle(0)
		default:
			over <- err
		}
	}))
	_, err := peer.Write([]byte("byte by byte"))
	check(t, err)
	check(t, peer.CloseWrite())
	if err := receive(t, over, "the end"); err != io.EOF || string(got) != "byte by byte" {
		t.Errorf("got %q, then %v", got, err)
	}

	c, peer := used(t, l)
	_, err = peer.Write([]byte("unsolicited"))
	check(t, err)
	eventually(t, l, "the bytes are seen", c.Readable)
	task(t, l, func() {
		c.Handle(serve(func(*Conn) { t.Error("it was served while a task used it") }))
		c.Idle(0)
		c.Use()
		l.Yield()
		l.Yield()
		if c.Closed() {
			t.Error("it was closed while a task used it")
		}
		c.Close()
	})
}

// To leave a connection idle of which the end has been read, or on a loop that stops, is to close it: nothing will come.
func TestIdleAfterTheEnd(t *testing.T) {
	l, _ := start(t, Options{})
	rounds := 0
	c, peer := served(t, l, serve(func(c *Conn) {
		rounds++
		_, _ = c.ReadNow(make([]byte, 1))
		c.Idle(0)
	}))
	check(t, peer.CloseWrite())
	eventually(t, l, "it is closed", c.Closed)
	if rounds != 1 {
		t.Errorf("it was served %d times", rounds)
	}
	ending, err := New(Options{})
	check(t, err)
	ending.Start()
	c, _ = used(t, ending)
	left := spawn(ending, func() {
		if err := ending.Park(0); err != ErrStopped {
			t.Errorf("the wait ended with %v", err)
		}
		c.Idle(0)
		if !c.Closed() {
			t.Error("it is idle on a loop that stops")
		}
	})
	stop(t, ending)
	receive(t, left, "the task's end")
}

// A loop keeps a bounded number of buffers and pipes, and takes back none that is not whole.
func TestKeptBuffersAndPipes(t *testing.T) {
	l, log := start(t, Options{})
	task(t, l, func() {
		var buffers [][]byte
		var pipes []*pipe
		for range 3 * maxBuffers {
			buffers = append(buffers, l.Borrow())
			p, err := l.takePipe()
			check(t, err)
			pipes = append(pipes, p)
		}
		for i := range buffers {
			l.Return(buffers[i])
			l.givePipe(pipes[i])
		}
		if len(l.buffers.free) != maxBuffers || len(l.pipes) != maxPipes {
			t.Errorf("%d buffers and %d pipes are kept", len(l.buffers.free), len(l.pipes))
		}
		l.Return(buffers[0][:100])
	})
	eventually(t, l, "the mistake is logged", func() bool { return len(log.with("not whole")) == 1 })
}

// An idle connection is closed at its deadline, one in use is not, and each end is told to its handler once.
func TestIdleDeadline(t *testing.T) {
	l, _ := start(t, Options{})
	h := &told{}
	idle, _ := served(t, l, h)
	busy, _ := served(t, l, h)
	moved, _ := served(t, l, h)
	on(t, l, func() {
		at := l.Now() + int64(30*time.Millisecond)
		for _, c := range []*Conn{idle, busy, moved} {
			c.Use()
			c.Idle(at)
		}
		busy.Use()
		moved.Use()
		moved.Idle(at + int64(time.Hour))
	})
	eventually(t, l, "the idle one is closed", idle.Closed)
	task(t, l, func() { _ = l.Park(l.Now() + 3*oneTick) })
	on(t, l, func() {
		if busy.Closed() || moved.Closed() || h.closed != 1 {
			t.Errorf("busy closed %t, moved closed %t, %d told", busy.Closed(), moved.Closed(), h.closed)
		}
		busy.Close()
		busy.Close()
		n := 0
		l.EachIdle(func(c *Conn) {
			n++
			c.Close()
		})
		if n != 1 || h.closed != 3 {
			t.Errorf("%d were idle, %d told", n, h.closed)
		}
	})
}

// A connection is not idle to which something has come in this turn, of which the loop has not heard.
func TestEachIdleAsksTheKernel(t *testing.T) {
	l, _ := start(t, Options{})
	quiet, _ := served(t, l, &told{})
	spoken, peer := served(t, l, &told{})
	on(t, l, func() {
		for _, c := range []*Conn{quiet, spoken} {
			c.Use()
			c.Idle(0)
		}
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		l.EachIdle(func(c *Conn) {
			if c == spoken {
				t.Error("it was called for the connection that has spoken")
			}
			c.Close()
		})
		if !quiet.Closed() || spoken.Closed() {
			t.Errorf("the quiet one is closed: %t, the one that has spoken: %t", quiet.Closed(), spoken.Closed())
		}
	})
}

// told is a handler that is told of the ends of its connections.
type told struct{ closed int }

func (h *told) Serve(*Conn)    {}
func (h *told) String() string { return "told" }
func (h *told) Closed(*Conn)   { h.closed++ }

// A task whom it was told that nobody waits for it learns so at every wait, and whoever gets its coroutine next does not.
func TestHangup(t *testing.T) {
	l, _ := start(t, Options{})
	var worker Task
	errs := make(chan error, 2)
	done := spawn(l, func() {
		worker = l.Self()
		errs <- l.Park(0)
		errs <- l.Park(0)
	})
	eventually(t, l, "the task waits", func() bool { return worker.co != nil && worker.co.parked })
	on(t, l, func() { worker.Hangup() })
	for range 2 {
		if err := receive(t, errs, "the end of a wait"); err != ErrHangup {
			t.Errorf("the wait ended with %v", err)
		}
	}
	receive(t, done, "the end of the task")
	task(t, l, func() {
		if err := l.Park(l.Now() + 1); err != ErrTimeout {
			t.Errorf("the next task's wait ended with %v", err)
		}
	})
}
