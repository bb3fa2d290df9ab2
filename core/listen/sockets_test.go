package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func bindTo(s string) Bind { return Bind{Addr: netip.MustParseAddrPort(s)} }

// option reads an integer option of a descriptor.
func option(t *testing.T, fd, level, name int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpenTCP(t *testing.T) {
	s, err := Open(bindTo("127.0.0.1:0"), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Addr().Port() == 0 || s.Shards() != 3 {
		t.Fatalf("address %s, %d shards", s.Addr(), s.Shards())
	}
	if want := s.Addr().String() + "#2"; s.Name(2) != want {
		t.Errorf("name %q, want %q", s.Name(2), want)
	}
	for i, fd := range s.fds {
		if port, err := portOf(fd); err != nil || port != s.Addr().Port() {
			t.Errorf("shard %d has port %d, %v", i, port, err)
		}
		for name, v := range map[string]int{
			"SO_REUSEPORT":  option(t, fd, unix.SOL_SOCKET, unix.SO_REUSEPORT),
			"SO_REUSEADDR":  option(t, fd, unix.SOL_SOCKET, unix.SO_REUSEADDR),
			"SO_ACCEPTCONN": option(t, fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN),
		} {
			if v != 1 {
				t.Errorf("shard %d: %s is %d", i, name, v)
			}
		}
		if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
			t.Errorf("shard %d blocks", i)
		}
		if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("shard %d survives exec", i)
		}
	}
}

// What is accepted has TCP_NODELAY without a call of its own.
func TestNoDelayIsInherited(t *testing.T) {
	s, err := Open(bindTo("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("tcp", s.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fd, _, err := unix.Accept(s.fds[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if option(t, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) == 0 {
		t.Fatal("TCP_NODELAY is off")
	}
}

func TestOpenIPv6(t *testing.T) {
	all, err := Open(bindTo("[::]:0"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	port := all.Addr().Port()
	reach := func(network string, addr string, want bool) {
		t.Helper()
		c, err := net.Dial(network, netip.AddrPortFrom(netip.MustParseAddr(addr), port).String())
		if (err == nil) != want {
			t.Errorf("%s reached: %v, want %v (%v)", addr, err == nil, want, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	reach("tcp4", "127.0.0.1", true)
	if all.Addr().Addr().Is4() {
		t.Skip("this host has no IPv6: the listener fell back to IPv4")
	}
	reach("tcp6", "::1", true)
	all.Close()

	one, err := Open(bindTo("[::1]:0"), 1)
	if err != nil {
		t.Skip("no IPv6 loopback: ", err)
	}
	defer one.Close()
	port = one.Addr().Port()
	if option(t, one.fds[0], unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 1 {
		t.Error("[::1] is not IPv6 only")
	}
	reach("tcp6", "::1", true)
	reach("tcp4", "127.0.0.1", false)
}

func TestOpenErrors(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	taken := other.Addr().String()
	ours, err := Open(bindTo("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	exclusive := ours.bind
	exclusive.Exclusive = true
	f := func(b Bind, shards int, cause error) {
		t.Helper()
		s, err := Open(b, shards)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", b)
			return
		}
		if !strings.HasPrefix(err.Error(), "cannot listen on "+b.String()+": ") || cause != nil && !errors.Is(err, cause) {
			t.Errorf("error %q", err)
		}
	}
	f(bindTo(taken), 2, unix.EADDRINUSE)
	f(exclusive, 2, unix.EADDRINUSE)
	f(bindTo("192.0.2.1:0"), 1, unix.EADDRNOTAVAIL)
	f(Bind{}, 1, nil)
	f(bindTo("127.0.0.1:0"), 0, nil)
	f(bindTo("127.0.0.1:0"), MaxShards+1, nil)
	f(Bind{Addr: netip.MustParseAddrPort("[fe80::1%nolink0]:0")}, 1, nil)
	f(Bind{Path: "/" + strings.Repeat("a", maxPathBytes)}, 1, nil)
	f(Bind{Path: "/nonexistent/s"}, 1, unix.ENOENT)

	// Another gateway that does not ask for the address alone shares it.
	s, err := Open(ours.bind, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestOpenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	open := func(mode os.FileMode) *Sockets {
		t.Helper()
		s, err := Open(Bind{Path: path, Mode: mode}, 2)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	modeOf := func() os.FileMode {
		f, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return f.Mode().Perm()
	}
	s := open(0)
	if modeOf() != 0o666 {
		t.Errorf("mode %o, want 666", modeOf())
	}
	if s.Name(1) != "unix:"+path+"#1" {
		t.Errorf("name %q", s.Name(1))
	}
	if _, err := Open(Bind{Path: path}, 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second one on the same path: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error("the refused second one broke the first: ", err)
	} else {
		_ = c.Close()
	}
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("Close left the file")
	}

	s = open(0o600)
	if modeOf() != 0o600 {
		t.Errorf("mode %o, want 600", modeOf())
	}
	for i := range s.fds { // as if the process had died
		_ = unix.Close(s.fds[i])
		s.fds[i] = -1
	}
	next := open(0)
	s.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the file of a successor was removed: ", err)
	}
	next.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Bind{Path: path}, 1); err == nil {
		s.Close()
		t.Error("a file that is no socket was taken for one")
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file in the way holds %q", b)
	}
}

func TestWithoutIPv6(t *testing.T) {
	for err, want := range map[error]bool{unix.EAFNOSUPPORT: true, unix.EADDRNOTAVAIL: true, unix.EADDRINUSE: false, unix.EACCES: false, nil: false} {
		if withoutIPv6(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
