package server

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestMuxRefused shows that what an upstream refuses to look at is sent again as long as its body is still there.
func TestMuxRefused(t *testing.T) {
	large := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		method, body string
		refusals     int
		outcome      string
	}{
		{"GET", "", 1, okSmall},
		{"GET", "", 2, okSmall},
		{"GET", "", 7, okSmall},
		{"GET", "", 8, "502 upstream_refused"}, // three attempts, and to be turned away five times, are all
		{"POST", "a body", 1, okSmall},
		{"POST", large, 1, "502 upstream_refused"}, // gone
	} {
		t.Run(fmt.Sprintf("%s of %d bytes, %d refusals", c.method, len(c.body), c.refusals), func(t *testing.T) {
			var seen atomic.Int64
			u := newScriptedUpstream(t, func(s *scriptedConn) {
				for n := 1; ; n++ {
					r := s.request()
					if r == nil {
						return
					}
					seen.Add(1)
					if n <= c.refusals {
						_ = s.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeRefusedStream)
						continue
					}
					got := 0
					for ended := r.StreamEnded(); !ended; {
						f := s.next()
						if f == nil {
							return
						}
						if d, ok := f.(*xhttp2.DataFrame); ok && d.StreamID == r.StreamID {
							got += len(d.Data())
							ended = d.StreamEnded()
						}
					}
					if got != len(c.body) {
						t.Errorf("a body of %d bytes came, want %d", got, len(c.body))
					}
					s.answer(r.StreamID, smallBody)
				}
			})
			g := newMuxGate(t, u.addr, "")
			g.want(h1Client(t), c.method, "/", c.body, c.outcome)
			if want := min(int64(c.refusals)+1, 8); c.body != large && seen.Load() != want {
				t.Errorf("%d attempts, want %d", seen.Load(), want)
			}
			if u.accepted.Load() != 1 {
				t.Errorf("%d connections", u.accepted.Load())
			}
		})
	}
}

// TestMuxRefusedElsewhere has the endpoint refuse that is picked nearly always: its requests go to the other.
func TestMuxRefusedElsewhere(t *testing.T) {
	refuses := newScriptedUpstream(t, func(c *scriptedConn) {
		for r := c.request(); r != nil; r = c.request() {
			_ = c.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeRefusedStream)
		}
	})
	u := newScriptedUpstream(t, (*scriptedConn).serve)
	g := newGate(t, muxConfig(fmt.Sprintf("{ address: %q, weight: 100 }, %q", refuses.addr, u.addr), ""))
	for range 10 {
		g.want(h1Client(t), "POST", "/", "a body", okSmall)
	}
	g.settled()
}

// TestMuxGoAway has an upstream leave while requests are under way: those that it will not look at are sent again elsewhere, also
// a POST; the others end where they began, and then that connection is closed.
func TestMuxGoAway(t *testing.T) {
	release, closed := make(chan struct{}), make(chan []string, 1)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		if c.number > 1 {
			c.serve()
			return
		}
		ids := c.requests(4)
		if ids == nil {
			return
		}
		slices.Sort(ids)
		_ = c.framer.WriteGoAway(ids[1], xhttp2.ErrCodeNo, nil)
		<-release
		c.answer(ids[0], "from the old")
		c.answer(ids[1], "from the old")
		closed <- c.rest()
	})
	g := newMuxGate(t, u.addr, "")
	client := h1Client(t)
	outcomes := make(chan string, 4)
	for range 2 {
		go func() { outcomes <- g.outcome(client, "GET", "/", "") }()
		go func() { outcomes <- g.outcome(client, "POST", "/", "a body") }()
	}
	for range 2 { // those above the last stream do not wait for the others
		if got := <-outcomes; got != okSmall {
			t.Errorf("sent again: %q", got)
		}
	}
	g.want(client, "GET", "/", "", okSmall)
	if n := u.accepted.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	close(release)
	for range 2 {
		if got := <-outcomes; got != "200 from the old" {
			t.Errorf("accepted before: %q", got)
		}
	}
	if resets := <-closed; len(resets) != 0 {
		t.Errorf("the gateway ended the connection with %q", resets)
	}
	g.want(client, "GET", "/", "", okSmall)
}

