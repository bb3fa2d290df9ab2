package loop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitEvents blocks until the kernel has all of events for fd. It may be called where the loop may not go on meanwhile.
func awaitEvents(fd int32, events int16) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p := []unix.PollFd{{Fd: fd, Events: events}}
		if _, err := unix.Poll(p, 1000); err != nil && err != unix.EINTR {
			return err
		}
		if p[0].Revents&events == events {
			return nil
		}
	}
	return fmt.Errorf("the events %#x did not come", events)
}

// Some clients do not read what their tasks write without end: each task waits, the loop's memory stays at one buffer a
// connection, with TLS too, and when they read at last, every byte is right.
func TestSlowReadersHoldOneBufferEach(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testSlowReaders(t, nil) })
	t.Run("TLS", func(t *testing.T) { testSlowReaders(t, serverConfig(t)) })
}

func testSlowReaders(t *testing.T, config *tls.Config) {
	const readers, size = 6, 120 * BufferBytes
	l, _ := start(t, Options{})
	var written atomic.Int64
	peers := make([]net.Conn, readers)
	conns := make([]*Conn, readers)
	done := make([]chan struct{}, readers)
	begin := make(chan struct{})
	var shaken sync.WaitGroup
	for i := range readers {
		fd, peer := tcpPair(t)
		peers[i] = peer
		on(t, l, func() {
			check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10))
			conns[i], _ = l.Adopt(fd, serve(echo))
		})
		shaken.Add(1)
		done[i] = spawn(l, func() {
			defer conns[i].Close()
			var err error
			if config != nil {
				_, err = conns[i].SecureServer(config, nil)
				_, _ = conns[i].ReadNow(make([]byte, 1)) // what the handshake was read into is given back
			}
			shaken.Done()
			l.Await(func() { <-begin })
			for at := int64(0); at < size && err == nil; at += BufferBytes {
				buf := l.Borrow()
				pattern(buf, uint64(i), at)
				var n int
				n, err = conns[i].WriteOver(buf)
				written.Add(int64(n))
				l.Return(buf)
			}
			if err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
		if config != nil {
			c := tls.Client(peer, clientConfig())
			check(t, c.Handshake())
			peers[i] = c
		}
	}
	shaken.Wait()
	on(t, l, func() { l.buffers.free = nil }) // those of handshakes
	close(begin)
	eventually(t, l, "all writers wait", func() bool {
		for _, c := range conns {
			if c.writer == nil || !c.writer.parked {
				return false
			}
		}
		return true
	})
	if n := written.Load(); n >= readers*size {
		t.Fatalf("nobody read, and yet %d bytes were written", n)
	}
	spare := 0
	if config != nil {
		spare = 1 // what each in turn encrypts into
	}
	on(t, l, func() {
		if n := len(l.buffers.free); n != spare {
			t.Errorf("while all wait the loop keeps %d buffers: every other is held", n)
		}
	})
	for i, peer := range peers {
		all, err := io.ReadAll(peer)
		if at := differs(all, uint64(i), 0); err != nil || len(all) != size || at >= 0 {
			t.Errorf("reader %d got %d bytes, first wrong one at %d: %v", i, len(all), at, err)
		}
		receive(t, done[i], "the writer's end")
	}
	on(t, l, func() {
		if n := len(l.buffers.free); n != readers+spare {
			t.Errorf("the loop keeps %d buffers, %d were in use at once", n, readers+spare)
		}
	})
}

// A peer that has closed its sending side still gets its answer.
func TestHalfCloseByThePeer(t *testing.T) {
	l, _ := start(t, Options{})
	at := accepting(t, l, serve(func(c *Conn) {
		all, err := io.ReadAll(c)
		if err != nil || !c.Ended() {
			t.Errorf("reading up to the end: %v, ended %t", err, c.Ended())
		}
		if _, err := c.Write(all); err != nil {
			t.Errorf("writing after the end: %v", err)
		}
	}))
	peer := dialed(t, at)
	out := make([]byte, 300_000)
	pattern(out, 1, 0)
	_, err := peer.Write(out)
	check(t, err)
	check(t, peer.CloseWrite())
	in, err := io.ReadAll(peer)
	if err != nil || len(in) != len(out) || differs(in, 1, 0) >= 0 {
		t.Errorf("got %d bytes: %v", len(in), err)
	}
}

