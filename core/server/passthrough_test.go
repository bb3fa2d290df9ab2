package server

import (
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
	"testing"
	"time"
)

// ends is a server that ends TLS by itself and gives back what it gets, until it gets no more.
type ends struct {
	addr string
	mu   sync.Mutex
	open int
}

func newEnds(t *testing.T, a *authority, names ...string) *ends {
	t.Helper()
	pair, err := cryptotls.X509KeyPair(a.issue(false, names...))
	a.must(err)
	e := &ends{}
	e.addr = serveConns(t, func(c net.Conn) {
		e.count(1)
		defer e.count(-1)
		secured := cryptotls.Server(c, &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}})
		_, _ = io.Copy(secured, secured)
		_ = secured.CloseWrite()
	})
	return e
}

func (e *ends) count(n int) {
	e.mu.Lock()
	e.open += n
	e.mu.Unlock()
}

func (e *ends) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

// passed makes a connection for a name.
func (g *running) passed(a *authority, name string) (*cryptotls.Conn, error) {
	d := &net.Dialer{Timeout: patience}
	c, err := cryptotls.DialWithDialer(d, "tcp", g.addr, &cryptotls.Config{ServerName: name, RootCAs: a.pool})
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		g.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// echoed sends so many bytes and reads them back, with the end of both ways at the end.
func echoed(c *cryptotls.Conn, size int64) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, &pattern{size: size})
		sent <- errors.Join(err, c.CloseWrite())
	}()
	return errors.Join(checkPattern(c, size), <-sent)
}

const passthroughConfig = `
loops: 1
drain: 10s
access_log: { to: FOLDER/access.log }
listeners:
  http: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: DIR/a.pem, key: DIR/a.key }] } }
upstreams: { db: { endpoints: ["DB"]MORE }, wild: ["WILD"], gone: ["127.0.0.1:1"], web: ["WEB"] }
routes:
  - { name: db, match: db.test, passthrough: db }
  - { name: wild, match: "*.wild.test", passthrough: wild }
  - { name: gone, match: gone.test, passthrough: gone }
  - { match: "/*", to: web }
`

func passthroughFile(folder, more string, db, wild *ends, web string) string {
	return strings.NewReplacer("DIR", folder, "DB", db.addr, "WILD", wild.addr, "WEB", web, "MORE", more).Replace(passthroughConfig)
}

// Some names of a listener are passed through, byte for byte and end to end, while the rest are ended at the gateway. Each passage is
// counted and logged once it is over.
func TestPassthrough(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test", "db.test") // the gateway could end it, and does not
	a.put(folder, "a", cert, key)
	db, wild := newEnds(t, a, "db.test"), newEnds(t, a, "x.wild.test", "x.y.wild.test")
	g := run(t, passthroughFile(folder, "", db, wild, mirror(t)))

	for name, size := range map[string]int64{"db.test": 5 << 20, "DB.Test": 1, "x.wild.test": 100_000, "x.y.wild.test": 0} {
		c, err := g.passed(a, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0].DNSNames; len(got) == 2 && got[0] == "a.test" {
			t.Errorf("%s was ended at the gateway", name)
		}
		if err := echoed(c, size); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
	}
	for _, http2 := range []bool{false, true} {
		r, _, err := ask(a.client(g.addr, http2, nil), "https://a.test/", nil)
		if err != nil || r.StatusCode != 200 {
			t.Errorf("a name that is ended here: %v, %v", r, err)
		}
		// The certificate covers db.test, and yet its requests are none of the gateway's.
		q, _ := http.NewRequest("GET", "https://a.test/", nil)
		q.Host = "db.test"
		r, err = a.client(g.addr, http2, nil).Do(q)
		if err != nil || r.StatusCode != 421 {
			t.Fatalf("HTTP/2 %v: a request for a name that is passed through: %v, %v", http2, r, err)
		}
		_ = r.Body.Close()
	}
	if _, err := g.passed(a, "gone.test"); err == nil {
		t.Error("a handshake with nobody")
	}
	var text []byte
	g.eventually("all passages are logged", func() bool {
		text, _ = os.ReadFile(filepath.Join(g.folder, "access.log"))
		return bytes.Count(text, []byte(`"protocol":"TLS"`)) == 5
	})
	line := func(parts ...string) {
		t.Helper()
		for l := range strings.SplitSeq(string(text), "\n") {
			n := 0
			for _, p := range parts {
				if strings.Contains(l, p) {
					n++
				}
			}
			if n == len(parts) {
				return
			}
		}
		t.Errorf("no line has %q\n%s", parts, text)
	}
	line(`"server_name":"db.test"`, `"route":"db"`, `"status":200`, `"endpoint":"`+db.addr, `"listener":"http"`)
	line(`"server_name":"x.wild.test"`, `"route":"wild"`, `"latency":`)
	line(`"server_name":"gone.test"`, `"status":502`, `"reason":"connect_failed"`, `"route":"gone"`)
	metrics, err := g.admin.Metrics()
	a.must(err)
	for _, want := range []string{`sluice_tls_passed_total{listener="http"} 5`, `sluice_route_requests_total{route="wild",code="2xx"} 2`,
		`sluice_route_requests_total{route="gone",code="5xx"} 1`, `sluice_request_duration_seconds_count{route="db"} 0`} {
		if !strings.Contains(string(metrics), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	g.eventually("nothing is left", func() bool { return db.connections()+wild.connections() == 0 })
}

// Open passages outlive a reload that takes their route away, and are waited for in a drain, as other tunnels.
func TestPassthroughOutlivesChange(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	db, wild := newEnds(t, a, "db.test"), newEnds(t, a, "x.wild.test")
	g := run(t, passthroughFile(folder, "", db, wild, mirror(t)))
	one, err := g.passed(a, "db.test")
	a.must(err)
	two, err := g.passed(a, "x.wild.test")
	a.must(err)
	say := func(c *cryptotls.Conn, text string) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	say(one, "before")
	without := passthroughFile(folder, "", db, wild, "127.0.0.1:1")
	without = strings.Replace(without, "  - { name: db, match: db.test, passthrough: db }\n", "", 1)
	without = strings.Replace(without, "db: { endpoints: [\""+db.addr+"\"] }, ", "", 1)
	g.write(without)
	a.must(g.admin.Reload(true))
	say(one, "after a reload")
	say(two, "after a reload")
	if c, err := g.passed(a, "db.test"); err == nil {
		t.Errorf("a new connection is passed through still, to %v", c.ConnectionState().PeerCertificates[0].DNSNames)
	}
	stopped := make(chan struct{})
	go func() {
		g.stop()
		close(stopped)
	}()
	for accepting := true; accepting; { // until the drain has begun
		c, err := net.Dial("tcp", g.addr)
		if accepting = err == nil; accepting {
			_ = c.Close()
			time.Sleep(5 * time.Millisecond) // between two looks
		}
	}
	time.Sleep(200 * time.Millisecond) // longer than the drain leaves idle connections alone
	say(one, "in a drain")
	select {
	case <-stopped:
		t.Fatal("the gateway has ended with open passages")
	default:
	}
	if err := echoed(one, 1<<20); err != nil {
		t.Error(err)
	}
	_, _ = one.Close(), two.Close()
	<-stopped
	if strings.Contains(g.log.String(), "drain ended with open connections") {
		t.Error("the drain did not see the passages end")
	}
}

// A passage in which nothing moves either way ends after the upstream's tunnel timeout, and one in which something moves one way does not.
func TestPassthroughIdles(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	a.must(err)
	defer func() { _ = ln.Close() }()
	g := run(t, passthroughFile(folder, ", timeouts: { tunnel: 1200ms }", &ends{addr: ln.Addr().String()}, &ends{addr: "127.0.0.1:1"}, "127.0.0.1:1"))
	c, err := net.Dial("tcp", g.addr)
	a.must(err)
	defer func() { _ = c.Close() }()
	hello := clientHelloOf(t, "db.test")
	for _, b := range [][]byte{hello[:3], hello[3:9], hello[9:40], hello[40:]} { // as it may come
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // so that it comes in pieces
	}
	up, err := ln.Accept()
	a.must(err)
	defer func() { _ = up.Close() }()
	_ = up.SetDeadline(time.Now().Add(patience))
	_ = c.SetDeadline(time.Now().Add(patience))
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(up, got); err != nil || !bytes.Equal(got, hello) {
		t.Fatalf("got %q, %v, want the ClientHello as it was sent", got, err)
	}
	for range 30 { // 1.5 times the timeout, one way only
		time.Sleep(60 * time.Millisecond)
		if _, err := up.Write([]byte{'.'}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(c, make([]byte, 30)); err != nil {
		t.Fatal(err)
	}
	if n := g.inFlight(); n != 1 {
		t.Errorf("%d are in flight while it is open", n)
	}
	if n := g.metric(`sluice_upstream_tunnels{upstream="db"}`); n != "1" {
		t.Errorf("%q passages are counted", n)
	}
	begun := time.Now()
	if n, err := c.Read(got); n != 0 || err == nil {
		t.Errorf("got %d bytes", n)
	}
	if n, err := up.Read(got); n != 0 || err == nil {
		t.Errorf("got %d bytes", n)
	}
	if took := time.Since(begun); took < time.Second || took > 5*time.Second {
		t.Errorf("it ended after %s of silence", took)
	}
	gone, err := net.Dial("tcp", g.addr) // to an endpoint that takes no connections
	a.must(err)
	defer func() { _ = gone.Close() }()
	if _, err := gone.Write(clientHelloOf(t, "gone.test")); err != nil {
		t.Fatal(err)
	}
	_, _ = gone.Read(got)
	eventually(t, "nothing is in flight", func() bool { return g.inFlight() == 0 })
}

// clientHelloOf gives what a client begins with.
func clientHelloOf(t *testing.T, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		_ = cryptotls.Client(client, &cryptotls.Config{ServerName: name}).Handshake()
		_ = client.Close()
	}()
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	return b[:n]
}

const passOnlyConfig = `
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", tls: { passthrough: true, timeout: 300ms } } }
upstreams: { db: { endpoints: ["DB"], proxy_protocol: v2 } }
routes: [{ match: db.test, passthrough: db }]
`

// A listener that ends no TLS turns away with an alert whom it has no route for, and what is no ClientHello; who says nothing is
// closed in time. All are counted. The upstream learns from a PROXY header who comes, and for what name.
func TestPassthroughOnly(t *testing.T) {
	a := newAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	a.must(err)
	defer func() { _ = ln.Close() }()
	g := run(t, strings.NewReplacer("DB", ln.Addr().String()).Replace(passOnlyConfig))
	answer := func(send string) string {
		t.Helper()
		c, err := net.Dial("tcp", g.addr)
		a.must(err)
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, send)
		b, _ := io.ReadAll(c)
		return string(b)
	}
	const alert = "\x15\x03\x03\x00\x02\x02"
	for send, want := range map[string]string{
		string(clientHelloOf(t, "other.test")): alert + "\x70",
		string(clientHelloOf(t, "192.0.2.1")):  alert + "\x70", // no name at all
		"GET / HTTP/1.1\r\n\r\n":               alert + "\x32",
		"":                                     "",
		"\x16\x03":                             "",
	} {
		if got := answer(send); got != want {
			t.Errorf("%.20q is answered %q, want %q", send, got, want)
		}
	}
	g.eventually("all are counted", func() bool {
		text, err := g.admin.Metrics()
		a.must(err)
		for _, want := range []string{`reason="tls_unknown_name"} 2`, `reason="tls_failed"} 1`, `reason="tls_timeout"} 2`} {
			if !strings.Contains(string(text), `sluice_connections_rejected_total{listener="http",`+want) {
				return false
			}
		}
		return true
	})
	c, err := net.Dial("tcp", g.addr)
	a.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Write(clientHelloOf(t, "db.test"))
	a.must(err)
	up, err := ln.Accept()
	a.must(err)
	defer func() { _ = up.Close() }()
	_ = up.SetDeadline(time.Now().Add(patience))
	got, err := readAnnouncement(up)
	if err != nil || got.source != c.LocalAddr().String() || got.destination != g.addr || string(got.tlvs[0x02]) != "db.test" || got.tlvs[0x20] != nil {
		t.Errorf("%+v, %v", got, err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(up, b); err != nil || b[0] != 22 {
		t.Errorf("the header is followed by %q, %v", b, err)
	}
}

// A reset on one side is passed on to the other.
func TestPassthroughReset(t *testing.T) {
	a := newAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	a.must(err)
	defer func() { _ = ln.Close() }()
	g := run(t, strings.NewReplacer("DB", ln.Addr().String(), ", proxy_protocol: v2", "").Replace(passOnlyConfig))
	hello := clientHelloOf(t, "db.test")
	for _, client := range []bool{true, false} {
		c, err := net.Dial("tcp", g.addr)
		a.must(err)
		_, err = c.Write(hello)
		a.must(err)
		up, err := ln.Accept()
		a.must(err)
		if _, err := io.ReadFull(up, make([]byte, len(hello))); err != nil {
			t.Fatal(err)
		}
		one, other := c.(*net.TCPConn), up.(*net.TCPConn)
		if !client {
			one, other = other, one
		}
		_ = one.SetLinger(0)
		_ = one.Close()
		_ = other.SetDeadline(time.Now().Add(patience))
		if n, err := other.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("client %v: %d bytes, %v", client, n, err)
		}
		g.eventually("nothing is left, although the other side has not closed", func() bool {
			text, err := g.admin.Metrics()
			a.must(err)
			return strings.Contains(string(text), fmt.Sprintf("sluice_upstream_connections{upstream=\"db\",endpoint=%q} 0\n", ln.Addr()))
		})
		_ = other.Close()
	}
}
