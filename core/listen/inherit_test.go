package listen

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// copies gives what another process would inherit of s.
func copies(t *testing.T, s *Sockets, shards int) (fds []int) {
	t.Helper()
	for i := range shards {
		fd, err := unix.FcntlInt(uintptr(s.fds[i]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

func TestInherit(t *testing.T) {
	for _, c := range []struct{ before, after, want int }{{2, 2, 2}, {4, 2, 4}, {1, 3, 3}} {
		s, err := Open(bindTo("127.0.0.1:0"), c.before)
		if err != nil {
			t.Fatal(err)
		}
		b := bindTo("127.0.0.1:0")
		b.Deferred = true
		next, err := Inherit(b, c.after, copies(t, s, c.before))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if next.Addr() != s.Addr() || next.Shards() != c.want {
			t.Errorf("%d sockets for %d loops: %s, %d shards, want %s, %d", c.before, c.after, next.Addr(), next.Shards(), s.Addr(), c.want)
		}
		sum := 0
		for loop := range c.after {
			sum += next.ShardsOf(loop)
		}
		if sum != c.want {
			t.Errorf("the loops have %d of %d shards", sum, c.want)
		}
		for i, fd := range next.fds {
			if listens := option(t, fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) == 1; listens != (i < c.before) {
				t.Errorf("before Listen shard %d listens: %v", i, listens)
			}
		}
		if err := next.Listen(); err != nil {
			t.Fatal(err)
		}
		for i, fd := range next.fds {
			if option(t, fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) != 1 {
				t.Errorf("shard %d does not listen", i)
			}
		}
		next.Close()
	}
}

// A socket that is not what the address would have opened is refused, and closed.
func TestInheritRefuses(t *testing.T) {
	s, err := Open(bindTo("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path := filepath.Join(t.TempDir(), "s")
	u, err := Open(Bind{Path: path}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	deaf, err := bindTCP(netip.MustParseAddrPort("127.0.0.1:0"), true)
	if err != nil {
		t.Fatal(err)
	}
	other := netip.AddrPortFrom(s.Addr().Addr(), s.Addr().Port()^1)
	for _, c := range []struct {
		name string
		bind Bind
		fds  []int
		want string
	}{
		{"another port number", Bind{Addr: other}, copies(t, s, 1), "it is bound to"},
		{"another address", bindTo("127.0.0.2:0"), copies(t, s, 1), "it is bound to"},
		{"another family", bindTo("[::1]:0"), copies(t, s, 1), "address family"},
		{"a unix socket", bindTo("127.0.0.1:0"), copies(t, u, 1), "address family"},
		{"another path", Bind{Path: path + "x"}, copies(t, u, 1), "it is bound to"},
		{"two unix sockets", Bind{Path: path}, append(copies(t, u, 1), copies(t, u, 1)...), "want one"},
		{"one that does not listen", bindTo("127.0.0.1:0"), []int{deaf}, "it does not listen"},
		{"none", bindTo("127.0.0.1:0"), nil, "0 sockets"},
	} {
		if got, err := Inherit(c.bind, 1, c.fds); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", c.name, got, err, c.want)
		}
		for _, fd := range c.fds {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
				t.Errorf("%s: descriptor %d is open", c.name, fd)
			}
		}
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error("the file of the other process's socket is gone:", err)
	}
}

// The file of an inherited unix socket is not removed by whoever does not own it, and by whoever does.
func TestInheritUnixFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := Open(Bind{Path: path}, 2)
	if err != nil {
		t.Fatal(err)
	}
	failed, err := Inherit(Bind{Path: path}, 3, copies(t, old, 1))
	if err != nil {
		t.Fatal(err)
	}
	failed.Close() // a new process that gives up
	next, err := Inherit(Bind{Path: path}, 3, copies(t, old, 1))
	if err != nil {
		t.Fatal(err)
	}
	if next.Shards() != 3 {
		t.Errorf("%d shards", next.Shards())
	}
	if err := next.Own(); err != nil {
		t.Fatal(err)
	}
	old.Disown()
	old.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("the socket cannot be found:", err)
	}
	_ = c.Close()
	next.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is left")
	}
}

// The queues of more sockets than there are loops are all served, those that had waiting connections before too.
func TestInheritSurplus(t *testing.T) {
	s, err := Open(bindTo("127.0.0.1:0"), 5)
	if err != nil {
		t.Fatal(err)
	}
	waiting := clientsOf(t, s, 64)
	h := newHost(t, 2, settings(nil))
	next, err := Inherit(bindTo("127.0.0.1:0"), 2, copies(t, s, 5))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	t.Cleanup(next.Close)
	for i := range h.ports {
		h.do(i, func(p *Port) {
			if err := p.Listen(next); err != nil {
				t.Error(err)
			}
			if p.Accepting(next) != next.ShardsOf(i) {
				t.Errorf("loop %d accepts from %d sockets, want %d", i, p.Accepting(next), next.ShardsOf(i))
			}
		})
	}
	for i, c := range waiting {
		if err := said(c, "hello"); err != nil {
			t.Fatalf("client %d, who waited in a queue: %v", i, err)
		}
	}
	for i := range h.ports {
		h.do(i, func(p *Port) { p.Leave(next) })
		h.do(i, func(p *Port) {
			if p.Accepting(next) != 0 {
				t.Errorf("loop %d still accepts from %d sockets", i, p.Accepting(next))
			}
		})
	}
}

func clientsOf(t *testing.T, s *Sockets, n int) (all []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", s.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// A port that hands over leaves the queue to the other process, and its idle connections open for a while.
func TestHandOver(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	idle := clientsOf(t, s, 1)[0]
	if err := said(idle, "before"); err != nil {
		t.Fatal(err)
	}
	other := -1
	h.do(0, func(p *Port) {
		if err := p.Copy(func(of *Sockets, shard, fd int) {
			if of != s || shard != 0 {
				t.Errorf("shard %d of %s", shard, of)
			}
			other = fd
		}); err != nil {
			t.Error(err)
		}
	})
	inherited, err := Inherit(bindTo("127.0.0.1:0"), 1, []int{other})
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	late := make(chan net.Conn, 1)
	h.do(0, func(p *Port) { // no connection is accepted meanwhile
		late <- clientsOf(t, s, 1)[0]
		p.HandOver(300*time.Millisecond, map[*Sockets]bool{s: true})
	})
	if c, _ := h.counters(); c.Accepted != 1 {
		t.Errorf("%d connections were accepted, want 1: the queue is another's", c.Accepted)
	}
	fd, _, err := unix.Accept(inherited.fds[0])
	if err != nil {
		t.Fatal("the other process finds nothing in the queue:", err)
	}
	_ = unix.Close(fd)
	_ = (<-late).Close()
	if err := said(idle, "meanwhile"); err != nil {
		t.Error("an idle connection was closed before its time:", err)
	}
	if err := heard(idle, "x"); err == nil {
		t.Error("an idle connection is never closed")
	}
}
