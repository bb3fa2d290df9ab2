package server

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/tuning"
)

const pong = `listeners: { http: { bind: "127.0.0.1:0" SOCKET } }
routes: [{ match: "*", respond: { body: pong } }]
`

// pinged sends a request on a connection and says whether it was answered.
func pinged(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for n := 0; ; {
		k, err := c.Read(b[n:])
		if n += k; strings.HasSuffix(string(b[:n]), "pong") {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newcomer is what becomes of a new connection, which may be reset before it is known to have been made.
func newcomer(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return pinged(c)
}

// TestSheds fills the memory: new connections are refused, open ones are served, all of it is seen; and taken back below the mark.
func TestSheds(t *testing.T) {
	var used atomic.Uint64
	g := runWith(t, strings.Replace(pong, " SOCKET", "", 1)+"tuning: { memory_limit: off, shed_above: 90% }\n",
		Options{Usage: func() tuning.Usage { return tuning.Usage{Used: used.Load(), Limit: 1000} }})
	kept := connect(t, g.addr)
	if err := pinged(kept); err != nil {
		t.Fatal(err)
	}
	used.Store(950)
	g.eventually("connections are refused", func() bool { return g.status().Tuning.Shedding })
	if err := newcomer(g.addr); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("a new connection: %v", err)
	}
	if err := pinged(kept); err != nil {
		t.Errorf("an open connection: %v", err)
	}
	used.Store(860) // below the mark, but not by enough
	g.eventually("the memory is looked at", func() bool { return g.status().Tuning.MemoryUsed == 860 })
	time.Sleep(3 * usageEvery)
	if s := g.status().Tuning; !s.Shedding || s.MemoryUsed != 860 || s.MemoryOf != 1000 || s.Sheddings != 1 {
		t.Errorf("status: %+v", s)
	}
	metrics := g.metrics()
	for _, want := range []string{"sluice_shedding 1\n", "sluice_sheddings_total 1\n", "sluice_memory_used_share 0.86\n",
		`sluice_connections_rejected_total{listener="http",reason="memory"} 1` + "\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	used.Store(840)
	g.eventually("connections are taken again", func() bool { return !g.status().Tuning.Shedding })
	if err := pinged(connect(t, g.addr)); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	for _, want := range []string{"memory is short: new connections are refused; give the gateway more", "connections are taken again"} {
		if n := strings.Count(g.log.String(), want); n != 1 {
			t.Errorf("%d times in the log: %s", n, want)
		}
	}
	// Without a mark nothing is refused.
	g.write(strings.Replace(pong, " SOCKET", "", 1) + "tuning: off\n")
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	used.Store(2000)
	g.eventually("the mark is gone", func() bool { return g.status().Tuning.MemoryOf == 0 })
	time.Sleep(3 * usageEvery)
	if s := g.status().Tuning; s.Shedding || s.MemoryOf != 0 {
		t.Errorf("status: %+v", s)
	}
}

func (g *running) metrics() string {
	g.t.Helper()
	text, err := g.admin.Metrics()
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// TestTuned has the configuration fit the runtime to the host, and reloads change that.
func TestTuned(t *testing.T) {
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	})
	plain := strings.Replace(pong, " SOCKET", "", 1)
	g := run(t, plain)
	f := func(want int64, percent int) {
		t.Helper()
		had := debug.SetGCPercent(100)
		debug.SetGCPercent(had)
		if got := debug.SetMemoryLimit(-1); got != want || had != percent {
			t.Errorf("the runtime keeps to %d and %d %%, want %d and %d %%", got, had, want, percent)
		}
	}
	all, from := (&tuning.Host{Files: os.DirFS("/")}).Memory()
	g.eventually("the memory is looked at", func() bool { return g.status().Tuning.MemoryOf > 0 })
	s := g.status().Tuning
	if s.MemoryBytes != all || s.MemoryFrom != from || s.Files == 0 || s.CPUs < 1 {
		t.Errorf("status: %+v", s)
	}
	f(int64(0.8*float64(all)), 100)
	reload := func(line string) {
		t.Helper()
		g.write(plain + line)
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
	}
	reload("tuning: { memory_limit: 1GiB, gc_percent: 300 }\n")
	f(1<<30, 300)
	t.Setenv("GOMEMLIMIT", "1GiB") // whose word is final
	reload("tuning: { memory_limit: 50% }\n")
	f(1<<30, 100)
	_ = os.Unsetenv("GOMEMLIMIT")
	reload("tuning: off\n")
	f(math.MaxInt64, 100)
}

// TestCollectorRuns has the heap grow further between collections while garbage grows fast, unless the configuration says by how much.
func TestCollectorRuns(t *testing.T) {
	percent := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	plain := strings.Replace(pong, " SOCKET", "", 1)
	g := run(t, plain)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for garbage := make([]byte, 1<<20); ; garbage = make([]byte, len(garbage)) {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond): // hundreds of MiB a second
			}
		}
	}()
	g.eventually("the heap may grow further", func() bool { return g.status().Tuning.GCPercent > 100 })
	if !strings.Contains(g.metrics(), "sluice_gc_percent ") || strings.Contains(g.metrics(), "sluice_gc_percent 100\n") {
		t.Error("the metrics do not tell")
	}
	g.write(plain + "tuning: { gc_percent: 100 }\n")
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	if got := g.status().Tuning.GCPercent; got != 100 {
		t.Errorf("the heap grows by %d %%", got)
	}
	close(stop)
	<-stopped
}

