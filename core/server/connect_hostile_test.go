package server

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// newConnectGate is a gateway on one loop whose upstream of HTTP/2 is scripted. When the test is over, nothing may be left of what it has
// done.
func newConnectGate(t *testing.T, u *scriptedUpstream, more string) *gate {
	t.Helper()
	g := newGate(t, strings.Replace(connectConfig(u.addr, more+", protocol: h2c"), "loops: 2", "loops: 1", 1))
	t.Cleanup(func() {
		g.settled()
		eventually(t, "no tunnel is left", func() bool { return g.tunnels() == 0 && g.counters().Streams == 0 })
	})
	return g
}

// bothClients runs f with a client of either protocol.
func bothClients(t *testing.T, name string, f func(t *testing.T, h2 bool)) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("%s/h2=%v", name, h2), func(t *testing.T) { f(t, h2) })
	}
}

// until reads the DATA of a stream up to its end, and gives it with how it ended.
func (c *scriptedConn) until(id uint32) (text, how string) {
	for {
		switch f := c.next().(type) {
		case nil:
			return text, "gone"
		case *xhttp2.RSTStreamFrame:
			if f.StreamID == id {
				return text, f.ErrCode.String()
			}
		case *xhttp2.DataFrame:
			if f.StreamID != id {
				continue
			}
			text += string(f.Data())
			if f.StreamEnded() {
				return text, "end"
			}
		}
	}
}

// TestConnectHead: to the upstream goes what RFC 9113, 8.5, lets be there, and nothing that measures the tunnel.
func TestConnectHead(t *testing.T) {
	bothClients(t, "asks", func(t *testing.T, h2 bool) {
		heads := make(chan *xhttp2.MetaHeadersFrame, 1)
		g := newConnectGate(t, newScriptedUpstream(t, func(c *scriptedConn) {
			if r := c.request(); r != nil {
				heads <- r
				c.headers(r.StreamID, true, ":status", "403")
				c.rest()
			}
		}), "")
		if c, err := g.connect(h2, "a.example:443"); err != nil || c.answer.StatusCode != 403 {
			t.Fatal(c, err)
		}
		r := <-heads
		var pseudo []string
		for _, f := range r.Fields {
			switch {
			case f.IsPseudo():
				pseudo = append(pseudo, f.Name+" "+f.Value)
			case slices.Contains([]string{"te", "content-length", "upgrade", "connection", "host", "sec-websocket-key"}, f.Name):
				t.Errorf("%s: %s", f.Name, f.Value)
			}
		}
		if want := []string{":method CONNECT", ":authority a.example:443"}; !slices.Equal(pseudo, want) || r.StreamEnded() {
			t.Errorf("%q, ended %v", pseudo, r.StreamEnded())
		}
	})
}