// A task that has closed its sending side reads on.
func TestHalfCloseByTheTask(t *testing.T) {
	l, _ := start(t, Options{})
	c, peer := used(t, l)
	done := spawn(l, func() {
		defer c.Close()
		c.CloseWrite()
		all, err := io.ReadAll(c)
		if err != nil || len(all) != 300_000 || differs(all, 2, 0) >= 0 {
			t.Errorf("got %d bytes: %v", len(all), err)
		}
	})
	if n, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer read %d bytes: %v", n, err)
	}
	out := make([]byte, 300_000)
	pattern(out, 2, 0)
	_, err := peer.Write(out)
	check(t, err)
	check(t, peer.CloseWrite())
	receive(t, done, "the task's end")
}

// Data and FIN come in one edge: all bytes are read, then the end, whatever the size of the reads. A short read, which
// otherwise proves that nothing is left, must not hide the end.
func TestEndMergedWithData(t *testing.T) {
	for _, size := range []int{0, 1, 999, 1000, 1001, 2000, 70_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l, _ := start(t, Options{})
			var got []byte
			over := make(chan error, 1)
			c, peer := served(t, l, serve(func(c *Conn) {
				p := make([]byte, 1000)
				for {
					n, err := c.Read(p)
					if got = append(got, p[:n]...); err != nil {
						over <- err
						return
					}
				}
			}))
			on(t, l, func() { // the loop sees nothing until both are there
				out := make([]byte, size)
				pattern(out, 3, 0)
				_, err := peer.Write(out)
				check(t, err)
				check(t, peer.CloseWrite())
				check(t, awaitEvents(c.fd, unix.POLLIN|unix.POLLRDHUP))
			})
			if err := receive(t, over, "the end"); err != io.EOF || len(got) != size || differs(got, 3, 0) >= 0 {
				t.Errorf("got %d of %d bytes, then %v", len(got), size, err)
			}
		})
	}
}

// The end comes after the loop has been told of the data and before these are read: it makes an edge of its own.
func TestEndBetweenEventAndRead(t *testing.T) {
	l, _ := start(t, Options{})
	over := make(chan error, 1)
	var peer *net.TCPConn
	c, p := served(t, l, serve(func(c *Conn) {
		check(t, peer.CloseWrite())
		check(t, awaitEvents(c.fd, unix.POLLRDHUP))
		buf := make([]byte, 100)
		if n, err := c.Read(buf); n != 5 || err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
		_, err := c.Read(buf)
		over <- err
	}))
	on(t, l, func() { peer = p })
	_, err := peer.Write([]byte("hello"))
	check(t, err)
	if err := receive(t, over, "the end"); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	eventually(t, l, "the connection is closed", c.Closed)
}

// A reset ends the waits of the reader and of the writer.
func TestReset(t *testing.T) {
	for _, side := range []string{"reader", "writer"} {
		t.Run(side, func(t *testing.T) {
			l, _ := start(t, Options{})
			c, peer := used(t, l)
			over := make(chan error, 1)
			spawn(l, func() {
				var err error
				for p := make([]byte, BufferBytes); err == nil; {
					if side == "reader" {
						_, err = c.Read(p)
					} else {
						_, err = c.Write(p)
					}
				}
				over <- err
			})
			eventually(t, l, "the task waits", func() bool { return c.reader != nil || c.writer != nil })
			check(t, peer.SetLinger(0))
			check(t, peer.Close())
			if err := receive(t, over, "the error"); err != ErrReset {
				t.Errorf("the %s got: %v", side, err)
			}
			on(t, l, c.Close)
		})
	}
}

