package loop

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask makes one request of 100 bytes over a blocking socket.
func ask(t testing.TB, fd int, p []byte) {
	if _, err := unix.Write(fd, p); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(p); {
		k, err := unix.Read(fd, p[n:])
		switch {
		case err == unix.EINTR: // as any wait with a timeout may end (man 7 signal)
		case err != nil || k == 0:
			t.Fatalf("read %d bytes: %v", k, err)
		default:
			n += k
		}
	}
}

// keepAlive gives a blocking socket whose other end l serves with h.
func keepAlive(t testing.TB, l *Loop, h Handler) int {
	mine, theirs := unixPair(t)
	on(t, l, func() {
		c, err := l.Adopt(mine, h)
		check(t, err)
		c.Idle(0)
	})
	check(t, unix.SetNonblock(theirs, false))
	limit := unix.NsecToTimeval(int64(patience))
	check(t, unix.SetsockoptTimeval(theirs, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	t.Cleanup(func() { closeFD(theirs) })
	return theirs
}

// allocations counts those of a call of f, on all goroutines, of n: the least of ten rounds, since the runtime makes some of its
// own now and then.
func allocations(n int, f func()) float64 {
	const rounds = 10
	least := 1e9
	var before, after runtime.MemStats
	for range rounds {
		runtime.ReadMemStats(&before)
		for range n / rounds {
			f()
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/float64(n/rounds))
	}
	return least
}

// In steady state a request on a keep-alive connection allocates nothing, wherever its task waits: between requests, within
// one, for another task, for a timer, for its turn. 4 allocations in 2,000 requests are taken for the runtime's own.
func TestRequestsAllocateNothing(t *testing.T) {
	f := func(name string, serveOne func(c *Conn, p []byte)) {
		t.Run(name, func(t *testing.T) {
			l, _ := start(t, Options{})
			fd := keepAlive(t, l, serve(func(c *Conn) {
				buf := l.Borrow()
				serveOne(c, buf)
				l.Return(buf)
				c.Idle(l.Now() + int64(time.Minute))
			}))
			p := make([]byte, 100)
			for range 100 {
				ask(t, fd, p)
			}
			if each := allocations(20_000, func() { ask(t, fd, p) }); each > 0.002 {
				t.Errorf("a request makes %.4f allocations", each)
			}
		})
	}
	answer := func(c *Conn, p []byte) {
		n, err := c.ReadNow(p)
		if err == nil {
			_, _ = c.Write(p[:n])
		}
	}
	f("idle between requests", answer)
	f("one after another", func(c *Conn, p []byte) {
		c.ReadTimeout, c.WriteTimeout = int64(time.Minute), int64(time.Minute)
		for range 50 {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			_, _ = c.Write(p[:n])
		}
	})
	f("with a yield", func(c *Conn, p []byte) {
		c.Loop().Yield()
		answer(c, p)
	})
	var woken Task
	wake := func() { woken.Wake() }
	f("with another task", func(c *Conn, p []byte) {
		l := c.Loop()
		woken = l.Self()
		l.Go(wake)
		_ = l.Park(l.Now() + int64(time.Minute))
		answer(c, p)
	})
}

// BenchmarkSwitch is one switch to another coroutine and back, over the loop's queue of ready ones.
func BenchmarkSwitch(b *testing.B) {
	l, _ := start(b, Options{})
	b.ReportAllocs()
	task(b, l, func() {
		for range b.N {
			l.Yield()
		}
	})
}

// BenchmarkParkWake is one task that wakes another, and waits until it is woken by it.
func BenchmarkParkWake(b *testing.B) {
	l, _ := start(b, Options{})
	b.ReportAllocs()
	task(b, l, func() {
		self := l.Self()
		other := l.Go(func() {
			for range b.N {
				_ = l.Park(0)
				self.Wake()
			}
		})
		l.Yield()
		for range b.N {
			other.Wake()
			_ = l.Park(0)
		}
	})
}

// BenchmarkGo is one task begun and ended.
func BenchmarkGo(b *testing.B) {
	l, _ := start(b, Options{})
	b.ReportAllocs()
	task(b, l, func() {
		self := l.Self()
		wake := func() { self.Wake() }
		for range b.N {
			l.Go(wake)
			_ = l.Park(0)
		}
	})
}

// BenchmarkTimerSet moves one of 10,000 deadlines, as a request does.
func BenchmarkTimerSet(b *testing.B) {
	s := newSimulation(10_000, nil)
	for i := range s.alarms {
		s.wheel.set(&s.alarms[i].timer, int64(i+1)*1e6)
	}
	b.ReportAllocs()
	for i := range b.N {
		s.wheel.set(&s.alarms[i%10_000].timer, int64(i%60_000+10_000)*1e6)
	}
}

// BenchmarkTimerSetAndRemove files a timer anew.
func BenchmarkTimerSetAndRemove(b *testing.B) {
	s := newSimulation(1, nil)
	b.ReportAllocs()
	for i := range b.N {
		s.wheel.set(&s.alarms[0].timer, int64(i%60_000+1)*1e6)
		s.wheel.remove(&s.alarms[0].timer)
	}
}

// BenchmarkAwait is a trip to another goroutine and back.
func BenchmarkAwait(b *testing.B) {
	l, _ := start(b, Options{})
	b.ReportAllocs()
	task(b, l, func() {
		for range b.N {
			l.Await(func() {})
		}
	})
}

// BenchmarkPost is a function posted and run, as Do does it.
func BenchmarkPost(b *testing.B) {
	l, _ := start(b, Options{})
	b.ReportAllocs()
	for range b.N {
		on(b, l, func() {})
	}
}

// BenchmarkEcho is a request over a connection that is idle in between.
func BenchmarkEcho(b *testing.B) {
	l, _ := start(b, Options{})
	fd := keepAlive(b, l, serve(echo))
	p := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		ask(b, fd, p)
	}
}
