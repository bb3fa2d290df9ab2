package loop

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// destroyer is a handler that ends as its name says.
type destroyer struct{ how func() }

func (d *destroyer) Serve(c *Conn)  { d.how() }
func (d *destroyer) String() string { return "the destroyer" }

// expectClosed fails unless the peer's connection is closed.
func expectClosed(t *testing.T, peer io.Reader) {
	t.Helper()
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF && !isReset(err) {
		t.Errorf("the connection is not closed: read %d bytes, %v", n, err)
	}
}

// A panic ends its task and the connection that this served, is logged with its stack, and counted. Others go on.
func TestPanicInATask(t *testing.T) {
	count := 0
	l, log := start(t, Options{Panicked: func() { count++ }})
	bad := accepting(t, l, &destroyer{func() { panicHere() }})
	good := dialed(t, accepting(t, l, serve(echo)))
	check(t, exchange(good, 1, 0, 100))
	for range 3 {
		peer := dialed(t, bad)
		_, err := peer.Write([]byte("x"))
		check(t, err)
		expectClosed(t, peer)
	}
	check(t, exchange(good, 1, 100, 100))
	on(t, l, func() {
		if found := log.with("on purpose"); count != 3 || len(found) != 1 ||
			!strings.Contains(found[0], "panicHere") || !strings.Contains(found[0], "the destroyer") {
			t.Errorf("%d counted, the log has: %q", count, found)
		}
		l.panicTold["on purpose"] -= panicEvery // a minute later
	})
	peer := dialed(t, bad)
	_, err := peer.Write([]byte("x"))
	check(t, err)
	expectClosed(t, peer)
	on(t, l, func() {
		if found := log.with("on purpose"); count != 4 || len(found) != 2 || !strings.Contains(found[1], "panics=4") {
			t.Errorf("a minute later %d counted, the log has: %q", count, found)
		}
	})
}

func panicHere() { panic("on purpose") }

// Panics of many kinds, as a hostile client may bring about, are logged up to a bound, however long their texts.
func TestPanicsOfManyKinds(t *testing.T) {
	l, log := start(t, Options{})
	for i := range 3 * maxPanics {
		if err := l.Do(patience, func() { panic(fmt.Sprintf("kind %d\n%d", i/2, i)) }); err == nil {
			t.Fatal("Do is content with a panic")
		}
	}
	on(t, l, func() {
		if n := len(log.with("kind ")); n != maxPanics || len(l.panicTold) != maxPanics || l.panics != 3*maxPanics {
			t.Errorf("%d in the log, %d kept, %d counted", n, len(l.panicTold), l.panics)
		}
		clear(l.panicTold)
		if !l.mayTell(strings.Repeat("a", 1<<20)) || l.mayTell(strings.Repeat("a", maxPanicBytes)) {
			t.Error("texts are kept whole")
		}
	})
}

// A panic outside of a task, in a posted function, a timer or an accept, ends neither the loop nor its turn.
func TestPanicOutsideOfATask(t *testing.T) {
	count := 0
	l, log := start(t, Options{Panicked: func() { count++ }})
	after := make(chan struct{}, 1)
	fd, at := listenTCP(t)
	release := make(chan struct{})
	l.Post(func() { <-release }) // the following are taken in one go
	l.Post(panicHere)
	l.Post(func() { after <- struct{}{} })
	close(release)
	receive(t, after, "the next posted function")
	if err := l.Do(patience, panicHere); err == nil {
		t.Error("Do is content with a panic")
	}
	on(t, l, func() {
		l.NewTimer(panicHere).At(1)
		l.NewTimer(func() { after <- struct{}{} }).At(1)
	})
	receive(t, after, "the next timer")
	on(t, l, func() {
		_, err := l.Accept(fd, false, func(fd int, _ netip.AddrPort) {
			_ = unix.Close(fd)
			panicHere()
		})
		check(t, err)
	})
	for range 2 {
		expectClosed(t, dialed(t, at))
	}
	eventually(t, l, "all five are counted", func() bool { return count == 5 && len(log.with("panicHere")) == 1 })
}

