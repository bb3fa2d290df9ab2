package server

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/systemd"
)

// manager is systemd's end: it takes what a gateway tells, and stores what it is given.
type manager struct {
	t        testing.TB
	path     string
	conn     *net.UnixConn
	messages chan string
	mu       sync.Mutex
	stored   map[string][]int // by name
	watchdog time.Duration
	passed   []systemd.Socket
}

// firstPassed is where tests put descriptors that are passed: beyond those that anybody else opens.
const firstPassed = 800

func newManager(t testing.TB) *manager {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, path: filepath.Join(folder, "notify"), messages: make(chan string, 1024), stored: map[string][]int{}}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.path}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.receive()
	}()
	t.Cleanup(func() {
		_ = m.conn.Close()
		<-done
		for _, fds := range m.stored {
			closeAll(fds)
		}
		_ = os.RemoveAll(folder)
	})
	return m
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (m *manager) receive() {
	b, rights := make([]byte, 8192), make([]byte, 8192)
	for {
		n, o, _, _, err := m.conn.ReadMsgUnix(b, rights)
		if err != nil {
			return
		}
		message, fds := string(b[:n]), []int(nil)
		if control, err := unix.ParseSocketControlMessage(rights[:o]); err == nil && len(control) > 0 {
			fds, _ = unix.ParseUnixRights(&control[0])
		}
		_, name, _ := strings.Cut(message, "FDNAME=")
		name, _, _ = strings.Cut(name, "\n")
		m.mu.Lock()
		switch {
		case strings.HasPrefix(message, "FDSTORE=1"):
			m.stored[name] = append(m.stored[name], fds...)
		case strings.HasPrefix(message, "FDSTOREREMOVE=1"):
			closeAll(m.stored[name])
			delete(m.stored, name)
		default:
			closeAll(fds) // of a barrier
		}
		m.mu.Unlock()
		m.messages <- message
	}
}

// inStore gives the descriptors that are stored, by name.
func (m *manager) inStore() map[string][]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.stored)
}

// expect takes messages until one matches, and returns it; none of those before may be of the same kind.
func (m *manager) expect(pattern string) string {
	m.t.Helper()
	re := regexp.MustCompile("^(?:" + pattern + ")$")
	kind, _, _ := strings.Cut(pattern, "=")
	timeout := time.After(patience)
	for {
		select {
		case got := <-m.messages:
			if re.MatchString(got) {
				return got
			}
			if strings.HasPrefix(got, kind+"=") {
				m.t.Fatalf("systemd was told %q, want %q", got, pattern)
			}
		case <-timeout:
			m.t.Fatalf("systemd was not told %q", pattern)
		}
	}
}

// pass gives copies of descriptors to the next gateway, with a name.
func (m *manager) pass(name string, fds ...int) {
	m.t.Helper()
	for _, fd := range fds {
		to := firstPassed + len(m.passed)
		if err := unix.Dup3(fd, to, 0); err != nil {
			m.t.Fatal(err)
		}
		m.passed = append(m.passed, systemd.Socket{FD: to, Name: name})
	}
}

// environment is what systemd starts the next gateway with.
func (m *manager) environment() systemd.Environment {
	v := map[string]string{"NOTIFY_SOCKET": m.path, "LISTEN_PID": "42", "LISTEN_FDS": fmt.Sprint(len(m.passed))}
	if m.watchdog > 0 {
		v["WATCHDOG_USEC"] = fmt.Sprint(m.watchdog.Microseconds())
	}
	for i, s := range m.passed {
		v["LISTEN_FDNAMES"] += map[bool]string{true: ":"}[i > 0] + s.Name
	}
	m.passed = nil
	return systemd.Environment{
		Lookup:  func(name string) (string, bool) { value, ok := v[name]; return value, ok },
		Unset:   func(name string) error { delete(v, name); return nil },
		PID:     42,
		FirstFD: firstPassed,
	}
}

// listening gives a descriptor of a listening socket, which is closed at the end, and its address.
func listening(t testing.TB) (fd int, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd()), l.Addr().String()
}

// answers asks over a connection of its own and wants the status 204.
func answers(t testing.TB, address string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: patience}
	r, err := client.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != 204 {
		t.Fatalf("status %d", r.StatusCode)
	}
}

const answering = `
loops: 2
drain: 5s
routes: [{ match: "*", respond: { status: 204 } }]
`

// systemd is told of a life: when the gateway serves, of reloads, refused ones too, of the drain, and of how long it may take.
func TestSystemdIsTold(t *testing.T) {
	m := newManager(t)
	g := runIn(t, `listeners: { http: { bind: "127.0.0.1:0" } }`+answering, m.environment())
	m.expect(`READY=1\nSTATUS=1 listener, 1 route, 0 connections`)
	answers(t, g.addr)

	g.write(`listeners: { http: { bind: "127.0.0.1:0" }, more: { bind: "127.0.0.1:0" } }` + answering)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.expect(`RELOADING=1\nMONOTONIC_USEC=[0-9]+`)
	m.expect(`READY=1\nSTATUS=2 listeners, 1 route, \d connections?; reloaded \d\d:\d\d:\d\d`)

	g.write(`nonsense: true`)
	if err := g.admin.Reload(true); err == nil { // what the unit's ExecReload= does
		t.Error("a wrong configuration is applied")
	}
	m.expect(`RELOADING=1\nMONOTONIC_USEC=[0-9]+`)
	m.expect(`READY=1\nSTATUS=2 listeners, .*; reload refused \d\d:\d\d:\d\d, the configuration before it is in force`)

	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n") // holds up the drain
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.expect(`STOPPING=1\nSTATUS=draining: \d connections?, at most 5s left`)
	m.expect(`EXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining: \d connections?, at most 5s left`)
	_, _ = io.WriteString(c, "hello")
	g.over = true
	select {
	case err := <-g.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the gateway does not end")
	}
}