// TestConnectAnswers: what opens a tunnel, whatever else it says, and what does not.
func TestConnectAnswers(t *testing.T) {
	for _, k := range []struct {
		name   string
		answer func(c *scriptedConn, id uint32)
		then   func(c *scriptedConn, id uint32) // when the client has the answer; nil: nothing
		status int
		text   string // that comes to the client
		how    string // it ends for the client
		sent   string // that comes to the upstream
		ended  string // how it ends there
	}{
		{"200 with a length", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "3")
			_ = c.framer.WriteData(id, true, []byte("longer"))
		}, nil, 200, "longer", "end", "hello", "end"},
		{"200 that ends at once", func(c *scriptedConn, id uint32) { c.headers(id, true, ":status", "200", "content-length", "3") }, nil, 200, "", "end", "hello", "end"},
		{"hints before it", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "103", "link", "</x>")
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteData(id, true, []byte("text"))
		}, nil, 200, "text", "end", "hello", "end"},
		{"trailers", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteData(id, false, []byte("text"))
		}, func(c *scriptedConn, id uint32) { c.headers(id, true, "x-sum", "1") }, 200, "text", "reset", "", "PROTOCOL_ERROR"},
		{"another head", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteData(id, false, []byte("text"))
		}, func(c *scriptedConn, id uint32) { c.headers(id, false, ":status", "200") }, 200, "text", "reset", "", "PROTOCOL_ERROR"},
		{"a reset", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteData(id, false, []byte("text"))
		}, func(c *scriptedConn, id uint32) { _ = c.framer.WriteRSTStream(id, xhttp2.ErrCodeConnect) }, 200, "text", "reset", "", ""},
		{"the connection's end", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteData(id, false, []byte("text"))
		}, func(c *scriptedConn, id uint32) { _ = c.conn.Close() }, 200, "text", "reset", "", ""},
		{"GOAWAY", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			_ = c.framer.WriteGoAway(id, xhttp2.ErrCodeNo, nil)
			_ = c.framer.WriteData(id, true, []byte("text"))
		}, nil, 200, "text", "end", "hello", "end"},
		{"DATA before the head", func(c *scriptedConn, id uint32) { _ = c.framer.WriteData(id, false, []byte("text")) }, nil, 502, "", "", "", ""},
		{"101", func(c *scriptedConn, id uint32) { c.headers(id, false, ":status", "101") }, nil, 502, "", "", "", ""},
		{"reset instead", func(c *scriptedConn, id uint32) { _ = c.framer.WriteRSTStream(id, xhttp2.ErrCodeConnect) }, nil, 502, "", "", "", ""},
		{"refused", func(c *scriptedConn, id uint32) {
			if c.number == 1 && id == 1 {
				_ = c.framer.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream)
				return
			}
			c.answer(id, "text")
		}, nil, 200, "text", "end", "hello", "end"},
		{"407 with a body", func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "407")
			_ = c.framer.WriteData(id, false, []byte("who?"))
			c.headers(id, true, "x-sum", "1")
		}, nil, 407, "who?", "", "", ""},
	} {
		bothClients(t, k.name, func(t *testing.T, h2 bool) {
			type ending struct{ text, how string }
			endings, opened := make(chan ending, 1), make(chan struct{})
			g := newConnectGate(t, newScriptedUpstream(t, func(c *scriptedConn) {
				for r := c.request(); r != nil; r = c.request() {
					k.answer(c, r.StreamID)
					if k.then != nil {
						<-opened
						k.then(c, r.StreamID)
					}
					if k.ended != "" && (k.name != "refused" || r.StreamID > 1) {
						text, how := c.until(r.StreamID)
						endings <- ending{text, how}
					}
				}
			}), "")
			c, err := g.connect(h2, "a.example:443")
			close(opened)
			if err != nil || c.answer.StatusCode != k.status {
				t.Fatal(c, err)
			}
			switch {
			case k.how == "" && k.status != 502:
				if b, err := io.ReadAll(c.answer.Body); string(b) != k.text || err != nil {
					t.Errorf("refused with %q, %v", b, err)
				}
				return
			case k.how == "":
				return
			case c.answer.Header.Get("Content-Length") != "":
				t.Error("the tunnel has a length")
			}
			if k.sent != "" {
				_, _ = io.WriteString(c, k.sent)
				_ = c.closeWrite()
			}
			text, how := c.fate()
			if text != k.text && !strings.HasPrefix(k.text, text) || how != k.how {
				t.Errorf("the client got %q and %s", text, how)
			}
			if k.ended != "" {
				if e := <-endings; e.text != k.sent || e.how != k.ended {
					t.Errorf("the upstream got %q and %s", e.text, e.how)
				}
			}
		})
	}
}

// TestConnectClientBreaksOff: a client that resets its tunnel, or sends what has no place in it, has the upstream's stream reset.
func TestConnectClientBreaksOff(t *testing.T) {
	run := func(name string, breakOff func(g *gate, opened func())) {
		t.Run(name, func(t *testing.T) {
			endings := make(chan string, 1)
			opened := make(chan struct{})
			g := newConnectGate(t, newScriptedUpstream(t, func(c *scriptedConn) {
				if r := c.request(); r != nil {
					c.headers(r.StreamID, false, ":status", "200")
					<-opened
					_, how := c.until(r.StreamID)
					endings <- how
					c.rest()
				}
			}), "")
			breakOff(g, func() { close(opened) })
			if how := <-endings; how != "CANCEL" {
				t.Errorf("the upstream is told %s", how)
			}
		})
	}
	for _, h2 := range []bool{false, true} {
		run(fmt.Sprintf("aborts/h2=%v", h2), func(g *gate, opened func()) {
			c, err := g.connect(h2, "a.example:443")
			opened()
			if err != nil {
				g.t.Fatal(err)
			}
			c.abort()
		})
	}
	run("trailers", func(g *gate, opened func()) {
		c := dialRawH2(g.t, g.addr)
		_ = c.headers(1, false, ":method", "CONNECT", ":authority", "a.example:443")
		opened()
		eventually(g.t, "it is a tunnel", func() bool { return g.tunnels() == 1 })
		_ = c.headers(1, true, "x-sum", "1")
		if got, err := c.outcome(1); got != "reset PROTOCOL_ERROR" {
			g.t.Errorf("%q, %v", got, err)
		}
	})
}

