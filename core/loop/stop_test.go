package loop

import (
	"runtime"
	"testing"
	"time"
)

// Stop ends everything, whatever it does: waiting reads, writes, parks, dials, awaited functions, tasks that never wait,
// idle connections, listening sockets, timers. Nothing is left.
func TestStopEndsEverything(t *testing.T) {
	runtime.GC()
	fds, before := countFDs(), runtime.NumGoroutine()
	l, err := New(Options{})
	check(t, err)
	l.Start()
	h := &told{}
	at := accepting(t, l, h)
	quiet := silent(t)
	left := map[string]error{}
	await := make(chan struct{})
	begin := func(name string, f func(c *Conn) error) {
		c, _ := used(t, l)
		c.Handle(h)
		spawn(l, func() {
			defer c.Close()
			left[name] = f(c)
		})
	}
	begin("read", func(c *Conn) error { return c.WaitRead() })
	begin("write", func(c *Conn) (err error) {
		for p := make([]byte, BufferBytes); err == nil; {
			_, err = c.Write(p)
		}
		return err
	})
	begin("park", func(*Conn) error { return l.Park(l.Now() + int64(time.Hour)) })
	begin("dial", func(*Conn) error {
		_, err := l.Dial(Address{AddrPort: quiet}, h, 0)
		return err
	})
	begin("await", func(*Conn) error {
		l.Await(func() { <-await })
		return l.Park(0)
	})
	begin("endless reads", func(c *Conn) (err error) {
		for p := make([]byte, 1); err == nil; {
			c.writable = true
			_, err = c.Write(p[:0])
		}
		return err
	})
	_, _ = served(t, l, h) // idle
	on(t, l, func() { l.NewTimer(func() { t.Error("a timer expired after an hour") }).At(l.Now() + int64(time.Hour)) })
	_ = dialed(t, at)
	eventually(t, l, "all of it is under way", func() bool { return len(l.all)-len(l.idle) == 6 && l.awaits == 1 })
	ended := make(chan error, 1)
	go func() { ended <- l.Stop() }()
	select {
	case <-ended:
		t.Error("Stop did not wait for the awaited function")
	case <-time.After(50 * time.Millisecond):
	}
	close(await)
	if err := receive(t, ended, "the end of the loop"); err != nil {
		t.Errorf("Stop: %v", err)
	}
	for _, name := range []string{"read", "write", "park", "await", "endless reads"} {
		if left[name] != ErrStopped {
			t.Errorf("%s ended with %v", name, left[name])
		}
	}
	if left["dial"] == nil || h.closed < 7 {
		t.Errorf("dial ended with %v; %d connections were closed", left["dial"], h.closed)
	}
	if l.Stop() != nil { // again
		t.Error("the second Stop gave an error")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		// 8 peers and the 5 sockets of the silent address are this test's own.
		if fds, goroutines := countFDs()-fds-8-5, runtime.NumGoroutine()-before; fds <= 0 && goroutines <= 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d descriptors and %d goroutines are left\n%s", fds, goroutines, stacks())
		}
	}
}

// Stop ends a loop on which many coroutines are idle, and one that was never started.
func TestStopWithIdleCoroutines(t *testing.T) {
	l, err := New(Options{})
	check(t, err)
	l.Start()
	left := 2 * maxIdle
	done := make(chan struct{})
	on(t, l, func() {
		for range 2 * maxIdle {
			l.Go(func() {
				l.Yield()
				if left--; left == 0 {
					close(done)
				}
			})
		}
	})
	receive(t, done, "all tasks")
	on(t, l, func() {
		if len(l.idle) != maxIdle || len(l.all) != maxIdle {
			t.Errorf("%d coroutines are kept, %d idle; at most %d should be", len(l.all), len(l.idle), maxIdle)
		}
	})
	stop(t, l)
	fresh, err := New(Options{})
	check(t, err)
	stop(t, fresh)
}

// reborn is a handler that begins something new whenever a connection ends.
type reborn struct{ begun, ended int }

func (h *reborn) Serve(*Conn)    {}
func (h *reborn) String() string { return "reborn" }
func (h *reborn) Closed(c *Conn) {
	c.Loop().Go(func() {
		h.begun++
		_ = c.Loop().Park(0)
		h.ended++
	})
}

// What begins because a connection ended with the loop is brought to its end, too.
func TestTaskBegunByTheEnd(t *testing.T) {
	l, err := New(Options{})
	check(t, err)
	l.Start()
	h := &reborn{}
	idle, _ := served(t, l, h)
	inUse, _ := served(t, l, h)
	on(t, l, inUse.Use)
	stop(t, l)
	if h.begun != 2 || h.ended != 2 || !idle.Closed() || !inUse.Closed() || len(l.all) != 0 {
		t.Errorf("%d began, %d ended, %d coroutines are left", h.begun, h.ended, len(l.all))
	}
}