// A Goexit ends one task and its connection. The loop goes on, with the rest of the same batch of events, of ready tasks,
// of posted functions, and with the other task that the same event wakes.
func TestGoexit(t *testing.T) {
	l, log := start(t, Options{})
	const each = 5
	peers := make([]io.ReadWriter, 2*each)
	fds := make([]int32, 2*each)
	for i := range peers {
		h := Handler(&destroyer{runtime.Goexit})
		if i%2 == 1 {
			h = serve(echo)
		}
		c, peer := served(t, l, h)
		peers[i], fds[i] = peer, c.fd
	}
	ran := 0
	on(t, l, func() { // all at once: events, tasks and posts
		for i, peer := range peers {
			_, err := peer.Write([]byte("x"))
			check(t, err)
			check(t, awaitEvents(fds[i], unix.POLLIN))
		}
		for range each {
			l.Go(runtime.Goexit)
			l.Go(func() { ran++ })
			l.Post(runtime.Goexit)
			l.Post(func() { ran++ })
		}
	})
	for i, peer := range peers {
		if i%2 == 0 {
			expectClosed(t, peer)
		} else if n, err := peer.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("the echo got lost: read %d bytes, %v", n, err)
		}
	}
	eventually(t, l, "the rest has run", func() bool { return ran == 2*each })
	on(t, l, func() {
		if left := len(l.all) - len(l.idle); left != 0 {
			t.Errorf("%d coroutines are left", left)
		}
		if n := len(log.with("goes on in another")); n != 3*each {
			t.Errorf("%d of %d were logged", n, 3*each)
		}
	})
}

// The event that wakes a writer, which ends with Goexit, also wakes the reader of the same connection.
func TestGoexitOfTheWriter(t *testing.T) {
	l, _ := start(t, Options{})
	c, peer := used(t, l)
	over := make(chan error, 1)
	spawn(l, func() {
		for p := make([]byte, BufferBytes); ; {
			if _, err := c.Write(p); err != nil {
				runtime.Goexit()
			}
		}
	})
	spawn(l, func() {
		_, err := c.Read(make([]byte, 1))
		over <- err
	})
	eventually(t, l, "both wait", func() bool { return c.reader != nil && c.writer != nil })
	check(t, peer.SetLinger(0))
	check(t, peer.Close())
	if err := receive(t, over, "the reader's end"); err != ErrReset {
		t.Errorf("the reader got %v", err)
	}
	on(t, l, c.Close)
}

// A task that Await has brought back and that ends with Goexit does not take the other results with it.
func TestGoexitAfterAwait(t *testing.T) {
	l, _ := start(t, Options{})
	release, ready := make(chan struct{}), make(chan struct{}, 20)
	done := make(chan struct{}, 10)
	for range 10 {
		spawn(l, func() {
			l.Await(func() { ready <- struct{}{}; <-release })
			runtime.Goexit()
		})
		spawn(l, func() {
			l.Await(func() { ready <- struct{}{}; <-release })
			done <- struct{}{}
		})
	}
	for range 20 {
		receive(t, ready, "the awaited functions")
	}
	on(t, l, func() { // while it is held here, all results are posted
		close(release)
		for l.posted.Load() == nil {
		}
	})
	for range 10 {
		receive(t, done, "the others")
	}
}

// A Closed method that panics ends no more than its connection, also when it is called for another panic.
func TestPanicInClosed(t *testing.T) {
	l, log := start(t, Options{})
	c, peer := served(t, l, &brittle{})
	idle, _ := served(t, l, &brittle{})
	_, err := peer.Write([]byte("x"))
	check(t, err)
	expectClosed(t, peer)
	eventually(t, l, "both panics are logged", func() bool { return len(log.with("brittle")) >= 1 && len(log.with("when closed")) == 1 })
	on(t, l, func() {
		clear(l.panicTold)
		idle.Use()
		idle.Idle(l.Now() + int64(time.Millisecond))
	})
	eventually(t, l, "the third, of a timer, too", func() bool { return len(log.with("when closed")) == 2 && idle.Closed() })
	on(t, l, func() {
		if left := len(l.all) - len(l.idle); left != 0 || !c.Closed() {
			t.Errorf("%d coroutines are left", left)
		}
	})
}

type brittle struct{}

func (*brittle) Serve(*Conn)    { panic("when served") }
func (*brittle) String() string { return "brittle" }
func (*brittle) Closed(*Conn)   { panic("when closed") }
