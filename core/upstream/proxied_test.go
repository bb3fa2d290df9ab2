package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// The bytes are those of the specification's figures, counted by hand.
func TestProxyHeader(t *testing.T) {
	f := func(v ProxyVersion, c core.Client, want string) {
		t.Helper()
		if got := string(appendProxyHeader(nil, v, &core.Exchange{Client: c})); got != want {
			t.Errorf("%+v: got\n%q, want\n%q", c, got, want)
		}
	}
	client := func(peer, addr string) core.Client {
		return core.Client{Peer: netip.MustParseAddrPort(peer), Addr: netip.MustParseAddr(addr)}
	}
	v4, v6 := client("192.0.2.7:4711", "192.0.2.7"), client("[2001:db8::1]:4711", "2001:db8::1")
	f(ProxyV1, v4, "PROXY TCP4 192.0.2.7 0.0.0.0 4711 0\r\n")
	f(ProxyV1, v6, "PROXY TCP6 2001:db8::1 :: 4711 0\r\n")
	f(ProxyV1, client("10.0.0.1:4711", "192.0.2.7"), "PROXY TCP4 192.0.2.7 0.0.0.0 0 0\r\n") // behind a proxy
	f(ProxyV1, client("[fe80::1%eth0]:4711", "fe80::1%eth0"), "PROXY TCP6 fe80::1 :: 4711 0\r\n")
	f(ProxyV1, core.Client{}, "PROXY UNKNOWN\r\n")
	const start = "\r\n\r\n\x00\r\nQUIT\n"
	f(ProxyV2, core.Client{}, start+"\x20\x00\x00\x00")
	f(ProxyV2, core.Client{TLS: &core.TLS{Version: tls.VersionTLS13}}, start+"\x20\x00\x00\x00")
	f(ProxyV2, v4, start+"\x21\x11\x00\x0c\xc0\x00\x02\x07\x00\x00\x00\x00\x12\x67\x00\x00")
	f(ProxyV2, v6, start+"\x21\x21\x00\x24 \x01\x0d\xb8"+strings.Repeat("\x00", 11)+"\x01"+strings.Repeat("\x00", 16)+"\x12\x67\x00\x00")
	const addresses = "\xc0\x00\x02\x07\x00\x00\x00\x00\x12\x67\x00\x00"
	v4.TLS = &core.TLS{Version: tls.VersionTLS13, ServerName: "a.test"}
	f(ProxyV2, v4, start+"\x21\x11\x00\x27"+addresses+"\x02\x00\x06a.test"+"\x20\x00\x0f\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3")
	v4.TLS = &core.TLS{Version: tls.VersionTLS12, ClientCert: []byte(":x:")}
	f(ProxyV2, v4, start+"\x21\x11\x00\x1e"+addresses+"\x20\x00\x0f\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.2")
	v4.TLS.Resumed = true
	f(ProxyV2, v4, start+"\x21\x11\x00\x1e"+addresses+"\x20\x00\x0f\x05\x00\x00\x00\x00\x21\x00\x07TLSv1.2")
	v4.TLS.Identity = &core.Identity{CommonName: "me"}
	f(ProxyV2, v4, start+"\x21\x11\x00\x23"+addresses+"\x20\x00\x14\x05\x00\x00\x00\x00\x21\x00\x07TLSv1.2\x22\x00\x02me")
	v4.TLS.Identity = &core.Identity{CommonName: strings.Repeat("x", 256)} // not a part of it
	f(ProxyV2, v4, start+"\x21\x11\x00\x1e"+addresses+"\x20\x00\x0f\x05\x00\x00\x00\x00\x21\x00\x07TLSv1.2")
	v4.TLS = &core.TLS{ServerName: "a.test"} // passed through
	f(ProxyV2, v4, start+"\x21\x11\x00\x15"+addresses+"\x02\x00\x06a.test")
}

// Both addresses of a header are of one family.
func TestProxyAddressesOfTwoFamilies(t *testing.T) {
	c := core.Client{Addr: netip.MustParseAddr("::ffff:192.0.2.7")}
	if source, destination := proxyAddresses(&c); source.String() != "192.0.2.7:0" || destination.String() != "0.0.0.0:0" {
		t.Errorf("got %s and %s", source, destination)
	}
	if source, _ := proxyAddresses(&core.Client{}); source.IsValid() {
		t.Errorf("nobody is at %s", source)
	}
}

// announced is an endpoint whose connections begin with a line of PROXY; it answers with that line's client.
type announced struct {
	member Member
	mu     sync.Mutex
	lines  []string // of each connection
}

func newAnnounced(t *testing.T) *announced {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &announced{member: memberOf(ln, 1)}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { e.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return e
}

func (e *announced) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	e.mu.Lock()
	e.lines = append(e.lines, line)
	e.mu.Unlock()
	word := strings.Fields(line)
	for {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(word[4]), word[4]); err != nil {
			return
		}
	}
}

func (e *announced) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.lines)
}

func (c *client) port() string {
	_, port, _ := net.SplitHostPort(c.conn.LocalAddr().String())
	return port
}

// A connection that was announced for one client serves his requests and nobody else's.
func TestAnnouncedConnectionsArePrivate(t *testing.T) {
	e := newAnnounced(t)
	set := defaults()
	set.Proxy = ProxyV1
	h := newHost(t, 1, set, e.member)
	clients := []*client{h.dial(0), h.dial(0), h.dial(0)}
	for range 4 {
		for _, c := range clients {
			c.get("/")
			if got := c.answer(200); got != c.port() {
				t.Fatalf("a request of the client at port %s went out as one of port %s", c.port(), got)
			}
		}
	}
	if n := e.connections(); n != 3 {
		t.Errorf("%d connections for three clients", n)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, line := range e.lines {
		_, to, _ := net.SplitHostPort(h.addrs[0])
		if want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %s %s\r\n", clients[i].port(), to); line != want {
			t.Errorf("got %q, want %q", line, want)
		}
	}
}

// What is kept for one client does not keep another from the endpoint, also where there may be but one connection.
func TestAnnouncedConnectionsGiveWay(t *testing.T) {
	e := newAnnounced(t)
	set := defaults()
	set.Proxy, set.MaxConnections = ProxyV1, 1
	h := newHost(t, 1, set, e.member)
	one, two := h.dial(0), h.dial(0)
	for range 3 {
		for _, c := range []*client{one, two} {
			c.get("/")
			if got := c.answer(200); got != c.port() {
				t.Fatalf("got %s", got)
			}
		}
	}
	var work sync.WaitGroup
	for range 8 { // and in a crowd, whose members are given each other's places
		c := h.dial(0)
		work.Go(func() {
			for range 20 {
				_, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(c.reader, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if body, err := io.ReadAll(res.Body); err != nil || string(body) != c.port() {
					t.Errorf("the client at port %s was answered %s, %q, %v", c.port(), res.Status, body, err)
				}
			}
		})
	}
	work.Wait()
	if n := h.upstream.Endpoints()[0].Open(); n > 1 {
		t.Errorf("%d connections are open, where one may be", n)
	}
}

// Connections whose client has gone make room; a full pool keeps those that were used last.
func TestAnnouncedConnectionsOfThoseWhoWent(t *testing.T) {
	e := newAnnounced(t)
	set := defaults()
	set.Proxy, set.IdlePerLoop = ProxyV1, 2
	h := newHost(t, 1, set, e.member)
	ask := func(c *client) {
		c.get("/")
		c.answer(200)
	}
	gone, first, second, third := h.dial(0), h.dial(0), h.dial(0), h.dial(0)
	ask(gone)
	_ = gone.conn.Close()
	h.eventually("the gateway has seen him leave", func() bool {
		ask(first)
		return h.idleOf(e.member) == 1
	})
	ask(second)
	ask(third) // first's is closed for it
	before := e.connections()
	ask(second)
	ask(third)
	if n := e.connections(); n != before {
		t.Error("the connections used last were not kept")
	}
	ask(first)
	if n := e.connections(); n != before+1 {
		t.Errorf("%d connections, want %d", n, before+1)
	}
}

// A reload that turns the header on or off keeps no connection from before.
func TestAnnouncedAfterReload(t *testing.T) {
	e := newAnnounced(t)
	set := defaults()
	set.Proxy = ProxyV1
	h := newHost(t, 1, set, e.member)
	c := h.dial(0)
	c.get("/")
	c.answer(200)
	plain := *set
	plain.Proxy = ProxyNone
	h.upstream.Configure(&plain)
	h.assign(e.member)
	h.eventually("the connection is closed", func() bool { return h.idleOf(e.member) == 0 })
}