// TestMuxEarlyAnswer shows that an answer is not lost to the reset that follows it, nor to what is still on its way to the upstream.
func TestMuxEarlyAnswer(t *testing.T) {
	for _, code := range []xhttp2.ErrCode{xhttp2.ErrCodeNo, xhttp2.ErrCodeCancel, xhttp2.ErrCodeRefusedStream} {
		t.Run(code.String(), func(t *testing.T) {
			u := newScriptedUpstream(t, func(c *scriptedConn) {
				for r := c.request(); r != nil; r = c.request() {
					c.headers(r.StreamID, false, ":status", "413")
					_ = c.framer.WriteData(r.StreamID, true, []byte(smallBody))
					_ = c.framer.WriteRSTStream(r.StreamID, code)
				}
			})
			g := newMuxGate(t, u.addr, "")
			for range 20 {
				g.want(h1Client(t), "POST", "/", strings.Repeat("x", 300_000), "413 "+smallBody)
			}
			if n := u.accepted.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestMuxResetAnswer breaks an answer off: its client sees that it is cut, or gets an error if nothing was passed on yet. Others on
// the connection go on.
func TestMuxResetAnswer(t *testing.T) {
	let := make(chan struct{})
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		for r := c.request(); r != nil; r = c.request() {
			start := func() {
				c.headers(r.StreamID, false, ":status", "200", "content-length", "100")
				_ = c.framer.WriteData(r.StreamID, false, []byte("the start"))
			}
			reset := func() { _ = c.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeInternal) }
			switch r.PseudoValue("path") {
			case "/break":
				start()
				<-let
				reset()
			case "/at-once":
				c.atOnce(func() { start(); reset() })
			default:
				c.answer(r.StreamID, smallBody)
			}
		}
	})
	g := newMuxGate(t, u.addr, "")
	client := h1Client(t)
	res, err := client.Get("http://" + g.addr + "/break") // the head is there before the reset comes
	if err != nil {
		t.Fatal(err)
	}
	close(let)
	if body, err := io.ReadAll(res.Body); err == nil || string(body) != "the start" {
		t.Errorf("%q, %v", body, err)
	}
	_ = res.Body.Close()
	g.want(client, "GET", "/at-once", "", "502 upstream_reset")
	g.want(client, "POST", "/at-once", "a body", "502 upstream_reset")
	g.want(client, "GET", "/", "", okSmall)
	if n := u.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestMuxClosed closes connections in every state. A request is sent again if it may be, and only where the connection was kept:
// one that breaks at once would break again.
func TestMuxClosed(t *testing.T) {
	abort := func(c *scriptedConn) { _ = c.conn.(*net.TCPConn).SetLinger(0) }
	for name, hangUp := range map[string]func(c *scriptedConn){"close": func(*scriptedConn) {}, "abort": abort} {
		t.Run(name, func(t *testing.T) {
			u := newScriptedUpstream(t, func(c *scriptedConn) {
				for r := c.request(); r != nil; r = c.request() {
					switch path := r.PseudoValue("path"); {
					case path == "/leave":
						c.answer(r.StreamID, smallBody)
						return
					case path == "/twice" && c.number%2 == 0, path == "/":
						c.answer(r.StreamID, smallBody)
					default:
						hangUp(c)
						return
					}
				}
			})
			g := newMuxGate(t, u.addr, "")
			client := h1Client(t)
			g.want(client, "GET", "/break", "", "502 upstream_closed") // on connection 1, which has never served
			g.want(client, "GET", "/leave", "", okSmall)               // 2
			eventually(t, "the end is known", func() bool { return g.upstreams() == 0 })
			g.want(client, "POST", "/leave", "a body", okSmall) // 3
			eventually(t, "the end is known", func() bool { return g.upstreams() == 0 })
			g.want(client, "POST", "/leave", "a body", okSmall) // 4
			eventually(t, "the end is known", func() bool { return g.upstreams() == 0 })
			g.want(client, "GET", "/", "", okSmall)      // 5
			g.want(client, "GET", "/twice", "", okSmall) // again on 6
			g.want(client, "POST", "/break", "a body", "502 upstream_closed")
			g.want(client, "GET", "/break", "", "502 upstream_closed") // 7
			if n := u.accepted.Load(); n != 7 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestMuxAllClosed closes all connections of an upstream one after the other while some are in use and others have room: what is
// sent again is not sent on one that is about to end, too.
func TestMuxAllClosed(t *testing.T) {
	const conns = 8
	var came atomic.Int64
	warm := make(chan bool)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		r := c.request()
		if came.Add(1); r == nil {
			return
		}
		<-warm
		c.answer(r.StreamID, smallBody)
		if came.Load() > conns+2 {
			c.serve()
		}
		for c.request() != nil { // none is answered before the end
			came.Add(1)
		}
	})
	g := newMuxGate(t, u.addr, ", http2: { streams: 1 }")
	client := h1Client(t)
	warmed := make(chan bool)
	go func() {
		defer close(warmed)
		g.wants(conns, client, "GET", "/", "", okSmall) // each connection has served
	}()
	eventually(t, "all are there", func() bool { return came.Load() == conns })
	close(warm)
	<-warmed
	ended := make(chan bool)
	go func() {
		defer close(ended)
		g.wants(2, client, "GET", "/", "", okSmall)
	}()
	eventually(t, "two are under way", func() bool { return came.Load() == conns+2 })
	u.mu.Lock()
	all := slices.Clone(u.conns)
	u.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
		time.Sleep(2 * time.Millisecond) // the gateway knows of one end before the next
	}
	<-ended
	if n := u.accepted.Load(); n > conns+2 {
		t.Errorf("%d connections", n)
	}
}
