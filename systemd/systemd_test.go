package systemd

import (
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// variables is an environment of a test's own, in which the process has id 42.
type variables map[string]string

func (v variables) environment(first int) Environment {
	return Environment{
		Lookup:  func(name string) (string, bool) { value, ok := v[name]; return value, ok },
		Unset:   func(name string) error { delete(v, name); return nil },
		PID:     42,
		FirstFD: first,
	}
}

// manager is systemd's end of the notifications.
type manager struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	m.listen()
	return m
}

func (m *manager) listen() {
	m.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.path})
	if err != nil {
		m.t.Fatal(err)
	}
	m.conn = conn
	m.t.Cleanup(func() { _ = conn.Close() })
}

// receive gives the next message and the descriptors that came with it.
func (m *manager) receive() (message string, fds []int) {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, rights := make([]byte, 8192), make([]byte, 8192)
	n, o, _, _, err := m.conn.ReadMsgUnix(b, rights)
	if err != nil {
		m.t.Fatal(err)
	}
	control, err := unix.ParseSocketControlMessage(rights[:o])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range control {
		got, err := unix.ParseUnixRights(&c)
		if err != nil {
			m.t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	m.t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	return string(b[:n]), fds
}

func open(t *testing.T, v variables) *Service {
	t.Helper()
	s, err := Open(v.environment(3))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNotify(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	f := func(what string, tell func() error, want string) {
		t.Helper()
		if err := tell(); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if got, _ := m.receive(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	f("Ready", func() error { return s.Ready("2 listeners") }, "READY=1\nSTATUS=2 listeners")
	f("Stopping", func() error { return s.Stopping("draining") }, "STOPPING=1\nSTATUS=draining")
	f("Alive", s.Alive, "WATCHDOG=1")
	f("MainPID", func() error { return s.MainPID(4711) }, "MAINPID=4711")
	f("ExtendTimeout", func() error { return s.ExtendTimeout(15*time.Second, "7 left") }, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=7 left")
	f("Forget", func() error { return s.Forget("http") }, "FDSTOREREMOVE=1\nFDNAME=http")
	f("a status of two lines", func() error { return s.Status("a\nREADY=1\x00b\xff") }, "STATUS=a READY=1 b\uFFFD")
	f("a long status", func() error { return s.Status("a" + strings.Repeat("ü", 2000)) }, "STATUS=a"+strings.Repeat("ü", 511))
	if err := s.MainPID(0); err == nil {
		t.Error("process 0 may be the main one")
	}
}

// The clock of RELOADING=1 is the one that systemd compares with its own, in microseconds.
func TestReloadingTellsTheMonotonicClock(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	clock := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano() / 1000
	}
	before := clock()
	if err := s.Reloading(); err != nil {
		t.Fatal(err)
	}
	after := clock()
	message, _ := m.receive()
	var at int64
	if _, err := fmt.Sscanf(message, "RELOADING=1\nMONOTONIC_USEC=%d", &at); err != nil || at < before || at > after {
		t.Errorf("%q, %v: want a time from %d to %d", message, err, before, after)
	}
}

func TestAbstractAddress(t *testing.T) {
	name := fmt.Sprintf("@sluice-test-%d", os.Getpid())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn}
	defer func() { _ = conn.Close() }()
	if err := open(t, variables{"NOTIFY_SOCKET": name}).Alive(); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.receive(); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
}

// A manager that is replaced, as by systemctl daemon-reexec, is told as before.
func TestNotifyOutlivesTheSocket(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	if err := s.Alive(); err != nil {
		t.Fatal(err)
	}
	_ = m.conn.Close()
	_ = os.Remove(m.path)
	if err := s.Alive(); err == nil || !strings.Contains(err.Error(), `cannot tell systemd "WATCHDOG=1" on`) {
		t.Errorf("without a manager: %v", err)
	}
	m.listen()
	if err := s.Alive(); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.receive(); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
}

// A manager that reads nothing holds nobody up for long.
func TestNotifyGivesUp(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	start := time.Now()
	var err error
	for n := 0; err == nil && n < 10_000; n++ {
		err = s.Alive()
	}
	if took := time.Since(start); err == nil || took > sendTimeout+5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestNobodyToTell(t *testing.T) {
	for name, s := range map[string]*Service{"nil": nil, "an empty environment": open(t, variables{})} {
		if s.Notified() || s.Watchdog() != 0 || s.Sockets() != nil || s.Successor() != nil {
			t.Errorf("%s: something is told", name)
		}
		for _, err := range []error{s.Ready(""), s.Reloading(), s.Stopping(""), s.Alive(), s.MainPID(1), s.Store("a", []int{0}), s.Forget("a")} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestEnvironment(t *testing.T) {
	type outcome struct {
		watchdog  time.Duration
		successor []string
		err       string
	}
	f := func(v variables, want outcome) {
		t.Helper()
		v["PATH"] = "/bin"
		text := fmt.Sprint(v)
		s, err := Open(v.environment(3))
		var got outcome
		if err == nil {
			got = outcome{watchdog: s.Watchdog(), successor: s.Successor()}
		} else {
			got.err = err.Error()
		}
		if got.watchdog != want.watchdog || !slices.Equal(got.successor, want.successor) ||
			(want.err == "") != (got.err == "") || !strings.Contains(got.err, want.err) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		if left := slices.Collect(maps.Keys(v)); !slices.Equal(left, []string{"PATH"}) {
			t.Errorf("%s: left %v", text, left)
		}
	}
	to := func(more ...string) variables {
		v := variables{"NOTIFY_SOCKET": "/run/systemd/notify"}
		for i := 0; i < len(more); i += 2 {
			v[more[i]] = more[i+1]
		}
		return v
	}
	told := func(more ...string) []string { return append([]string{"NOTIFY_SOCKET=/run/systemd/notify"}, more...) }

	f(to(), outcome{successor: told()})
	f(to("WATCHDOG_USEC", "30000000", "WATCHDOG_PID", "42"), outcome{30 * time.Second, told("WATCHDOG_USEC=30000000"), ""})
	f(to("WATCHDOG_USEC", "1500000"), outcome{1500 * time.Millisecond, told("WATCHDOG_USEC=1500000"), ""})
	f(to("WATCHDOG_USEC", "30000000", "WATCHDOG_PID", "41"), outcome{successor: told()}) // stale: of whom we succeed
	f(variables{"WATCHDOG_USEC": "30000000"}, outcome{})                                 // nobody to tell
	f(to("LISTEN_PID", "41", "LISTEN_FDS", "9", "LISTEN_FDNAMES", "x", "LISTEN_PIDFDID", "7"), outcome{successor: told()})
	f(to("LISTEN_FDS", "9"), outcome{successor: told()})

	for _, usec := range []string{"", "0", "-1", "+1", "01", " 1", "1s", "9223372036854776", "18446744073709551615", "99999999999999999999"} {
		f(to("WATCHDOG_USEC", usec), outcome{err: "WATCHDOG_USEC"})
	}
	for _, pid := range []string{"", "0", "-42", "x", "4294967338"} {
		f(to("WATCHDOG_USEC", "1", "WATCHDOG_PID", pid), outcome{err: "WATCHDOG_PID"})
		f(to("LISTEN_FDS", "1", "LISTEN_PID", pid), outcome{err: "LISTEN_PID"})
	}
	for _, n := range []string{"", "-1", "16385", "1 ", "00"} {
		f(to("LISTEN_PID", "42", "LISTEN_FDS", n), outcome{err: "LISTEN_FDS"})
	}
	for _, address := range []string{"run/notify", "/", "@", "vsock:2:1234", "/a\x00b", "/" + strings.Repeat("a", 107)} {
		f(variables{"NOTIFY_SOCKET": address}, outcome{err: "NOTIFY_SOCKET"})
	}
	if most := math.MaxInt64 / 1000; open(t, to("WATCHDOG_USEC", fmt.Sprint(most))).Watchdog() <= 0 {
		t.Error("the longest watchdog overflows")
	}
}

func TestBarrier(t *testing.T) {
	m := newManager(t)
	s := open(t, variables{"NOTIFY_SOCKET": m.path})
	if err := s.Barrier(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "no answer in 20ms") {
		t.Errorf("before systemd has read it: %v", err)
	}
	m.receive()
	told := make(chan error, 1)
	go func() { told <- s.Barrier(10 * time.Second) }()
	message, fds := m.receive()
	if message != "BARRIER=1" || len(fds) != 1 {
		t.Fatalf("%q with %d descriptors", message, len(fds))
	}
	select {
	case err := <-told:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	_ = unix.Close(fds[0])
	if err := <-told; err != nil {
		t.Error(err)
	}
}
