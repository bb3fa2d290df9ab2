package server

import (
	cryptotls "crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestClientGone shows that a client of HTTP/1.1 that leaves frees the upstream at once, whatever that is doing for it.
func TestClientGone(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.example")
	a.put(folder, "a", cert, key)
	for name, settings := range map[string]string{"plain": "", "TLS": "tls: { certificates: [{ cert: " + folder + "/a.pem, key: " + folder + "/a.key }] }\n    "} {
		for state, request := range map[string]string{
			"waiting":     "GET /hold HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"downloading": "GET /download/100000000 HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"uploading":   "POST /whole HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("x", 100),
		} {
			t.Run(name+"/"+state, func(t *testing.T) { testClientGone(t, settings, request) })
		}
	}
}

// testClientGone gives a shared machine ten chances to be in time.
func testClientGone(t *testing.T, settings, request string) {
	u := newManyUpstream(t)
	g := newGate(t, strings.Replace(h2Config(u.addr, "[h1]"), "protocols:", settings+"protocols:", 1))
	for try := 1; ; try++ {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		client := conn
		if settings != "" {
			client = cryptotls.Client(conn, &cryptotls.Config{InsecureSkipVerify: true, ServerName: "a.example"})
		}
		seen := u.seen.Load()
		if _, err := io.WriteString(client, request); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upstream works", func() bool { return u.seen.Load() > seen && g.upstreams() == 1 && g.active() == 1 })
		start := time.Now()
		_ = conn.Close()
		eventually(t, "the upstream is free", func() bool { return g.upstreams() == 0 })
		took := time.Since(start)
		eventually(t, "the exchange has ended", func() bool { return g.active() == 0 })
		if took <= freed {
			return
		}
		if try == 10 {
			t.Fatalf("the upstream was freed after %v", took)
		}
	}
}
