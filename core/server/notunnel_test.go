package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// TestNoTunnelIsNobodysFault shows that clients who ask for WebSockets at an upstream that has none open no breaker, before others.
func TestNoTunnelIsNobodysFault(t *testing.T) {
	u := newScriptedUpstream(t, (*scriptedConn).serve)
	g := newMuxGate(t, u.addr, ", breaker: { consecutive: 2 }")
	for range 5 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != 502 {
			t.Errorf("got %v, %v, want 502", res, err)
		}
		_ = c.Close()
	}
	g.want(h1Client(t), "GET", "/", "", okSmall)
}

// TestWebSocketAnsweredOtherwise has HTTP/1.1 upstreams answer a WebSocket with a page: to a client of HTTP/2 that must not look like the
// tunnel that it asked for (RFC 8441, 5).
func TestWebSocketAnsweredOtherwise(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		if c.h2 && !c.h2up {
			c.wantNoTunnel()
		}
	})
}

// TestWebSocketAnsweredHere is the same of an answer that the gateway makes.
func TestWebSocketAnsweredHere(t *testing.T) {
	g := newGate(t, strings.Replace(muxConfig(`"127.0.0.1:1"`, ""), "to: a }", `respond: { status: 200, body: "a page" } }`, 1))
	c := &combination{gate: g, base: "http://" + g.addr, h2: true}
	c.wantNoTunnel()
}

func (c *combination) wantNoTunnel() {
	c.t.Helper()
	for range 2 {
		r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+"/small", nil)
		if err != nil {
			c.t.Fatal(err)
		}
		r.Header.Set(core.WebSocketKeyField, "dGhlIHNhbXBsZSBub25jZQ==")
		res, err := c.socketClient().Transport.RoundTrip(r)
		if err != nil {
			c.t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 502 {
			c.t.Errorf("got %s, want 502", res.Status)
		}
	}
}
