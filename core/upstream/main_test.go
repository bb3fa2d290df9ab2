package upstream

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/http1"
	"github.com/sluice-gateway/sluice/core/leak"
	"github.com/sluice-gateway/sluice/core/loop"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 10 * time.Second

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// host is loops, each with a listening socket of its own, that answer every request from one upstream.
type host struct {
	t        *testing.T
	loops    []*loop.Loop
	workers  []*core.Worker
	addrs    []string // of each loop's socket
	upstream *Upstream
	route    core.Route
	settings core.Listener
	failed   []*core.Error // attempts that were followed by another; of the first loop
}

// Match implements core.Router.
func (h *host) Match(*core.Exchange) *core.Route { return &h.route }

// Observe implements core.Observer.
func (h *host) Observe(*core.Exchange) {}

// Failed implements core.Observer.
func (h *host) Failed(x *core.Exchange, err *core.Error) {
	if x.Worker == h.workers[0] {
		h.failed = append(h.failed, err)
	}
}

// Settings implements http1.Port.
func (h *host) Settings() *core.Listener { return &h.settings }

// Release implements http1.Port.
func (h *host) Release(netip.AddrPort) {}

func defaults() *Settings {
	return &Settings{Connect: patience, Handshake: patience, Header: patience, Idle: patience, Tunnel: patience, MaxPending: 100, QueueTimeout: patience,
		IdlePerLoop: 100, IdleTimeout: time.Minute, ReplayBytes: 1 << 10}
}

// newHost starts so many loops, with set for their upstream and members as its endpoints.
func newHost(t *testing.T, loops int, set *Settings, members ...Member) *host {
	t.Helper()
	h := &host{t: t}
	h.settings = core.Listener{Name: "test", Scheme: "http", HeaderTimeout: patience, IdleTimeout: time.Minute,
		BodyTimeout: patience, WriteTimeout: patience, HeaderBytes: 16 << 10, Headers: 100}
	gateway := core.NewGateway(&core.Snapshot{Router: h}, h)
	for i := range loops {
		l, err := loop.New(loop.Options{Index: i, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		h.loops = append(h.loops, l)
		h.workers = append(h.workers, gateway.NewWorker(l))
	}
	if set.Protocol == nil {
		set.Protocol = &Protocol{Speak: func(w *core.Worker, c *loop.Conn) Transport { return http1.NewClient(w, c) }}
	}
	h.upstream = New("u", 0, set, h.workers)
	h.route = core.Route{Name: "r", BodyLimit: -1, LogSample: -1,
		Action: NewProxy([]Target{{Upstream: h.upstream, Weight: 1}}, 0, false, loops)}
	for i, l := range h.loops {
		l.Start()
		h.listen(i)
	}
	h.assign(members...)
	t.Cleanup(func() {
		for _, l := range h.loops {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		}
		for _, e := range h.upstream.Endpoints() {
			if e.Open() != 0 {
				t.Errorf("%d connections to %s are counted after the end", e.Open(), e.Address)
			}
			if e.Load.InFlight() != 0 {
				t.Errorf("%d requests are counted in flight at %s after the end", e.Load.InFlight(), e.Address)
			}
		}
		if h.upstream.Pending() != 0 {
			t.Errorf("%d requests wait after the end", h.upstream.Pending())
		}
	})
	return h
}

func (h *host) listen(i int) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.addrs = append(h.addrs, ln.Addr().String())
	file, err := ln.File() // a copy
	_ = ln.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = file.Close()
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	server := http1.NewServer(h.workers[i])
	h.on(i, func() {
		_, err := h.loops[i].Accept(fd, false, func(fd int, peer netip.AddrPort) {
			if c, err := h.loops[i].Adopt(fd, nil); err == nil {
				c.Handle(server.NewConn(c, h, peer, nil, nil))
				c.Idle(0)
			}
		})
		if err != nil {
			h.t.Error(err)
		}
	})
}

// on runs f on a loop and waits for it.
func (h *host) on(i int, f func()) {
	h.t.Helper()
	if err := h.loops[i].Do(patience, f); err != nil {
		h.t.Fatal(err)
	}
}

// assign makes members the endpoints, and returns when all loops know.
func (h *host) assign(members ...Member) {
	h.t.Helper()
	h.upstream.Assign(members, func(w *core.Worker, f func()) { h.on(w.Loop.Index(), f) })
}

// eventually waits until ok holds.
func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("it never came to pass: %s", what)
		}
	}
}

// client is a connection to one of the loops.
type client struct {
	t      *testing.T
	conn   *net.TCPConn
	reader *bufio.Reader
}

func (h *host) dial(i int) *client {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addrs[i])
	if err != nil {
		h.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	h.t.Cleanup(func() { _ = c.Close() })
	return &client{h.t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) get(path string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
}

// answer reads an answer with its body.
func (c *client) answer(status int) string {
	c.t.Helper()
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		c.t.Fatalf("got %s %q, %v, want %d", res.Status, body, err, status)
	}
	return string(body)
}

// ask makes a request, from any goroutine.
func (c *client) ask(path string) error {
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != path {
		return fmt.Errorf("got %s %q, %v, want %q", res.Status, body, err, path)
	}
	return nil
}

// endpoint is a server that holds each request until it is released, and then answers with its path.
type endpoint struct {
	member  Member
	arrived chan string   // paths, in the order of arrival; "" when a connection is at its end
	release chan struct{} // one for each answer; closed: all at once
	conns   sync.WaitGroup
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{arrived: make(chan string, 1000), release: make(chan struct{})}
	e.member = memberOf(ln, 1)
	e.conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.conns.Go(func() { e.serve(c) })
		}
	})
	t.Cleanup(func() { // the loops, started later, have ended by now, and their connections with them
		_ = ln.Close()
		e.conns.Wait()
	})
	return e
}

func memberOf(ln net.Listener, weight int) Member {
	at := netip.MustParseAddrPort(ln.Addr().String())
	return Member{Name: at.String(), Address: loop.Address{AddrPort: at}, Weight: weight}
}

func (e *endpoint) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			e.arrived <- ""
			return
		}
		e.arrived <- req.URL.Path
		select {
		case <-e.release:
		case <-time.After(patience):
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path); err != nil {
			e.arrived <- ""
			return
		}
	}
}

// next gives what comes next: a path, or "" for the end of a connection.
func (e *endpoint) next(t *testing.T) string {
	t.Helper()
	select {
	case path := <-e.arrived:
		return path
	case <-time.After(patience):
		t.Fatal("nothing came to the endpoint")
		return ""
	}
}

// quiet fails the test if something has come to the endpoint.
func (e *endpoint) quiet(t *testing.T) {
	t.Helper()
	select {
	case path := <-e.arrived:
		t.Errorf("%q came to the endpoint", path)
	default:
	}
}
