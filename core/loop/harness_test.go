package loop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 10 * time.Second

// serve is a Handler of one function.
type serve func(c *Conn)

func (f serve) Serve(c *Conn)  { f(c) }
func (f serve) String() string { return "test handler" }

// journal is a log that tests can read.
type journal struct {
	mu      sync.Mutex
	records []string
}

func (j *journal) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler               { return j }
func (j *journal) WithGroup(string) slog.Handler                    { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, line)
	return nil
}

// with gives the records that hold text.
func (j *journal) with(text string) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.records {
		if strings.Contains(r, text) {
			found = append(found, r)
		}
	}
	return found
}

// start gives a running loop that ends with the test, and its log.
func start(t testing.TB, o Options) (*Loop, *journal) {
	t.Helper()
	j := &journal{}
	if o.Log == nil {
		o.Log = slog.New(j)
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(func() { stop(t, l) })
	return l, j
}

func stop(t testing.TB, l *Loop) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- l.Stop() }()
	if err := receive(t, done, "the end of the loop"); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// on runs f on the loop, outside of any task.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	if err := l.Do(patience, f); err != nil {
		t.Fatalf("cannot run on the loop: %v", err)
	}
}

// task runs f as a task of the loop and waits for its end.
func task(t testing.TB, l *Loop, f func()) {
	t.Helper()
	receive(t, spawn(l, f), "the end of a task")
}

// spawn runs f as a task of the loop; the channel is closed at its end.
func spawn(l *Loop, f func()) chan struct{} {
	done := make(chan struct{})
	l.Post(func() {
		l.Go(func() {
			defer close(done)
			f()
		})
	})
	return done
}

func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s\n%s", what, stacks())
		panic("unreachable")
	}
}

// eventually waits until f, which runs on the loop, says true.
func eventually(t testing.TB, l *Loop, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ok := false
		on(t, l, func() { ok = f() })
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never came to pass: %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// listenTCP makes a listening socket on loopback, non-blocking.
func listenTCP(t testing.TB) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(t, unix.Listen(fd, 4096))
	sa, err := unix.Getsockname(fd)
	check(t, err)
	return fd, addrOf(sa, nil)
}

// accepting makes the loop serve what connects to the address that it gives.
func accepting(t testing.TB, l *Loop, h Handler) netip.AddrPort {
	t.Helper()
	fd, at := listenTCP(t)
	on(t, l, func() {
		_, err := l.Accept(fd, false, func(fd int, _ netip.AddrPort) {
			if c, err := l.Adopt(fd, h); err == nil {
				c.Idle(0)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	return at
}

// dialed connects an ordinary socket.
func dialed(t testing.TB, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	check(t, err)
	check(t, c.SetDeadline(time.Now().Add(3*patience)))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tcpPair gives a TCP connection: one end as a descriptor for a loop, the other as an ordinary socket.
func tcpPair(t testing.TB) (int, *net.TCPConn) {
	t.Helper()
	ln, at := listenTCP(t)
	defer func() { _ = unix.Close(ln) }()
	peer := dialed(t, at)
	check(t, unix.SetNonblock(ln, false))
	fd, _, err := unix.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	check(t, err)
	return fd, peer
}

// served gives a TCP connection that h serves when something comes, and its peer.
func served(t testing.TB, l *Loop, h Handler) (*Conn, *net.TCPConn) {
	t.Helper()
	fd, peer := tcpPair(t)
	var c *Conn
	on(t, l, func() {
		var err error
		if c, err = l.Adopt(fd, h); err != nil {
			t.Error(err)
			return
		}
		c.Idle(0)
	})
	return c, peer
}

// used gives a TCP connection for the tasks of a test, and its peer.
func used(t testing.TB, l *Loop) (*Conn, *net.TCPConn) {
	t.Helper()
	c, peer := served(t, l, serve(func(c *Conn) {}))
	on(t, l, c.Use)
	return c, peer
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pattern fills p with the bytes of a stream of the given name from an offset on: any byte that is lost, doubled, moved
// or from another stream shows.
func pattern(p []byte, name uint64, offset int64) {
	at := uint64(offset)
	for len(p) > 0 {
		word := patternWord(name, at)
		n := copy(p, word[at%8:])
		p, at = p[n:], at+uint64(n)
	}
}

// patternWord is the eight bytes of the stream in which position at lies.
func patternWord(name, at uint64) (w [8]byte) {
	x := (at>>3 + name*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	binary.LittleEndian.PutUint64(w[:], x^x>>32)
	return w
}

// differs gives the position of the first word of p with a byte that is not the pattern's, -1 if all are right.
func differs(p []byte, name uint64, offset int64) int {
	at := uint64(offset)
	for done := 0; done < len(p); {
		word := patternWord(name, at)
		want := word[at%8:]
		want = want[:min(len(want), len(p)-done)]
		if string(p[done:done+len(want)]) != string(want) {
			return done
		}
		done, at = done+len(want), at+uint64(len(want))
	}
	return -1
}

// isChild says whether this process was started by child for the running test.
func isChild() bool { return os.Getenv(childVariable) != "" }

// unixPair gives two connected sockets, non-blocking.
func unixPair(t testing.TB) (int, int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	return p[0], p[1]
}

// eventuallyInTask lets the loop turn until f says true.
func eventuallyInTask(l *Loop, f func() bool) {
	for end := l.Clock() + int64(patience); !f() && l.Clock() < end; {
		l.Yield()
	}
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }
