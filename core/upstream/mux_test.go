package upstream

import (
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/http2"
	"github.com/sluice-gateway/sluice/core/loop"
)

// spoken is HTTP/2 as core/compile has it.
type spoken struct{ *http2.ClientConn }

func (s spoken) Open() Transport { return s.ClientConn.Open() }

// sharing gives settings of an upstream whose connections carry many exchanges.
func sharing() *Settings {
	set := defaults()
	set.Streams = 100
	var mu sync.Mutex
	clients := map[*core.Worker]*http2.Client{}
	set.Protocol = &Protocol{Carry: func(w *core.Worker, c *loop.Conn, m *Mux) Carrier {
		mu.Lock()
		if clients[w] == nil {
			clients[w] = http2.NewClient(w)
		}
		client := clients[w]
		mu.Unlock()
		return spoken{client.NewConn(c, m, http2.ClientOptions{Scheme: "http", Streams: m.Settings().Streams, Assumed: m.Assumed()})}
	}}
	return set
}

// gatedListener lets connections be accepted when it is told to.
type gatedListener struct {
	net.Listener
	open chan struct{}
}

func (l gatedListener) Accept() (net.Conn, error) {
	<-l.open
	return l.Listener.Accept()
}

type connKey struct{}

// newShared starts an upstream of HTTP/2 that answers with the path: of /hold when released, of /cut by closing the connection
// then. It accepts from when open is closed.
func newShared(t *testing.T, encrypted bool, open chan struct{}) (m Member, arrived chan string, release chan struct{}) {
	t.Helper()
	arrived, release = make(chan string, 100), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		if r.URL.Path == "/hold" || r.URL.Path == "/cut" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		if r.URL.Path == "/cut" {
			_ = r.Context().Value(connKey{}).(net.Conn).Close()
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP2(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Listener = gatedListener{s.Listener, open}
	if encrypted {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		select {
		case <-open:
		default:
			close(open)
		}
		s.CloseClientConnections()
		s.Close()
	})
	return memberOf(s.Listener, 1), arrived, release
}

func opened() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// counts are what the first endpoint's connections on a loop have promised and carry.
func (h *host) counts(i int) (conns, promised, riding int) {
	h.t.Helper()
	h.on(i, func() {
		for _, m := range h.upstream.Endpoints()[0].shares[i].muxes {
			conns++
			promised += m.promised
			riding += m.riding
		}
	})
	return conns, promised, riding
}

// TestMuxOneForEachLoop shows that whoever waits for a loop's only connection gets another when that has ended, also while other
// loops have all the connections there may be.
func TestMuxOneForEachLoop(t *testing.T) {
	m, arrived, release := newShared(t, false, opened())
	set := sharing()
	set.MaxConnections, set.Streams = 1, 1
	h := newHost(t, 2, set, m)
	first, second, waits := h.dial(0), h.dial(1), h.dial(1)
	first.get("/hold")
	<-arrived
	second.get("/cut")
	<-arrived
	waits.get("/after")
	h.eventually("it waits", func() bool { return h.upstream.Pending() == 1 })
	release <- struct{}{}
	release <- struct{}{} // which of the two it was does not matter
	waits.answer(200)
	first.answer(200)
	for i := range 2 {
		if conns, promised, riding := h.counts(i); conns > 1 || promised+riding != 0 {
			t.Errorf("loop %d: %d connections, %d promised and %d used", i, conns, promised, riding)
		}
	}
}

// TestMuxPlaceIsTaken has the only connection end while an exchange waits for it, and another come before the first one runs: one
// connection is made for both.
func TestMuxPlaceIsTaken(t *testing.T) {
	m, arrived, _ := newShared(t, false, opened())
	set := sharing()
	set.MaxConnections, set.Streams = 1, 1
	h := newHost(t, 1, set, m)
	h.dial(0).get("/hold")
	<-arrived
	waits, comes := h.dial(0), h.dial(0)
	waits.get("/waits")
	h.eventually("it waits", func() bool { return h.upstream.Pending() == 1 })
	h.on(0, func() {
		e, s := h.upstream.Endpoints()[0], h.upstream.shares[0]
		e.shares[0].muxes[0].raw.Close()
		if s.queue.len() != 0 {
			t.Error("the place of the connection was given to nobody")
		}
		if s.join(e, set, false) != nil {
			t.Error("another connection is made beside that of who has waited")
		}
	})
	waits.answer(200)
	comes.get("/comes")
	comes.answer(200)
}

// TestMuxRetired shows that an exchange of an older configuration is served though its upstream is out of force, and that the
// connection made for it ends with it.
func TestMuxRetired(t *testing.T) {
	m, arrived, _ := newShared(t, false, opened())
	h := newHost(t, 1, sharing(), m)
	c := h.dial(0)
	for range 3 {
		h.upstream.Retire(func(w *core.Worker, f func()) { h.on(w.Loop.Index(), f) })
		c.get("/late")
		c.answer(200)
		<-arrived
		h.eventually("its connection has ended", func() bool { return h.upstream.Endpoints()[0].Open() == 0 })
	}
}

// TestMuxLeftWhileMade has clients leave, and their time end, while the connection that they wait for is being made: it is made all
// the same, with room for everybody.
func TestMuxLeftWhileMade(t *testing.T) {
	open := make(chan struct{})
	m, arrived, _ := newShared(t, true, open)
	set := sharing()
	set.Protocol.ALPN = "h2"
	set.TLS = &cryptotls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	set.Streams, set.MaxConnections = 2, 1
	h := newHost(t, 1, set, m)
	for range 3 {
		c := h.dial(0)
		c.get("/never")
		h.eventually("it waits", func() bool { _, promised, _ := h.counts(0); return promised == 1 })
		_ = c.conn.Close()
		h.eventually("it has left", func() bool { _, promised, _ := h.counts(0); return promised == 0 })
	}
	if conns, _, _ := h.counts(0); conns != 1 {
		t.Errorf("%d connections are being made", conns)
	}
	a, b := h.dial(0), h.dial(0)
	a.get("/a")
	b.get("/b")
	h.eventually("they wait", func() bool { _, promised, _ := h.counts(0); return promised == 2 })
	late := h.dial(0)
	late.get("/late")
	h.eventually("one waits in the queue", func() bool { return h.upstream.Pending() == 1 })
	close(open)
	a.answer(200)
	b.answer(200)
	late.answer(200)
	for range 3 {
		if path := <-arrived; path == "/never" {
			t.Error("the upstream was asked for somebody who had left")
		}
	}
	if conns, promised, riding := h.counts(0); conns != 1 || promised+riding != 0 {
		t.Errorf("%d connections, %d promised and %d used", conns, promised, riding)
	}
}

// TestMuxNotMade has the handshake fail that many wait for, and some in the queue behind them: all are told, and nothing is counted
// any more.
func TestMuxNotMade(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	set := sharing()
	set.TLS = &cryptotls.Config{InsecureSkipVerify: true}
	set.Streams, set.MaxConnections, set.Handshake = 3, 1, 100*time.Millisecond
	h := newHost(t, 1, set, memberOf(ln, 1))
	var all []*client
	for range 8 {
		c := h.dial(0)
		c.get("/")
		all = append(all, c)
	}
	for _, c := range all {
		c.answer(504)
	}
	h.eventually("nothing is left", func() bool {
		conns, _, _ := h.counts(0)
		return conns == 0 && h.upstream.Pending() == 0 && h.upstream.Endpoints()[0].Open() == 0
	})
}

// TestMuxFullOutput lets many onto a fresh connection at once, with more to send than it takes in a turn: none is turned away.
func TestMuxFullOutput(t *testing.T) {
	open := make(chan struct{})
	m, _, _ := newShared(t, true, open)
	set := sharing()
	set.Protocol.ALPN = "h2"
	set.TLS = &cryptotls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	set.MaxConnections, set.ReplayBytes = 1, 0 // who is turned away cannot come again
	h := newHost(t, 1, set, m)
	var all []*client
	const size = 20_400 // of three bodies together as much as leaves at once, but for a few heads
	for i := range 12 {
		c := h.dial(0)
		c.send(fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", i, size) + string(make([]byte, size)))
		all = append(all, c)
	}
	h.eventually("they wait", func() bool { _, promised, _ := h.counts(0); return promised == len(all) })
	close(open)
	for _, c := range all {
		c.answer(200)
	}
	h.on(0, func() {
		if len(h.failed) > 0 {
			t.Errorf("attempts failed: %v", h.failed)
		}
	})
}
