package server

import (
	"bufio"
	"bytes"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// taking is an Upgrader whose new process is this one: it takes everything over, closes it, and hears how the old one drains.
type taking struct {
	pair   *handover.Pair
	follow sync.WaitGroup
	mu     sync.Mutex
	report handover.Report // the last one
}

func (u *taking) Ready() error { return nil }
func (u *taking) Stop()        {}

func (u *taking) Upgrade(string, []string) error {
	fd, err := unix.FcntlInt(u.pair.Theirs().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	taker, err := handover.NewTaker(os.NewFile(uintptr(fd), "theirs"))
	if err != nil {
		return err
	}
	got, err := taker.Take(handover.Hello{PID: 1, Version: "next"}) // 1: nobody is signalled
	handover.CloseAll(got.Sockets)
	if err == nil {
		err = taker.Taken()
	}
	if err != nil {
		taker.Close()
		return err
	}
	u.follow.Go(func() {
		defer taker.Close()
		_ = taker.Follow(func(r handover.Report) {
			u.mu.Lock()
			u.report = r
			u.mu.Unlock()
		}, func([]handover.Part, error) {})
	})
	return nil
}

func (u *taking) last() handover.Report {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.report
}

const drainConfig = `
loops: 2
drain: DRAIN
access_log: { to: FOLDER/access.log }
listeners:
  http: { bind: "127.0.0.1:0", protocols: [h1, h2c] }
  pass: { bind: "127.0.0.1:0", tls: passthrough }
upstreams: { a: { endpoints: ["UPSTREAM"], health: { http: { path: /small }, interval: 100ms } }, db: ["DB"] }
routes:
  - { match: db.test, passthrough: db }
  - { match: "/*", to: a }
`

// draining is a gateway in front of peers that open tunnels.
type draining struct {
	*running
	taking    *taking
	authority *authority
	small     atomic.Int64 // requests to the upstream for /small
	began     time.Time    // not after the drain
}

func newDraining(t *testing.T, drain string) *draining {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n[ \"$1\" != version ] || echo sluice next\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	pair, err := handover.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	d := &draining{taking: &taking{pair: pair}, authority: newAuthority(t)}
	t.Cleanup(func() {
		pair.Close()
		d.taking.follow.Wait()
	})
	text := strings.NewReplacer("DRAIN", drain, "UPSTREAM", serveConns(t, d.upstream), "DB", newEnds(t, d.authority, "db.test").addr).Replace(drainConfig)
	d.running = runWith(t, text, Options{Upgrade: &Upgrade{Upgrader: d.taking, Pair: pair, Binary: binary}})
	return d
}

// upstream returns the bytes of tunnels, answers /small, and nothing else.
func (d *draining) upstream(c net.Conn) {
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		switch {
		case err != nil:
			return
		case req.Header.Get("Upgrade") != "":
			_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				core.WebSocketAccept([]byte(req.Header.Get(core.WebSocketKeyField))))
			_, _ = io.Copy(c, r)
			return
		case req.URL.Path == "/small":
			d.small.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		default:
			_, _ = io.Copy(io.Discard, r)
			return
		}
	}
}

// handOver makes another process take over.
func (d *draining) handOver() {
	d.t.Helper()
	d.began = time.Now()
	if err := d.admin.Upgrade("", false, true); err != nil {
		d.t.Fatalf("%v\n%s", err, d.log)
	}
}

// ends waits for the end of the process, and says how long the drain has taken at least.
func (d *draining) ends() time.Duration {
	d.t.Helper()
	d.over = true
	select {
	case err := <-d.ended:
		if err != nil {
			d.t.Errorf("%v\n%s", err, d.log)
		}
	case <-time.After(patience):
		d.t.Fatalf("the gateway does not end\n%s", d.log)
	}
	return time.Since(d.began)
}

func (d *draining) says(want, never string) {
	d.t.Helper()
	if text := d.log.String(); !strings.Contains(text, want) || strings.Contains(text, never) {
		d.t.Errorf("want %q and not %q in\n%s", want, never, text)
	}
}

func (d *draining) accessLog() string { return filepath.Join(d.folder, "access.log") }

// logged finds an exchange in the access log of a process that has ended.
func (d *draining) logged(path string) {
	d.t.Helper()
	if text, err := os.ReadFile(d.accessLog()); err != nil || !bytes.Contains(text, []byte(path)) {
		d.t.Errorf("%s is not in the access log: %q, %v", path, text, err)
	}
}

// dial sends a request and gives the connection, and what it reads from.
func (d *draining) dial(request string) (net.Conn, *bufio.Reader) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		d.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// tunnel opens one over HTTP/1.1, and gives what sends a text through it and says what went wrong.
func (d *draining) tunnel() (c net.Conn, through func(text string) error) {
	d.t.Helper()
	c, r := d.dial("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		d.t.Fatalf("%+v, %v", res, err)
	}
	return c, func(text string) error { return returned(c, r, text) }
}

// returned sends a text and reads it back.
func returned(w io.Writer, r io.Reader, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(r, back); err != nil || string(back) != text {
		return fmt.Errorf("%q came back, %w", back, err)
	}
	return nil
}

// passage opens a connection whose TLS is passed through.
func (d *draining) passage() *cryptotls.Conn {
	d.t.Helper()
	for _, l := range d.status().Listeners {
		if l.Name == "pass" {
			at := running{t: d.t, addr: l.Binds[0]}
			c, err := at.passed(d.authority, "db.test")
			if err != nil {
				d.t.Fatal(err)
			}
			return c
		}
	}
	d.t.Fatal("no listener")
	return nil
}

// connect opens a tunnel in a stream, and gives what sends a text through it.
func (c *rawH2) connect(id uint32) (through func(text string)) {
	c.t.Helper()
	if err := c.headers(id, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a.example",
		":path", "/tunnel", "sec-websocket-version", "13"); err != nil {
		c.t.Fatal(err)
	}
	c.until("the answer to CONNECT", func(f xhttp2.Frame) bool {
		h, ok := f.(*xhttp2.MetaHeadersFrame)
		if ok && h.PseudoValue("status") != "200" {
			c.t.Fatalf("%v", h.Fields)
		}
		return ok
	})
	return func(text string) {
		c.t.Helper()
		if err := c.framer.WriteData(id, false, []byte(text)); err != nil {
			c.t.Fatal(err)
		}
		c.until(text, func(f xhttp2.Frame) bool {
			data, ok := f.(*xhttp2.DataFrame)
			return ok && data.StreamID == id && bytes.Equal(data.Data(), []byte(text))
		})
	}
}

// TestDrainKeepsTunnels has another process take over from one that has connections of all kinds: when the time is over tunnels go on,
// and nothing else does, until the service is told to stop.
func TestDrainKeepsTunnels(t *testing.T) {
	const limit = 400 * time.Millisecond
	d := newDraining(t, "{ time: 400ms, tunnels: 1h }")
	socket, through := d.tunnel()
	passage := d.passage()
	shared, other := dialRawH2(t, d.addr), dialRawH2(t, d.addr)
	inStream := shared.connect(1)
	_, slow := d.dial("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	_, idle := d.dial("GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, err := http.ReadResponse(idle, nil); err != nil || res.StatusCode != 204 {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := errors.Join(shared.get(3, "/slow"), other.get(1, "/slow")); err != nil {
		t.Fatal(err)
	}
	d.eventually("all is under way", func() bool {
		n := 0
		for _, l := range d.status().Loops {
			n += l.Exchanges
		}
		return n == 5 // a passage is none
	})
	d.handOver()

	if _, err := slow.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) || time.Since(d.began) < limit {
		t.Errorf("a slow exchange ended with %v after %v", err, time.Since(d.began))
	}
	if _, err := idle.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection ended with %v", err)
	}
	if err := other.ending(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection without a tunnel ended with %v", err)
	}
	if got, err := shared.outcome(3); got != "reset INTERNAL_ERROR" || time.Since(d.began) < limit {
		t.Errorf("a stream beside a tunnel: %q, %v after %v", got, err, time.Since(d.began))
	}
	d.eventually("the time is over", func() bool { return strings.Contains(d.log.String(), "drained, but for tunnels") })
	checks := d.small.Load()
	if err := errors.Join(through("after the time"), returned(passage, passage, "so is this")); err != nil {
		t.Error(err)
	}
	inStream("this, too")
	if err := shared.get(5, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := shared.outcome(5); got != "reset REFUSED_STREAM" {
		t.Errorf("a new stream beside a tunnel: %q, %v", got, err)
	}
	d.eventually("the tunnels alone are reported", func() bool {
		r := d.taking.last()
		return r.Tunnels == 3 && r.Connections == 3 && r.Exchanges == 2 && r.Until.Sub(r.Since) == time.Hour
	})
	_, _ = socket.Close(), passage.Close()
	d.eventually("one is left", func() bool { return d.taking.last().Tunnels == 1 })
	inStream("still here")
	if n := d.small.Load(); n > checks+1 || n < 2 { // one may have been on its way
		t.Errorf("%d checks, and %d when there was nothing more to send", n, checks)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ends()
	d.says("told to stop: open tunnels end", "by a second signal")
}

// TestDrainOfTunnelsEnds finds both ends of a drain that tunnels make longer: their own time, and the last of them.
func TestDrainOfTunnelsEnds(t *testing.T) {
	d := newDraining(t, "{ time: 200ms, tunnels: 900ms }")
	c, _ := d.tunnel()
	d.handOver()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the tunnel ended with %v", err)
	}
	if took := d.ends(); took < 900*time.Millisecond {
		t.Errorf("the drain has taken %v", took)
	}
	d.says("drain ended: the time for tunnels is over", "told to stop")
	d.logged("/tunnel")

	d = newDraining(t, "{ time: 200ms, tunnels: 1h }")
	c, through := d.tunnel()
	d.handOver()
	d.eventually("the time is over", func() bool { return strings.Contains(d.log.String(), "drained, but for tunnels") })
	if err := through("alive"); err != nil {
		t.Error(err)
	}
	file := d.accessLog()
	if err := errors.Join(os.Rename(file, file+".1"), syscall.Kill(os.Getpid(), syscall.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	d.eventually("the access log is opened anew", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	_ = c.Close()
	d.ends()
	d.says("msg=drained\n", "drain ended")
	d.logged("/tunnel")
}

// TestDrainToldToStop has the service stop while a process drains that was replaced: its tunnels get no longer than the rest, and the rest
// no shorter.
func TestDrainToldToStop(t *testing.T) {
	d := newDraining(t, "{ time: 1s, tunnels: 1h }")
	_, through := d.tunnel()
	d.handOver()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.eventually("it has heard", func() bool { return strings.Contains(d.log.String(), "told to stop: the drain goes on") })
	if err := through("alive"); err != nil {
		t.Error(err)
	}
	d.eventually("the end is reported", func() bool {
		r := d.taking.last()
		return r.Tunnels == 1 && r.Until.Sub(r.Since) == time.Second
	})
	if took := d.ends(); took < time.Second {
		t.Errorf("the drain has taken %v", took)
	}
	d.says("drain ended with open connections", "but for tunnels")
	d.logged("/tunnel")
}