// An abort that a write is told of is no end for who reads, nor for who splices, after what came before it.
func TestResetAfterAWrite(t *testing.T) {
	for _, splices := range []bool{false, true} {
		l, _ := start(t, Options{})
		c, peer := used(t, l)
		sink, from := used(t, l)
		_, err := io.WriteString(peer, "abc")
		check(t, err)
		check(t, peer.SetLinger(0))
		check(t, peer.Close())
		eventually(t, l, "the abort has come", func() bool { return c.broken })
		task(t, l, func() {
			if _, err := c.Write([]byte("x")); err != ErrReset {
				t.Errorf("the writer got: %v", err)
			}
			if splices {
				moved, _, err := l.Splice(sink, c, BufferBytes, new(int64))
				if moved != 3 || err != ErrReset {
					t.Errorf("%d bytes were spliced: %v", moved, err)
				}
				return
			}
			p := make([]byte, BufferBytes)
			n, err := c.Read(p)
			_, last := c.Read(p)
			if string(p[:n]) != "abc" || err != nil || last != ErrReset {
				t.Errorf("the reader got %q, %v, and then: %v", p[:n], err, last)
			}
		})
		on(t, l, func() {
			c.Close()
			sink.Close()
		})
		_ = from.Close()
	}
}

// Reset makes Close send RST.
func TestCloseAfterReset(t *testing.T) {
	l, _ := start(t, Options{})
	c, peer := used(t, l)
	on(t, l, func() {
		c.Reset()
		c.Close()
	})
	if _, err := peer.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("the peer got: %v", err)
	}
}

// One event of a batch closes a connection of which the same batch holds another event, and a new connection gets its
// descriptor: the stale event is not taken for one of the new connection.
func TestStaleEventAfterReuseOfDescriptor(t *testing.T) {
	l, _ := start(t, Options{})
	fds := make([]int32, 2)
	conns := make([]*Conn, 2)
	peers := make([]*net.TCPConn, 2)
	var next *Conn
	var far int // the other end of next
	for i := range conns {
		conns[i], peers[i] = served(t, l, serve(func(c *Conn) {
			other := conns[1-i] // whose event comes later
			if other.Closed() {
				t.Error("the stale event was served")
				return
			}
			other.Close()
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			check(t, err)
			mine, theirs := pair[0], pair[1]
			if theirs == int(fds[1-i]) {
				mine, theirs = theirs, mine
			}
			if mine != int(fds[1-i]) { // something else took the lowest
				check(t, unix.Dup3(mine, int(fds[1-i]), unix.O_CLOEXEC))
				_ = unix.Close(mine)
			}
			if next, err = l.Adopt(int(fds[1-i]), serve(func(*Conn) { t.Error("the new connection was served") })); err != nil {
				t.Error(err)
				return
			}
			next.Idle(0)
			far = theirs
		}))
		fds[i] = conns[i].fd
	}
	on(t, l, func() {
		for i, peer := range peers {
			_, err := peer.Write([]byte("x"))
			check(t, err)
			check(t, awaitEvents(fds[i], unix.POLLIN))
		}
	})
	eventually(t, l, "one closes the other", func() bool { return next != nil })
	on(t, l, func() {}) // a whole turn later
	on(t, l, func() {
		if next.Readable() || next.Ended() || next.Closed() {
			t.Errorf("the new connection got an event of the old: readable %t, ended %t, closed %t", next.Readable(), next.Ended(), next.Closed())
		}
		next.Close()
		_ = unix.Close(far)
	})
}

// Close ends the waits of both the reader and the writer, which are other tasks.
func TestCloseWakesWhoWaits(t *testing.T) {
	l, _ := start(t, Options{})
	c, _ := used(t, l)
	over := make(chan error, 2)
	spawn(l, func() {
		_, err := c.Read(make([]byte, 1))
		over <- err
	})
	spawn(l, func() {
		var err error
		for p := make([]byte, BufferBytes); err == nil; {
			_, err = c.Write(p)
		}
		over <- err
	})
	eventually(t, l, "both wait", func() bool { return c.reader != nil && c.writer != nil })
	on(t, l, c.Close)
	for range 2 {
		if err := receive(t, over, "the end of a wait"); err != ErrClosed {
			t.Errorf("the wait ended with: %v", err)
		}
	}
	on(t, l, c.Close) // again
}

