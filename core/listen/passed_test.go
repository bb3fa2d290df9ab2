package listen

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// passed gives descriptors as another process would: blocking copies of the sockets that it keeps.
func passed(t *testing.T, of *Sockets) (fds []int) {
	t.Helper()
	for _, fd := range of.Descriptors() {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, copied)
	}
	return fds
}

func opened(t *testing.T, b Bind, shards int) *Sockets {
	t.Helper()
	s, err := Open(b, shards)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// alone gives a listening socket without SO_REUSEPORT, as a socket unit has it.
func alone(t *testing.T) int {
	t.Helper()
	fd, err := bindTCP(bindTo("127.0.0.1:0").Addr, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	return fd
}

// adopt makes a port on each loop accept from passed sockets.
func (h *host) adopt(b Bind, fds []int) *Sockets {
	h.t.Helper()
	s, err := Adopt(b, fds, len(h.loops))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.Close)
	for i := range h.ports {
		h.do(i, func(p *Port) {
			if err := p.Listen(s); err != nil {
				h.t.Error(err)
			}
		})
	}
	return s
}

// Whatever the number of passed sockets, each has a loop that accepts from it, and each loop has one.
func TestAdoptAnyNumber(t *testing.T) {
	const loops = 3
	f := func(shards int) {
		t.Helper()
		h := newHost(t, loops, settings(nil))
		predecessor := opened(t, bindTo("127.0.0.1:0"), shards)
		s := h.adopt(bindTo("127.0.0.1:1"), passed(t, predecessor)) // another port: the socket's own counts
		if s.String() != predecessor.String() {
			t.Errorf("%d sockets: address %s, want %s", shards, s, predecessor)
		}
		predecessor.Close()
		for i := range 50 {
			if err := said(dial(t, s), fmt.Sprint("connection ", i)); err != nil {
				t.Fatalf("%d sockets: connection %d: %v", shards, i, err)
			}
		}
		_, each := h.counters()
		for i := range each {
			if each[i].Accepted == 0 {
				t.Errorf("%d sockets: loop %d has accepted nothing", shards, i)
			}
		}
		h.do(0, func(p *Port) {
			if p.Leave(s); p.Progress().Sockets != 0 {
				t.Errorf("%d sockets: %d are left", shards, p.Progress().Sockets)
			}
		})
	}
	f(1)
	f(3)
	f(5) // two more than loops
}

// Connections that wait in the queues of more sockets than there are loops are served.
func TestAdoptKeepsWhatIsQueued(t *testing.T) {
	predecessor := opened(t, bindTo("127.0.0.1:0"), 8)
	var waiting []net.Conn
	for range 40 {
		waiting = append(waiting, dial(t, predecessor))
	}
	fds := passed(t, predecessor)
	predecessor.Close()
	h := newHost(t, 2, settings(nil))
	h.adopt(bindTo("127.0.0.1:0"), fds)
	for i, c := range waiting {
		if err := said(c, "hello"); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
}

// Of a socket that no other may stand beside, each loop gets a copy.
func TestAdoptCopies(t *testing.T) {
	h := newHost(t, 3, settings(nil))
	s := h.adopt(bindTo("127.0.0.1:1"), []int{alone(t)})
	if !s.shared() {
		t.Error("copies wake all loops for each connection")
	}
	for i := range h.ports {
		h.do(i, func(p *Port) {
			if n := p.Progress().Sockets; n != 1 {
				t.Errorf("loop %d has %d sockets", i, n)
			}
		})
	}
	c := dial(t, s)
	if err := said(c, "hello"); err != nil {
		t.Fatal(err)
	}
}

// The file of a unix socket is its opener's.
func TestAdoptUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fds := passed(t, opened(t, Bind{Path: path}, 1))
	h := newHost(t, 2, settings(nil))
	s := h.adopt(Bind{Path: "/elsewhere"}, fds)
	if s.String() != "unix:"+path {
		t.Errorf("address %s", s)
	}
	if err := said(dial(t, s), "hello"); err != nil {
		t.Fatal(err)
	}
	for i := range h.ports {
		h.do(i, func(p *Port) { p.Leave(s) })
	}
	s.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	f := func(what, want string, loops int, fds ...int) {
		t.Helper()
		_, err := Adopt(bindTo("127.0.0.1:80"), fds, loops)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		for _, fd := range fds {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
				t.Errorf("%s: descriptor %d is left open", what, fd)
			}
		}
	}
	silent, err := bindTCP(bindTo("127.0.0.1:0").Addr, false)
	if err != nil {
		t.Fatal(err)
	}
	f("no socket", "none was passed", 1)
	f("no loop", "0 loops", 0, alone(t))
	f("a socket that does not listen", "it does not listen", 1, silent)
	f("two addresses", "another to", 2, alone(t), alone(t))
}

// The kernel tells how many connections wait, so that a port that has forgotten its socket can be found.
func TestProgress(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	s := opened(t, bindTo("127.0.0.1:0"), 1)
	dial(t, s)
	dial(t, s)
	h.do(0, func(p *Port) {
		if err := p.Listen(s); err != nil {
			t.Fatal(err)
		}
		if g := p.Progress(); g != (Progress{Sockets: 1, Queued: 2}) {
			t.Errorf("before the loop's turn: %+v", g)
		}
	})
	h.await("both are accepted", func(c Counters) bool { return c.Accepted == 2 })
	h.do(0, func(p *Port) {
		if g := p.Progress(); g != (Progress{Sockets: 1, Handled: 2}) {
			t.Errorf("after it: %+v", g)
		}
	})
}

// A process that is to take over gets no copies of copies, and what it opens beside is deaf until it serves.
func TestAdoptInTurn(t *testing.T) {
	for _, c := range []struct {
		name      string
		fds       []int
		own, deaf int // of three shards
	}{
		{"with SO_REUSEPORT", passed(t, opened(t, bindTo("127.0.0.1:0"), 1)), 3, 2},
		{"without it", []int{alone(t)}, 1, 0},
	} {
		b := bindTo("127.0.0.1:0")
		b.Deferred = true
		s, err := Adopt(b, c.fds, 3)
		if err != nil {
			t.Fatal(err)
		}
		own, deaf := 0, 0
		for shard, fd := range s.fds {
			if !s.copied(shard) {
				own++
			}
			if option(t, fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) == 0 {
				deaf++
			}
		}
		if own != c.own || deaf != c.deaf {
			t.Errorf("%s: %d shards of their own, %d deaf, want %d and %d", c.name, own, deaf, c.own, c.deaf)
		}
		if err := s.Listen(); err != nil {
			t.Error(err)
		}
		for shard, fd := range s.fds {
			if option(t, fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) == 0 {
				t.Errorf("%s: shard %d does not listen", c.name, shard)
			}
		}
		s.Close()
	}
}