// descriptors gives the descriptors of this process for which f is true.
func descriptors(t *testing.T, f func(fd int) bool) (found []int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil && f(fd) {
			found = append(found, fd)
		}
	}
	return found
}

func portNumber(sa unix.Sockaddr) int {
	if sa, ok := sa.(*unix.SockaddrInet4); ok {
		return sa.Port
	}
	return 0
}

// TestSocketOptions has the configuration set options of listeners and upstreams, change them by a reload, and refuse a reload that
// requires what the kernel does not have.
func TestSocketOptions(t *testing.T) {
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = up.Close() }()
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			b := make([]byte, 4096)
			if _, err := c.Read(b); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong")
			}
		}
	}()
	write := func(listener, upstream string) string {
		return `listeners: { http: { bind: "127.0.0.1:0"` + listener + ` } }
upstreams: { a: { endpoints: ["` + up.Addr().String() + `"]` + upstream + ` } }
routes: [{ match: "*", to: a }]
`
	}
	g := run(t, write(", socket: { user_timeout: 5s, congestion: nosuch }", ", socket: { user_timeout: 6s, keepalive: 40s }"))
	if !strings.Contains(g.log.String(), `modprobe tcp_nosuch`) {
		t.Errorf("the log does not say that an option was refused:\n%s", g.log)
	}
	timeouts := func(fds []int) (all []int) {
		for _, fd := range fds {
			ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			if err != nil {
				t.Error(err)
			}
			all = append(all, ms)
		}
		return all
	}
	_, text, _ := net.SplitHostPort(g.addr)
	own, _ := strconv.Atoi(text)
	f := func(want int) {
		t.Helper()
		got := timeouts(descriptors(t, func(fd int) bool {
			sa, err := unix.Getsockname(fd)
			listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			return err == nil && listens == 1 && portNumber(sa) == own
		}))
		for _, ms := range got {
			if ms != want {
				t.Errorf("listening sockets have %v, want %d", got, want)
			}
		}
		if len(got) == 0 {
			t.Error("no listening socket was found")
		}
	}
	f(5000)
	if err := pinged(connect(t, g.addr)); err != nil {
		t.Fatal(err)
	}
	kept := descriptors(t, func(fd int) bool {
		sa, err := unix.Getpeername(fd)
		return err == nil && portNumber(sa) == up.Addr().(*net.TCPAddr).Port
	})
	if got := timeouts(kept); len(got) != 1 || got[0] != 6000 {
		t.Errorf("connections to the upstream have %v", got)
	} else if idle, _ := unix.GetsockoptInt(kept[0], unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); idle != 40 {
		t.Errorf("a connection to the upstream is asked after %d s", idle)
	}

	g.write(write(", socket: { user_timeout: 7s, backlog: 99 }", ""))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	f(7000)
	for _, bad := range []string{write(", socket: { user_timeout: 8s, congestion: nosuch, required: true }", ""),
		write("", ", socket: { congestion: nosuch, required: true }")} {
		g.write(bad)
		if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), "modprobe tcp_nosuch") || !strings.Contains(err.Error(), "sluice.yaml:") {
			t.Errorf("required: %v", err)
		}
	}
	f(7000)
	g.write(write(", socket: { backlog: 1048576 }", ""))
	if err := g.admin.Reload(true); err != nil || !strings.Contains(g.log.String(), "raise net.core.somaxconn") {
		t.Errorf("a backlog that is cut: %v\n%s", err, g.log)
	}
	g.write(write("", ""))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(g.log.String(), "stay set until the listener is opened anew") || !strings.Contains(g.log.String(), "user_timeout") {
		t.Errorf("the log does not say what stays:\n%s", g.log)
	}
}

