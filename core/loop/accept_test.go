package loop

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child runs the running test alone in a process of its own, where isChild is true.
func child(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the child process: %v\n%s", err, out)
	} else {
		t.Logf("the child process:\n%s", out)
	}
}

// Without a descriptor left, the loop does not spin on its listening socket: it rests, counts, and accepts again when
// there is one.
func TestAcceptWithoutDescriptors(t *testing.T) {
	if !isChild() {
		child(t)
		return
	}
	l, log := start(t, Options{})
	fd, at := listenTCP(t)
	accepted := make(chan int, 10)
	var a *Acceptor
	on(t, l, func() {
		var err error
		a, err = l.Accept(fd, false, func(fd int, _ netip.AddrPort) {
			closeFD(fd)
			accepted <- fd
		})
		check(t, err)
	})
	peer, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	few := limit
	few.Cur = uint64(peer) + 5
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	var taken []int // the gaps below the limit
	for {
		fd, err := unix.Dup(peer)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	check(t, unix.Connect(peer, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}))
	eventually(t, l, "accepts fail", func() bool { return a.Failures >= 2 })
	failures, begun := a.Failures, time.Now()
	eventually(t, l, "one more fails", func() bool { return a.Failures > failures })
	on(t, l, func() {
		if most := int(time.Since(begun)/acceptPause) + 2; a.Failures-failures > most {
			t.Errorf("%d accepts failed in %v", a.Failures-failures, time.Since(begun))
		}
	})
	if told := log.with("cannot accept: clients wait; raise LimitNOFILE="); len(told) != 1 || !strings.Contains(told[0], "too many open files") {
		t.Errorf("the log was told %q", told)
	}
	for _, fd := range taken {
		_ = unix.Close(fd)
	}
	receive(t, accepted, "the connection")
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	_ = unix.Close(peer)
	_ = dialed(t, at)
	receive(t, accepted, "the next connection")
}

// Two loops share a listening socket: all connections are accepted, each once, and when one loop closes its copy it is
// neither woken any more nor does it take the others' wake-ups.
func TestSharedListeningSocket(t *testing.T) {
	const clients = 200
	fd, at := listenTCP(t)
	two, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	type taken struct{ by, port int }
	accepted := make(chan taken, 4*clients)
	loops, acceptors := make([]*Loop, 2), make([]*Acceptor, 2)
	for i, fd := range []int{fd, two} {
		l, _ := start(t, Options{Index: i})
		loops[i] = l
		on(t, l, func() {
			acceptors[i], err = l.Accept(fd, true, func(fd int, peer netip.AddrPort) {
				closeFD(fd)
				accepted <- taken{i, int(peer.Port())}
			})
			check(t, err)
		})
	}
	by := make([]int, 2)
	round := func() {
		ports := map[int]bool{}
		for range clients {
			ports[dialed(t, at).LocalAddr().(*net.TCPAddr).Port] = true
		}
		for range clients {
			c := receive(t, accepted, "a connection")
			by[c.by]++
			if !ports[c.port] {
				t.Errorf("port %d was accepted twice, or is nobody's", c.port)
			}
			delete(ports, c.port)
		}
	}
	round()
	t.Logf("the loops accepted %v", by)
	on(t, loops[0], acceptors[0].Close)
	before := by[0]
	round()
	if by[0] != before {
		t.Errorf("%d connections were accepted after Close", by[0]-before)
	}
	// A copy that is closed but still watched would wake its loop again and again while the other does not accept.
	on(t, loops[1], func() {
		acceptors[1].pause()
		_ = dialed(t, at)
		for range 50 {
			on(t, loops[0], func() {
				if loops[0].count > 1 { // the one that brought this function
					t.Errorf("the loop that has closed its copy gets %d events", loops[0].count)
				}
			})
		}
	})
	receive(t, accepted, "the last connection")
}

// Drain takes what is in the queue, Close refuses what comes later.
func TestDrainAndClose(t *testing.T) {
	l, _ := start(t, Options{})
	fd, at := listenTCP(t)
	n := 0
	on(t, l, func() {
		a, err := l.Accept(fd, false, func(fd int, _ netip.AddrPort) {
			closeFD(fd)
			n++
		})
		check(t, err)
		for range 10 {
			_ = dialed(t, at)
		}
		a.Drain()
		a.Close()
		a.Close()
		a.Drain()
	})
	if n != 10 {
		t.Errorf("%d of 10 were accepted", n)
	}
	if _, err := net.Dial("tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after Close: %v", err)
	}
}

// Unix sockets work like TCP, but have no addresses.
func TestUnixSockets(t *testing.T) {
	l, _ := start(t, Options{})
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	check(t, unix.Listen(fd, 16))
	on(t, l, func() {
		_, err := l.Accept(fd, false, func(fd int, peer netip.AddrPort) {
			if peer.IsValid() {
				t.Errorf("the peer has the address %v", peer)
			}
			c, err := l.Adopt(fd, serve(echo))
			check(t, err)
			c.Idle(0)
		})
		check(t, err)
	})
	task(t, l, func() {
		to := Address{Path: path}
		c, err := l.Dial(to, serve(echo), 0)
		if err != nil {
			t.Errorf("cannot dial %s: %v", to, err)
			return
		}
		defer c.Close()
		if c.Local().IsValid() || c.Peer().IsValid() {
			t.Errorf("addresses %v, %v", c.Local(), c.Peer())
		}
		out, in := make([]byte, 1000), make([]byte, 1000)
		pattern(out, 1, 0)
		_, err = c.Write(out)
		check(t, err)
		for n := 0; n < len(in); {
			k, err := c.Read(in[n:])
			if n += k; err != nil {
				t.Errorf("cannot read: %v", err)
				return
			}
		}
		if differs(in, 1, 0) >= 0 {
			t.Error("the echo is wrong")
		}
	})
}

// A refused connection, a missing socket and one that nobody accepts end Dial with an error that says where to.
func TestDialErrors(t *testing.T) {
	l, _ := start(t, Options{})
	closed, at := listenTCP(t)
	closeFD(closed)
	full := filepath.Join(t.TempDir(), "full")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer closeFD(fd)
	check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: full}))
	check(t, unix.Listen(fd, 0))
	task(t, l, func() {
		f := func(to Address, want error) {
			t.Helper()
			h := &told{}
			var err error
			for range 3 { // a backlog of nothing holds one or two
				var c *Conn
				if c, err = l.Dial(to, h, l.Now()+int64(100*time.Millisecond)); err == nil {
					defer c.Close()
				}
			}
			if !errors.Is(err, want) {
				t.Errorf("dialling %s gave %v, want %v", to, err, want)
			}
		}
		f(Address{AddrPort: at}, syscall.ECONNREFUSED)
		f(Address{Path: filepath.Join(t.TempDir(), "none")}, syscall.ENOENT)
		f(Address{Path: full}, syscall.EAGAIN)
		f(Address{AddrPort: silent(t)}, ErrTimeout)
	})
}

// silent gives an address that does not answer: its queue is full.
func silent(t *testing.T) netip.AddrPort {
	fd, at := listenTCP(t)
	t.Cleanup(func() { closeFD(fd) })
	check(t, unix.Listen(fd, 0))
	for range 4 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		t.Cleanup(func() { closeFD(c) })
		if err := unix.Connect(c, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != unix.EINPROGRESS {
			check(t, err)
		}
	}
	return at
}