// Its timeout is extended again and again while a drain goes on, and not at each look.
func TestSystemdHearsOfALongDrain(t *testing.T) {
	m, s := newManager(t), &Server{}
	var err error
	if s.service.Service, err = systemd.Open(m.environment()); err != nil {
		t.Fatal(err)
	}
	s.state.Store(&state{})
	s.tellDraining(90 * time.Second)
	m.expect("STOPPING=1\nSTATUS=draining: 0 connections, at most 1m30s left")
	m.expect("EXTEND_TIMEOUT_USEC=30000000\n.*")
	s.tellDraining(89 * time.Second)
	s.service.extended = time.Now().Add(-extendEvery)
	s.tellDraining(85 * time.Second)
	if next := <-m.messages; next != "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining: 0 connections, at most 1m25s left" {
		t.Errorf("systemd was told %q", next)
	}
	if extendBy < 2*extendEvery {
		t.Error("one message that is lost ends the drain")
	}
}

// started is a gateway that a test looks into, without signals.
func started(t *testing.T, m *manager, listeners string) *Server {
	t.Helper()
	cfg, problems := config.Parse("sluice.yaml", []byte(listeners+answering+"admin: off\n"), config.Env{})
	if cfg == nil {
		t.Fatal(problems)
	}
	s := &Server{options: Options{Version: "test", Stderr: &journal{}, Systemd: m.environment()}, life: life{Started: time.Now()}}
	t.Cleanup(s.close)
	if err := s.openService(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(cfg); err != nil {
		t.Fatal(err)
	}
	m.expect("READY=1\n.*")
	return s
}

// lapses waits until the watchdog would have ended the gateway.
func (m *manager) lapses() {
	m.t.Helper()
	for deadline := time.After(10 * m.watchdog); ; {
		select {
		case <-m.messages:
		case <-time.After(m.watchdog):
			return
		case <-deadline:
			m.t.Fatal("the watchdog does not lapse")
		}
	}
}

// A loop that is held up makes the watchdog lapse, though all others serve.
func TestSystemdWatchdogLapsesWithALoop(t *testing.T) {
	m := newManager(t)
	m.watchdog = 300 * time.Millisecond
	s := started(t, m, `listeners: { http: { bind: "127.0.0.1:0" } }`)
	m.expect("WATCHDOG=1")
	m.expect("WATCHDOG=1")
	held, release := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(release) })
	defer goOn() // before close, which waits for the loop
	s.loops[1].Post(func() {
		close(held)
		<-release
	})
	<-held
	eventually(t, "the log says why", func() bool {
		return strings.Contains(s.options.Stderr.(*journal).String(), "loop 1: the event loop is held up")
	})
	m.lapses()
	goOn()
	m.expect("WATCHDOG=1")
}

// So does a listening socket that a loop has lost sight of, though all loops turn.
func TestSystemdWatchdogLapsesWithTheAcceptPath(t *testing.T) {
	m := newManager(t)
	m.watchdog = 300 * time.Millisecond
	s := started(t, m, `listeners: { http: { bind: "127.0.0.1:0" } }`)
	m.expect("WATCHDOG=1")
	address := s.listeners[0].binds[0].sockets.String()
	var conns []net.Conn
	dial := func() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 20 {
		dial()
	}
	m.expect("WATCHDOG=1")
	m.expect("WATCHDOG=1")
	unwatch(t, address)
	for range 20 {
		dial()
	}
	eventually(t, "the log says why", func() bool {
		return strings.Contains(s.options.Stderr.(*journal).String(), `listener \"http\" does not accept`)
	})
	m.lapses()
}

// unwatch takes the listening sockets of an address out of every epoll instance of the process.
func unwatch(t *testing.T, address string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var epolls, sockets []int
	for _, e := range entries {
		var fd int
		_, _ = fmt.Sscan(e.Name(), &fd)
		if link, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(link, "eventpoll") {
			epolls = append(epolls, fd)
		}
		on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if sa, _ := unix.Getsockname(fd); err == nil && on == 1 {
			if a, ok := sa.(*unix.SockaddrInet4); ok && netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String() == address {
				sockets = append(sockets, fd)
			}
		}
	}
	removed := 0
	for _, e := range epolls {
		for _, fd := range sockets {
			if unix.EpollCtl(e, unix.EPOLL_CTL_DEL, fd, nil) == nil {
				removed++
			}
		}
	}
	if removed == 0 {
		t.Fatal("no listening socket was watched")
	}
}

// The status tells requests a second, since the last one.
func TestSystemdStatus(t *testing.T) {
	m := newManager(t)
	s := started(t, m, `listeners: { http: { bind: "127.0.0.1:0" } }`)
	for range 3 {
		answers(t, s.listeners[0].binds[0].sockets.String())
	}
	now := time.Now()
	rate := requestRate{at: now.Add(-2 * time.Second)}
	if got := rate.text(s, now); got != ", 2 req/s" { // 3 in 2 seconds
		t.Errorf("%q", got)
	}
	if got := rate.text(s, now.Add(time.Second)); got != ", 0 req/s" {
		t.Errorf("%q", got)
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1204: "1,204", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) is %q", n, got)
		}
	}
}
