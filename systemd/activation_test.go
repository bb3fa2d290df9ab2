package systemd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// parked is where tests put descriptors that are passed: beyond those that anybody else opens.
const parked = 700

// pass puts copies of descriptors where systemd would.
func pass(t *testing.T, fds ...int) {
	t.Helper()
	for i, fd := range fds {
		to := parked + i
		if err := unix.Dup3(fd, to, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(to) })
	}
}

// stream gives a socket, listening if backlog is not 0.
func stream(t *testing.T, family, kind int, sa unix.Sockaddr, backlog int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if backlog > 0 {
		if err := unix.Listen(fd, backlog); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func TestSockets(t *testing.T) {
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	path := filepath.Join(t.TempDir(), "s")
	tcp := stream(t, unix.AF_INET, unix.SOCK_STREAM, loopback, 8)
	pass(t, tcp,
		stream(t, unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: path}, 8),
		stream(t, unix.AF_INET, unix.SOCK_STREAM, loopback, 0), // does not listen
		stream(t, unix.AF_INET, unix.SOCK_DGRAM, loopback, 0),
		stream(t, unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: fmt.Sprintf("@sluice-%d", os.Getpid())}, 8),
		int(os.Stderr.Fd())) // no socket at all
	v := variables{"LISTEN_PID": "42", "LISTEN_FDS": "6", "LISTEN_FDNAMES": "http:%5B%3A%3A%5D:sluice.socket::stored:tty"}
	s, err := Open(v.environment(parked))
	if err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(tcp)
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
	want := []Socket{
		{FD: parked, Name: "http", Addr: addr, Listening: true},
		{FD: parked + 1, Name: "%5B%3A%3A%5D", Path: path, Listening: true},
		{FD: parked + 2, Name: "sluice.socket"},
		{FD: parked + 3},
		{FD: parked + 4, Name: "stored"},
		{FD: parked + 5, Name: "tty"},
	}
	if !slices.Equal(s.Sockets(), want) {
		t.Errorf("%+v, want %+v", s.Sockets(), want)
	}
	for _, socket := range s.Sockets() {
		if flags, err := unix.FcntlInt(uintptr(socket.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s survives exec: %v", socket, err)
		}
	}
	if got := s.Sockets()[0].String(); got != fmt.Sprintf(`700 "http" (%s)`, addr) {
		t.Errorf("%s", got)
	}
}

func TestSocketsRefused(t *testing.T) {
	pass(t, stream(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 8))
	f := func(n, names, want string) {
		t.Helper()
		v := variables{"LISTEN_PID": "42", "LISTEN_FDS": n}
		if names != "-" {
			v["LISTEN_FDNAMES"] = names
		}
		_, err := Open(v.environment(parked))
		if want == "" && err == nil {
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s sockets, names %q: %v, want %q", n, names, err, want)
		}
	}
	f("1", "-", "")
	f("1", "http", "")
	f("0", "-", "")
	f("1", "http:https", "2 names for 1 sockets")
	f("1", "a\x01", "is no name")
	f("1", strings.Repeat("a", 256), "is no name")
	f("2", "-", "descriptor 701: bad file descriptor")
}

// What is stored comes back: with its name, as the same socket, and without being watched for errors.
func TestStore(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	a := stream(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 8)
	name := Name("127.0.0.1:443")
	if err := s.Store(name, slices.Repeat([]int{a}, maxStoredAtOnce+1)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{maxStoredAtOnce, 1} { // what the kernel takes in one message
		message, fds := m.receive()
		if message != "FDSTORE=1\nFDNAME=127.0.0.1%3A443\nFDPOLL=0" || len(fds) != want {
			t.Fatalf("%q with %d descriptors, want %d", message, len(fds), want)
		}
		pass(t, fds[0])
		v := variables{"LISTEN_PID": "42", "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
		next, err := Open(v.environment(parked))
		if err != nil {
			t.Fatal(err)
		}
		sa, _ := unix.Getsockname(a)
		if got := next.Sockets()[0]; got.Name != name || int(got.Addr.Port()) != sa.(*unix.SockaddrInet4).Port {
			t.Errorf("%+v", got)
		}
	}
	for _, bad := range []string{"", "a:b", "a\n", "ü", strings.Repeat("a", 256)} {
		if s.Store(bad, []int{a}) == nil || s.Forget(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{"[::]:80": "[%3A%3A]%3A80", "100%": "100%25", "a b": "a b", "\x7fü": "%7F%C3%BC"} {
		if got := Name(text); got != want || !validName(got) {
			t.Errorf("Name(%q) is %q, want %q", text, got, want)
		}
	}
}

// childVariable marks the process of TestSocketsOfAProcess.
const childVariable = "SLUICE_SYSTEMD_TEST_CHILD"

// Sockets come to a real process as systemd passes them: from descriptor 3 on, with its own id in the environment.
func TestSocketsOfAProcess(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		s, err := Open(ProcessEnvironment())
		fmt.Println(s.Sockets(), err, os.Getenv("LISTEN_FDS") == "")
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	c := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$0" -test.run '^TestSocketsOfAProcess$'`, os.Args[0])
	c.Env = append(os.Environ(), childVariable+"=1")
	c.ExtraFiles = []*os.File{f}
	out, err := c.CombinedOutput()
	if want := fmt.Sprintf("[3 \"http\" (%s)] <nil> true\n", l.Addr()); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%s, %v: want %s", out, err, want)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("42", "1", "http", "42", "1000", "/run/notify")
	f.Add("41", "2", "a:b", "", "", "@x")
	f.Fuzz(func(t *testing.T, listenPID, fds, names, watchdogPID, usec, address string) {
		v := variables{"LISTEN_PID": listenPID, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names, "WATCHDOG_PID": watchdogPID,
			"WATCHDOG_USEC": usec, "NOTIFY_SOCKET": address}
		s, err := Open(v.environment(1 << 20)) // where no descriptor is
		if len(v) > 0 {
			t.Errorf("left %v", v)
		}
		if err == nil && (len(s.Sockets()) > 0 || s.Watchdog() < 0 || s.Notified() && checkAddress(address) != nil) {
			t.Errorf("%+v", s)
		}
	})
}