// TestFewFilesAreTold lowers the limit of descriptors, which the configuration leaves.
func TestFewFilesAreTold(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 2000, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	g := run(t, strings.Replace(pong, " SOCKET", "", 1)+"tuning: { raise_file_limit: false }\n")
	if s := g.status().Tuning; s.Files != 2000 || !strings.Contains(g.log.String(), "raise LimitNOFILE=") || !strings.Contains(g.metrics(), "sluice_file_limit 2000\n") {
		t.Errorf("%+v\n%s", s, g.log)
	}
}

// TestCoreDumps: nothing is dumped unless the configuration says so, and that changes with it.
func TestCoreDumps(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	if was.Max == 0 {
		t.Skip("the hard limit forbids core dumps")
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &was) })
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(pong, " SOCKET", "", 1)
	f := func(what string, want uint64, told uint64) {
		t.Helper()
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err != nil || now.Cur != want || told != want {
			t.Errorf("%s: %d, told is %d, want %d: %v", what, now.Cur, told, want, err)
		}
	}
	g := run(t, text)
	f("by default", 0, g.status().Tuning.CoreBytes)
	g.write(text + "tuning: { core_dumps: on }\n")
	g.reload()
	f("on", was.Max, g.status().Tuning.CoreBytes)
	g.write(text + "tuning: { core_dumps: off }\n")
	g.reload()
	f("off", 0, g.status().Tuning.CoreBytes)
}

// TestTuningStands holds the configuration's default against what README promises of it.
func TestTuningStands(t *testing.T) {
	cfg, problems := config.Parse("a", []byte(strings.Replace(pong, " SOCKET", "", 1)+"tuning: auto\n"), config.Env{})
	if cfg == nil || cfg.Tuning.MemoryPercent != 80 || cfg.Tuning.ShedPercent != 90 || !cfg.Tuning.RaiseFiles || cfg.Tuning.CoreDumps != "off" {
		t.Errorf("%+v, %s", cfg, problems)
	}
}

// TestAcceptFailuresAreCounted leaves the process no descriptor for a client, who waits until there is one again.
func TestAcceptFailuresAreCounted(t *testing.T) {
	g := run(t, strings.Replace(pong, " SOCKET", "", 1))
	addr, err := net.ResolveTCPAddr("tcp4", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(fd), "client")
	defer func() { _ = client.Close() }()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(addr.IP.To4()), Port: addr.Port})
	for start := time.Now(); err == nil && !strings.Contains(g.log.String(), "cannot accept: clients wait; raise LimitNOFILE=") && time.Since(start) < patience; {
		time.Sleep(time.Millisecond)
	}
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil || again != nil {
		t.Fatal(err, again)
	}
	g.eventually("the failure is counted", func() bool {
		n, _ := strconv.Atoi(g.metric(`sluice_accept_failures_total{listener="http"}`))
		return n > 0
	})
	if _, err := client.WriteString("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(client); err != nil || !strings.HasSuffix(string(answer), "pong") {
		t.Errorf("the client that waited: %q, %v", answer, err)
	}
}

// Loops look for events before they park from the start on or from a reload on, and until another.
func TestBusyPolling(t *testing.T) {
	text := strings.Replace(pong, "SOCKET", "", 1)
	g := run(t, "tuning: { busy_polling: 100ms }\n"+text)
	c := connect(t, g.addr)
	found := func() float64 {
		n, err := strconv.ParseFloat(g.metric(`sluice_busy_polls_total{result="found"}`), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	reload := func(config string) {
		g.write(config)
		g.reload()
	}
	ask := func() {
		t.Helper()
		for range 50 {
			if err := pinged(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	grows := func() {
		t.Helper()
		before := found()
		eventually(t, "events are found", func() bool { ask(); return found() > before })
	}
	grows()
	reload(text)
	before := found()
	for range 10 {
		ask()
	}
	if n := found() - before; n > 0 {
		t.Errorf("%v events were found after a reload without it", n)
	}
	reload("tuning: { busy_polling: 100ms }\n" + text)
	grows()
}
