package listen

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// TestMain fails when the tests leave goroutines or descriptors behind.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // the fuzzer has goroutines of its own
	}
	code := func() int {
		first, _ := os.ReadDir("/proc/self/fd")
		goroutines := runtime.NumGoroutine()
		code := m.Run()
		var left int
		var fds []os.DirEntry
		for range 200 {
			left = runtime.NumGoroutine() - goroutines
			fds, _ = os.ReadDir("/proc/self/fd")
			// Go's netpoller keeps an epoll instance and an eventfd once it was used.
			if left <= 0 && len(fds) <= len(first)+2 {
				return code
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Fprintf(os.Stderr, "%d goroutines left, descriptors %d before, %d after\n", left, len(first), len(fds))
		b := make([]byte, 1<<20)
		_, _ = os.Stderr.Write(b[:runtime.Stack(b, true)])
		return 1
	}()
	os.Exit(code)
}

// host is loops with the ports of one listener on them.
type host struct {
	t     *testing.T
	caps  *Caps
	loops []*loop.Loop
	ports []*Port
	peers atomic.Pointer[netip.AddrPort] // of the last connection
	born  atomic.Int64                   // connections that came to the protocol
	died  atomic.Int64
}

// settings of a listener for tests.
func settings(change func(l *core.Listener)) Settings {
	l := &core.Listener{HeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	if change != nil {
		change(l)
	}
	return Settings{Listener: l}
}

// newHost starts so many loops with a port of s on each, whose protocol is echo.
func newHost(t *testing.T, loops int, s Settings) *host {
	h := &host{t: t, caps: NewCaps()}
	for i := range loops {
		l, err := loop.New(loop.Options{Index: i, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		h.loops = append(h.loops, l)
		h.ports = append(h.ports, NewPort(l, h.caps, s, h.protocol))
		l.Start()
	}
	t.Cleanup(func() {
		for _, l := range h.loops {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		}
		if h.caps.Open() != 0 {
			t.Errorf("%d connections are counted after the loops have stopped", h.caps.Open())
		}
		if h.born.Load() != h.died.Load() {
			t.Errorf("%d handlers were made, %d closed", h.born.Load(), h.died.Load())
		}
	})
	return h
}

// listen opens b on all loops.
func (h *host) listen(b Bind) *Sockets {
	h.t.Helper()
	s, err := Open(b, len(h.loops))
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

// do runs f on the loop of the i-th port.
func (h *host) do(i int, f func(p *Port)) {
	h.t.Helper()
	if err := h.loops[i].Do(10*time.Second, func() { f(h.ports[i]) }); err != nil {
		h.t.Fatal(err)
	}
}

// queued is how many connections wait in the kernel. The loops must be held.
func (h *host) queued() (n int) {
	for _, p := range h.ports {
		for _, a := range p.accepts {
			n += a.acceptor.Queued()
		}
	}
	return n
}

// counters are the sum over the loops, and each loop's.
func (h *host) counters() (sum Counters, each []Counters) {
	for i := range h.ports {
		h.do(i, func(p *Port) {
			c := p.Counters()
			each = append(each, c)
			sum.Open += c.Open
			sum.Accepted += c.Accepted
			sum.Handshaking += c.Handshaking
			sum.Handshakes += c.Handshakes
			sum.Resumed += c.Resumed
			for r := range c.Refused {
				sum.Refused[r] += c.Refused[r]
			}
		})
	}
	return sum, each
}

// await polls until ok holds of the counters.
func (h *host) await(what string, ok func(c Counters) bool) {
	h.t.Helper()
	var c Counters
	for range 1000 {
		if c, _ = h.counters(); ok(c) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("%s: %+v", what, c)
}

func (h *host) protocol(c *loop.Conn, p *Port, a Accepted) loop.Handler {
	h.born.Add(1)
	h.peers.Store(&a.Peer)
	if c.Deadline != 0 {
		h.t.Error("the protocol got a connection with a deadline")
	}
	return &echo{host: h, port: p, peer: a.Peer, early: append([]byte(nil), a.Early...)}
}

// echo sends back what it gets.
type echo struct {
	host  *host
	port  *Port
	peer  netip.AddrPort
	early []byte
}

func (e *echo) String() string { return "echo" }

func (e *echo) Closed(*loop.Conn) {
	e.host.died.Add(1)
	e.port.Release(e.peer)
}

func (e *echo) Serve(c *loop.Conn) {
	if _, err := c.Write(e.early); err != nil {
		return
	}
	e.early = nil
	var b [4096]byte
	for {
		n, err := c.ReadNow(b[:])
		if err == loop.ErrAgain {
			c.Idle(e.port.after(e.port.Settings().IdleTimeout))
			return
		}
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// said sends text and reads it back.
func said(rw io.ReadWriter, text string) error {
	if _, err := io.WriteString(rw, text); err != nil {
		return err
	}
	return heard(rw, text)
}

// heard reads text.
func heard(r io.Reader, text string) error {
	b := make([]byte, len(text))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("got %q, want %q", b, text)
	}
	return nil
}
