package loop

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is n idle connections that were not dialled, each of which is served by h with its number, and their peers.
func crowd(t *testing.T, l *Loop, n int, deadline time.Duration, h func(c *Conn, i int)) (peers []int) {
	t.Helper()
	for i := range n {
		mine, theirs := unixPair(t)
		t.Cleanup(func() { closeFD(theirs) })
		peers = append(peers, theirs)
		on(t, l, func() {
			c, err := l.Adopt(mine, serve(func(c *Conn) { h(c, i) }))
			check(t, err)
			c.Idle(l.Now() + int64(deadline))
		})
	}
	return peers
}

// shout writes a byte to each peer before the loop looks again.
func shout(t *testing.T, l *Loop, peers []int) {
	t.Helper()
	on(t, l, func() {
		for _, fd := range peers {
			if _, e := write(fd, []byte("x")); e != 0 {
				t.Error(e)
			}
		}
	})
}

// Of a hundred connections that speak at once a turn begins with 32, in their order; each is served once.
func TestBegunInATurn(t *testing.T) {
	l, _ := start(t, Options{})
	var order []int
	turns := map[int64]int{}
	peers := crowd(t, l, 100, time.Hour, func(c *Conn, i int) {
		_, _ = c.ReadNow(make([]byte, 8))
		order = append(order, i)
		turns[l.Turned()]++
		c.Idle(0)
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return len(order) >= len(peers) })
	on(t, l, func() {
		for at, n := range turns {
			if n > maxBegun {
				t.Errorf("turn %d began %d", at, n)
			}
		}
		for i, k := range order {
			if i != k {
				t.Fatalf("in place of %d came %d: %v", i, k, order)
			}
		}
	})
}

// What a connection begins beside itself counts, too.
func TestBegunTasksCount(t *testing.T) {
	l, _ := start(t, Options{})
	served, ran := 0, 0
	turns := map[int64]int{}
	peers := crowd(t, l, 40, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		served++
		turns[l.Turned()]++
		for range maxBegun / 2 {
			l.Begin(func() { ran++ })
		}
		c.Idle(0)
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return served == len(peers) && ran == served*maxBegun/2 })
	on(t, l, func() {
		for at, n := range turns {
			if n > 2 {
				t.Errorf("turn %d served %d connections with %d tasks each", at, n, maxBegun/2)
			}
		}
	})
}

// An answer does not wait behind the new work that came before it.
func TestAnswersFirst(t *testing.T) {
	l, _ := start(t, Options{})
	begun, before := 0, -1
	peers := crowd(t, l, 100, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		begun++
		c.Idle(0)
	})
	fd, at := listenTCP(t)
	defer closeFD(fd)
	task(t, l, func() {
		c, err := l.Dial(Address{AddrPort: at}, serve(func(*Conn) { before = begun }), l.Now()+int64(patience))
		check(t, err)
		c.Idle(0)
	})
	check(t, awaitEvents(int32(fd), unix.POLLIN))
	upstream, _, err := unix.Accept(fd)
	check(t, err)
	defer closeFD(upstream)
	shout(t, l, append(peers, upstream))
	eventually(t, l, "all are served", func() bool { return begun == len(peers) && before >= 0 })
	on(t, l, func() {
		if before > maxBegun {
			t.Errorf("the answer came after %d new things", before)
		}
	})
}

// spin holds the loop.
func spin(l *Loop, d time.Duration) {
	for end := l.Clock() + int64(d); l.Clock() < end; {
	}
}

// A connection whose work is under way does not wait behind the new work of others.
func TestBusyBeforeArrivals(t *testing.T) {
	l, _ := start(t, Options{})
	begun, before := 0, -1
	peers := crowd(t, l, 100, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		begun++
		c.Idle(0)
	})
	mine, theirs := unixPair(t)
	defer closeFD(theirs)
	on(t, l, func() {
		c, err := l.Adopt(mine, serve(func(*Conn) { before = begun }))
		check(t, err)
		c.Busy = true
		c.Idle(0)
	})
	shout(t, l, append(peers, theirs))
	eventually(t, l, "all are served", func() bool { return begun == len(peers) && before >= 0 })
	on(t, l, func() {
		if before > 0 {
			t.Errorf("it came after %d new things", before)
		}
	})
}

// Who has more at hand waits behind all that came before: those that ask once are not kept waiting by those that ask without end.
func TestQueue(t *testing.T) {
	l, _ := start(t, Options{})
	greedy, single, taken := 0, 0, 0
	peers := crowd(t, l, 20, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		for single < 300 {
			greedy++
			if c.Queue() != nil {
				return
			}
		}
		c.Idle(0)
	})
	peers = append(peers, crowd(t, l, 300, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		if single++; single == 300 {
			taken = greedy
		}
		c.Idle(0)
	})...)
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return single == 300 })
	on(t, l, func() {
		if taken > 300 {
			t.Errorf("of those that ask without end %d were served before the last of 300", taken)
		}
	})
}

// One that waits in Queue is told when the loop stops.
func TestQueueIsInterrupted(t *testing.T) {
	l, err := New(Options{})
	check(t, err)
	l.Start()
	var told error
	peers := crowd(t, l, 2, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		for told == nil {
			told = c.Queue()
			l.Yield()
		}
	})
	shout(t, l, peers)
	time.Sleep(20 * time.Millisecond) // in the middle of it
	stop(t, l)
	if told != ErrStopped {
		t.Errorf("told %v", told)
	}
}