// TestConnectWindow: an upstream that takes nothing holds a tunnel for as long as it may be idle, and no more of the client's bytes than
// its window and the gateway's buffers.
func TestConnectWindow(t *testing.T) {
	bothClients(t, "takes nothing", func(t *testing.T, h2 bool) {
		g := newConnectGate(t, newScriptedUpstream(t, func(c *scriptedConn) {
			if r := c.request(); r != nil {
				c.headers(r.StreamID, false, ":status", "200")
				if text, _ := c.until(r.StreamID); len(text) != 1<<16-1 {
					t.Errorf("%d bytes came through a window of 65535", len(text))
				}
				c.rest()
			}
		}), ", timeouts: { tunnel: 300ms }")
		c, err := g.connect(h2, "a.example:443")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		go func() { _, _ = c.Write(make([]byte, 64<<20)) }()
		if _, how := c.fate(); how == "end" && h2 || time.Since(begun) < 300*time.Millisecond {
			t.Errorf("it ended with %s after %v", how, time.Since(begun))
		}
	})
}

// TestConnectLastWords: what an upstream has said before it went arrives whole, though what the client sends meanwhile is lost.
func TestConnectLastWords(t *testing.T) {
	const size = 60_000
	gone, early := make(chan struct{}), 0
	g := newConnectGate(t, newScriptedUpstream(t, func(c *scriptedConn) {
		if r := c.request(); r != nil {
			c.headers(r.StreamID, false, ":status", "200")
			for sent := 0; sent < size; sent += 15_000 {
				_ = c.framer.WriteData(r.StreamID, sent+15_000 == size, make([]byte, 15_000))
			}
			_ = c.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeNo)
			_ = c.framer.WritePing(false, [8]byte{})
			c.acknowledged()
			close(gone)
			c.rest()
		}
	}), "")
	c := dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
	_ = c.headers(1, false, ":method", "CONNECT", ":authority", "a.example:443")
	<-gone // and the gateway has taken note of it
	_ = c.framer.WriteData(1, false, []byte("to nobody"))
	_ = c.framer.WritePing(false, [8]byte{})
	for f, err := c.framer.ReadFrame(); ; f, err = c.framer.ReadFrame() {
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := f.(*xhttp2.PingFrame); ok && p.IsAck() { // what came before it was relayed, and found nobody
			break
		}
		if d, ok := f.(*xhttp2.DataFrame); ok {
			early += len(d.Data())
		}
	}
	_ = c.framer.WriteWindowUpdate(1, 1<<20)
	if got, err := c.outcome(1); got != fmt.Sprint(" ", size-early) {
		t.Errorf("%q, %v after %d bytes", got, err, early)
	}
}

// acknowledged waits for the answer to a PING.
func (c *scriptedConn) acknowledged() {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		if p, ok := f.(*xhttp2.PingFrame); ok && p.IsAck() {
			return
		}
	}
}

// TestConnectPool: a tunnel takes a stream of those that a connection may have, and the place of a request as long as it lasts.
func TestConnectPool(t *testing.T) {
	bothClients(t, "one stream, one connection", func(t *testing.T, h2 bool) {
		u := newScriptedUpstream(t, func(c *scriptedConn) {
			for r := c.request(); r != nil; r = c.request() {
				c.headers(r.StreamID, false, ":status", "200")
				if _, how := c.until(r.StreamID); how != "end" {
					t.Errorf("ended with %s", how)
				}
				_ = c.framer.WriteData(r.StreamID, true, nil)
			}
		})
		g := newConnectGate(t, u, ", http2: { streams: 1 }, pool: { max_connections: 1, max_pending: 1, queue_timeout: 10s }")
		first, err := g.connect(h2, "a.example:443")
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan *connected, 1)
		go func() {
			c, err := g.connect(h2, "a.example:443")
			if err != nil {
				t.Error(err)
			}
			second <- c
		}()
		pending := func() int { return g.state.Load().compiled.Upstreams[0].Pending() }
		eventually(t, "the second waits", func() bool { return pending() == 1 })
		if c, err := g.connect(h2, "a.example:443"); err != nil || c.answer.StatusCode != 503 {
			t.Errorf("the third: %v, %v", c, err)
		}
		_ = first.closeWrite()
		if _, how := first.fate(); how != "end" {
			t.Error(how)
		}
		if c := <-second; c != nil {
			_ = c.closeWrite()
			if _, how := c.fate(); how != "end" {
				t.Error(how)
			}
		}
		if n := u.accepted.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}
