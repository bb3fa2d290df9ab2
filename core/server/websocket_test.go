package server

import (
	"bytes"
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// echoing answers every message with itself, until the client ends.
func echoing(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"echo"}})
	if err != nil {
		return
	}
	c.SetReadLimit(-1)
	defer c.CloseNow()
	for {
		kind, m, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, m) != nil {
			return
		}
	}
}

// WebSockets come through, encrypted or not on either side, with messages of all sizes both ways, and end when a side does.
func TestWebSocket(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	plain := httptest.NewServer(http.HandlerFunc(echoing))
	defer plain.Close()
	for _, inside := range []bool{false, true} {
		upstream, upstreamTLS := strings.TrimPrefix(plain.URL, "http://"), ""
		if inside {
			u := newSecureUpstream(t, a, "up.test")
			u.Config.Handler = http.HandlerFunc(echoing)
			upstream, upstreamTLS = strings.TrimPrefix(u.URL, "https://"), ", tls: { ca: "+folder+"/ca.pem, server_name: up.test }"
		}
		for _, outside := range []bool{false, true} {
			scheme, listenerTLS := "ws", ""
			if outside {
				scheme, listenerTLS = "wss", ", tls: { certificates: [{ cert: "+folder+"/a.pem, key: "+folder+"/a.key }] }"
			}
			g := run(t, `
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0"`+listenerTLS+` } }
upstreams: { up: { endpoints: ["`+upstream+`"]`+upstreamTLS+` } }
routes: [{ match: "/*", to: up }]
`)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			c, _, err := websocket.Dial(ctx, scheme+"://a.test/", &websocket.DialOptions{HTTPClient: a.client(g.addr, false, nil), Subprotocols: []string{"echo"}})
			if err != nil {
				t.Fatal(err)
			}
			c.SetReadLimit(-1)
			if c.Subprotocol() != "echo" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			for _, size := range []int{0, 1, 125, 126, 70_000, 2 << 20} {
				m := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]
				sent := make(chan error, 1)
				go func() { sent <- c.Write(ctx, websocket.MessageBinary, m) }()
				_, got, err := c.Read(ctx)
				if e := <-sent; err != nil || e != nil || !bytes.Equal(got, m) {
					t.Fatalf("TLS outside %v, inside %v: message of %d: %d came back, %v, %v", outside, inside, size, len(got), err, e)
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("TLS outside %v, inside %v: close: %v", outside, inside, err)
			}
			cancel()
			g.eventually("the connection is closed", func() bool { return g.status().Listeners[0].Connections == 0 })
			g.stop()
		}
	}
}