// A loop takes no more connections from the kernel than it can begin to serve.
func TestAcceptsNotAhead(t *testing.T) {
	l, _ := start(t, Options{})
	fd, at := listenTCP(t)
	taken, served, ahead := 0, 0, 0
	h := serve(func(c *Conn) {
		served++
		_, _ = c.ReadNow(make([]byte, 8))
		spin(l, 20*time.Microsecond)
	})
	const n = 1000
	for range n {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		defer closeFD(s)
		check(t, unix.Connect(s, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
		_, _ = write(s, []byte("x"))
	}
	on(t, l, func() {
		_, err := l.Accept(fd, false, func(fd int, _ netip.AddrPort) {
			c, err := l.Adopt(fd, h)
			check(t, err)
			taken++
			ahead = max(ahead, taken-served)
			c.Idle(0)
		})
		check(t, err)
	})
	eventually(t, l, "all are served", func() bool { return served == n })
	on(t, l, func() {
		if ahead > 2*maxBegun {
			t.Errorf("up to %d were taken and not served", ahead)
		}
	})
}

// A connection that a task takes while it waits, and leaves idle again, ends at its new deadline.
func TestDeadlineOfOneTakenWhileItWaits(t *testing.T) {
	l, _ := start(t, Options{})
	var c *Conn
	peers := crowd(t, l, 100, time.Hour, func(d *Conn, i int) {
		_, _ = d.ReadNow(make([]byte, 8))
		switch i {
		case 0: // the last of the queue
			c.Use()
			_, _ = c.ReadNow(make([]byte, 8))
			c.Idle(l.Now() + int64(50*time.Millisecond))
		case 40: // of the next turn
			spin(l, 200*time.Millisecond)
		}
		d.Idle(0)
	})
	mine, theirs := unixPair(t)
	defer closeFD(theirs)
	on(t, l, func() {
		var err error
		c, err = l.Adopt(mine, serve(func(*Conn) { t.Error("nothing was left to serve") }))
		check(t, err)
		c.Idle(0)
	})
	shout(t, l, append(peers, theirs))
	eventually(t, l, "it is closed", func() bool { return c.Closed() })
}

// What a client that has broken off wanted is not begun.
func TestBrokenIsNotServed(t *testing.T) {
	l, _ := start(t, Options{})
	peers := crowd(t, l, 40, time.Hour, func(c *Conn, i int) {
		if i == 35 {
			t.Error("one that has gone is served")
		}
		_, _ = c.ReadNow(make([]byte, 8))
		c.Idle(0)
	})
	on(t, l, func() {
		for i, fd := range peers {
			_, _ = write(fd, []byte("x"))
			if i == 35 {
				check(t, unix.Shutdown(fd, unix.SHUT_RDWR))
			}
		}
	})
	eventually(t, l, "it is closed", func() bool {
		open := 0
		for _, c := range l.conns {
			if c != nil {
				open++
			}
		}
		return open == 39
	})
}

// Came is when the bytes came, not when they were looked at.
func TestCame(t *testing.T) {
	l, _ := start(t, Options{})
	var came, first, again int64
	peers := crowd(t, l, 40, time.Hour, func(c *Conn, i int) {
		_, _ = c.ReadNow(make([]byte, 8))
		switch i {
		case 0:
			first = l.Turned()
			spin(l, 20*time.Millisecond)
		case 39:
			came, again = c.Came(), c.Came()
		}
		c.Idle(0)
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return came != 0 })
	on(t, l, func() {
		if came != first || again-came < int64(20*time.Millisecond) {
			t.Errorf("came %v after the first, and then %v", time.Duration(came-first), time.Duration(again-came))
		}
	})
}

// What has come in time is served, however long the loop takes to come to it.
func TestWaitingIsNotIdle(t *testing.T) {
	l, _ := start(t, Options{})
	served := 0
	peers := crowd(t, l, 100, 300*time.Millisecond, func(c *Conn, _ int) {
		if served++; served == 1 {
			spin(l, 400*time.Millisecond)
		}
		c.Idle(0)
		_, _ = c.ReadNow(make([]byte, 8))
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return served == len(peers) })
}

// What the kernel has at the end of a turn that took long has come in time, though its deadline is over by then.
func TestEventsBeforeTimers(t *testing.T) {
	l, _ := start(t, Options{})
	c, peer := used(t, l)
	holds := crowd(t, l, 1, time.Hour, func(c *Conn, _ int) {
		spin(l, 400*time.Millisecond)
		_, _ = c.ReadNow(make([]byte, 8))
		c.Idle(0)
	})
	served := false
	idle := crowd(t, l, 1, 200*time.Millisecond, func(*Conn, int) { served = true })
	var n int
	var err error
	done := spawn(l, func() {
		c.ReadTimeout = int64(200 * time.Millisecond)
		n, err = c.Read(make([]byte, 8))
	})
	eventually(t, l, "it reads", func() bool { return c.reader != nil })
	shout(t, l, holds)
	time.Sleep(20 * time.Millisecond) // while the loop is held up
	_, e := peer.Write([]byte("y"))
	check(t, e)
	if _, e := write(idle[0], []byte("z")); e != 0 {
		t.Fatal(e)
	}
	receive(t, done, "the reader's end")
	if err != nil || n != 1 {
		t.Errorf("read %d bytes: %v", n, err)
	}
	eventually(t, l, "the idle one is served", func() bool { return served })
}