// After Close nothing touches the descriptor, which may be somebody else's by then.
func TestClosedConnTouchesNothing(t *testing.T) {
	l, _ := start(t, Options{})
	c, _ := used(t, l)
	other, _ := used(t, l)
	src, dst := unixPair(t)
	defer func() { _ = unix.Close(dst) }()
	task(t, l, func() {
		eventuallyInTask(l, func() bool { return c.writable })
		fd := int(c.fd)
		c.readable = true
		c.Close()
		check(t, unix.Dup3(src, fd, unix.O_CLOEXEC)) // the number goes to a socket with something to read
		_ = unix.Close(src)
		defer func() { _ = unix.Close(fd) }()
		_, err := unix.Write(dst, []byte("somebody else's"))
		check(t, err)
		p := make([]byte, 10)
		if n, err := c.Read(p); n != 0 || err != ErrClosed {
			t.Errorf("Read: %d, %v", n, err)
		}
		if n, err := c.ReadNow(p); n != 0 || err != ErrClosed {
			t.Errorf("ReadNow: %d, %v", n, err)
		}
		if n, err := c.Write(p); n != 0 || err != ErrClosed {
			t.Errorf("Write: %d, %v", n, err)
		}
		if n, _, err := l.Splice(other, c, 10, new(int64)); n != 0 || err != ErrClosed {
			t.Errorf("Splice from: %d, %v", n, err)
		}
		c.CloseWrite()
		c.Reset()
		c.Idle(0)
		if c.Local().IsValid() || c.Peer().IsValid() {
			t.Error("it has addresses")
		}
		if n, err := unix.Read(fd, p); n != len(p) || string(p) != "somebody e" {
			t.Errorf("the other socket: %q, %v", p[:max(n, 0)], err)
		}
		if linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || linger != 0 {
			t.Errorf("the other socket's linger: %d, %v", linger, err)
		}
	})
}

// Every kind of time limit ends a wait with ErrTimeout, never early, and soon.
func TestTimeouts(t *testing.T) {
	const limit = 30 * time.Millisecond
	fill := func(c *Conn) (err error) {
		for p := make([]byte, BufferBytes); err == nil; {
			_, err = c.Write(p)
		}
		return err
	}
	f := func(name string, set func(c *Conn), wait func(c *Conn) error) {
		t.Run(name, func(t *testing.T) {
			l, _ := start(t, Options{})
			c, _ := used(t, l)
			task(t, l, func() {
				set(c)
				begun := l.Clock()
				err := wait(c)
				if took := time.Duration(l.Clock() - begun); err != ErrTimeout || took < limit-time.Millisecond || took > patience {
					t.Errorf("%v after %v", err, took)
				}
				c.Close()
			})
		})
	}
	deadline := func(c *Conn) { c.Deadline = c.Loop().Clock() + int64(limit) }
	f("read", func(c *Conn) { c.ReadTimeout = int64(limit) }, (*Conn).WaitRead)
	f("write", func(c *Conn) { c.WriteTimeout = int64(limit) }, fill)
	f("deadline of a read", deadline, (*Conn).WaitRead)
	f("deadline of a write", deadline, fill)
	f("deadline before the timeout", func(c *Conn) { deadline(c); c.ReadTimeout = int64(time.Hour) }, (*Conn).WaitRead)
	f("timeout before the deadline", func(c *Conn) {
		c.ReadTimeout, c.Deadline = int64(limit), c.Loop().Now()+int64(time.Hour)
	}, (*Conn).WaitRead)
}

// A read into nothing finds no end.
func TestEmptyRead(t *testing.T) {
	l, _ := start(t, Options{})
	c, peer := used(t, l)
	_, err := peer.Write([]byte("x"))
	check(t, err)
	task(t, l, func() {
		if n, err := c.Read(nil); n != 0 || err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
		if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("then read %d bytes: %v", n, err)
		}
		c.Close()
	})
}

// Two tasks that read one connection are a mistake that is named, not a task that nobody wakes.
func TestTwoReaders(t *testing.T) {
	l, log := start(t, Options{})
	c, _ := used(t, l)
	first := spawn(l, func() { _ = c.WaitRead() })
	eventually(t, l, "the first waits", func() bool { return c.reader != nil })
	task(t, l, func() { _ = c.WaitRead() })
	eventually(t, l, "the mistake is logged", func() bool { return len(log.with("BUG: two tasks read a connection")) == 1 })
	on(t, l, c.Close)
	receive(t, first, "the first's end")
}
