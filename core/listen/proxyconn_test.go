package listen

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// behind gives settings that want a PROXY header from the networks.
func behind(change func(l *core.Listener), from ...string) Settings {
	s := settings(change)
	s.Proxies = networks(from...)
	return s
}

const proxyLine = "PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n"

func TestProxyHeader(t *testing.T) {
	h := newHost(t, 2, behind(nil, "127.0.0.0/8"))
	s := h.listen(bindTo("127.0.0.1:0"))
	// f sends the parts with a pause after each, and expects the answer early and the client's address.
	f := func(client, answer string, parts ...string) {
		t.Helper()
		c := dial(t, s)
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				t.Fatal(err)
			}
			if len(parts) > 1 {
				time.Sleep(2 * time.Millisecond) // so that it comes by itself
			}
		}
		if err := heard(c, answer); err != nil {
			t.Fatalf("%q: %v", parts, err)
		}
		if err := said(c, "and on"); err != nil {
			t.Fatalf("%q: %v", parts, err)
		}
		if client == "" {
			client = c.LocalAddr().String()
		}
		if got := h.peers.Load().String(); got != client {
			t.Errorf("%q: the client is %s, want %s", parts, got, client)
		}
	}
	two := block(0x21, 0x21, addresses("2001:db8::9", "::1", 4, 0, 1, 'x'))
	big := block(0x21, 0x11, addresses("203.0.113.9", "198.51.100.1", make([]byte, maxProxyBlock-12)...))
	f("203.0.113.7:56324", "early", proxyLine+"early")
	f("203.0.113.7:56324", "early", proxyLine, "early")
	f("203.0.113.7:56324", "early", strings.SplitAfter(proxyLine+"early", "")...)
	f("[2001:db8::9]:50000", "early", two+"early")
	f("[2001:db8::9]:50000", "early", two[:13], two[13:], "early")
	f("203.0.113.9:50000", "early", big+"early")
	f("203.0.113.9:50000", "early", big, "early")
	long := strings.Repeat("0123456789", 2000) // more than is read at once
	f("203.0.113.7:56324", long, proxyLine+long)
	f("", "early", block(0x20, 0, nil)+"early")
	f("", "early", "PROXY UNKNOWN\r\nearly")

	// A header, and the client's end at once: the protocol sees the end.
	c := dial(t, s)
	if _, err := io.WriteString(c, proxyLine); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, want the end", err)
	}
	sum, _ := h.counters()
	if sum.Refused != (Counters{}).Refused {
		t.Errorf("refused %v", sum.Refused)
	}
}

func TestProxyHeaderRefused(t *testing.T) {
	h := newHost(t, 1, behind(func(l *core.Listener) { l.HeaderTimeout = 60 * time.Millisecond }, "127.0.0.1/32"))
	s := h.listen(bindTo("127.0.0.1:0"))
	// f expects that a connection from local with these bytes is closed unanswered, and counted.
	f := func(local, text string, end bool, reason Reason, counted uint64) {
		t.Helper()
		before, _ := h.counters()
		c, err := dialFrom(t, s, local)
		if err == nil {
			if _, err = io.WriteString(c, text); err == nil {
				if end {
					_ = c.(*net.TCPConn).CloseWrite()
				}
				_, err = c.Read(make([]byte, 1))
			}
		}
		if !refused(err) {
			t.Errorf("%q from %s: %v", text, local, err)
		}
		h.await("the connection's end", func(c Counters) bool { return c.Open == 0 })
		after, _ := h.counters()
		for r := range after.Refused {
			want := uint64(0)
			if Reason(r) == reason {
				want = counted
			}
			if n := after.Refused[r] - before.Refused[r]; n != want {
				t.Errorf("%q from %s: %s counted %d, want %d", text, local, Reason(r), n, want)
			}
		}
	}
	f("127.0.0.2", proxyLine, false, UnknownProxy, 1)
	f("127.0.0.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, BadProxyHeader, 1)
	f("127.0.0.1", "PROXY TCP4 nonsense\r\n", false, BadProxyHeader, 1)
	f("127.0.0.1", proxyLine[:20], true, BadProxyHeader, 1)
	f("127.0.0.1", proxyLine[:20], false, LateProxyHeader, 1)
	f("127.0.0.1", "", false, LateProxyHeader, 1)
	f("127.0.0.1", "", true, LateProxyHeader, 0) // a load balancer's check
	if h.born.Load() != 0 {
		t.Errorf("%d came to the protocol", h.born.Load())
	}
}

// A trickle of bytes does not move the header's deadline.
func TestProxyHeaderDeadlineIsOne(t *testing.T) {
	h := newHost(t, 1, behind(func(l *core.Listener) { l.HeaderTimeout = 100 * time.Millisecond }, "127.0.0.1/32"))
	c := dial(t, h.listen(bindTo("127.0.0.1:0")))
	refused := func() bool { c, _ := h.counters(); return c.Refused[LateProxyHeader] == 1 }
	for i := 0; !refused(); i++ { // each byte before the last one's time is over
		if i == len(proxyLine) {
			t.Fatal("the trickle went on to its end")
		}
		if _, err := io.WriteString(c, proxyLine[i:i+1]); err != nil {
			break
		}
		time.Sleep(30 * time.Millisecond)
	}
	h.await("late", func(c Counters) bool { return c.Refused[LateProxyHeader] == 1 && c.Open == 0 })
}

// The cap per client counts the clients that the headers name, not the proxy.
func TestProxyClientsAreCapped(t *testing.T) {
	h := newHost(t, 2, behind(func(l *core.Listener) { l.ConnectionsPerIP = 2 }, "127.0.0.0/8"))
	s := h.listen(bindTo("127.0.0.1:0"))
	from := func(client string) net.Conn {
		t.Helper()
		c := dial(t, s)
		err := said(&prefixed{c, "PROXY TCP4 " + client + " 198.51.100.1 1 2\r\n"}, "hello")
		if err == nil {
			return c
		}
		if !refused(err) {
			t.Error(err)
		}
		return nil
	}
	a, b := from("203.0.113.1"), from("203.0.113.1")
	if a == nil || b == nil || from("203.0.113.1") != nil {
		t.Error("the cap of the first client is not 2")
	}
	c, d := from("203.0.113.2"), from("203.0.113.2")
	if c == nil || d == nil || from("203.0.113.2") != nil {
		t.Error("the cap of the second client is not 2")
	}
	_ = a.Close()
	h.await("room after closing", func(c Counters) bool { return c.Open == 3 })
	if from("203.0.113.1") == nil {
		t.Error("no room after closing")
	}
	if sum, _ := h.counters(); sum.Refused[OverConnectionsPerIP] != 2 {
		t.Errorf("refused %v", sum.Refused)
	}
}

// prefixed sends something before the first write.
type prefixed struct {
	net.Conn
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	b = append([]byte(p.prefix), b...)
	p.prefix = ""
	return p.Conn.Write(b)
}

func TestProxyOverUnixSocket(t *testing.T) {
	for from, want := range map[string]bool{"127.0.0.1/32": true, "10.0.0.0/8": false} {
		h := newHost(t, 1, behind(nil, from))
		c := dial(t, h.listen(Bind{Path: filepath.Join(t.TempDir(), "s")}))
		err := said(&prefixed{c, proxyLine}, "hello")
		if (err == nil) != want || err != nil && !refused(err) {
			t.Errorf("a peer on a unix socket, header wanted from %s: %v", from, err)
		}
	}
}

// A drain closes those who have not sent their header, and those whose header comes after it.
func TestProxyDrain(t *testing.T) {
	h := newHost(t, 1, behind(nil, "127.0.0.0/8"))
	s := h.listen(bindTo("127.0.0.1:0"))
	silent, partial := dial(t, s), dial(t, s)
	if _, err := io.WriteString(partial, proxyLine[:10]); err != nil {
		t.Fatal(err)
	}
	h.await("both", func(c Counters) bool { return c.Open == 2 })
	h.do(0, func(p *Port) { p.Drain() })
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want the end", err)
	}
	if _, err := io.WriteString(partial, proxyLine[10:]); err != nil {
		t.Fatal(err)
	}
	if _, err := partial.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want the end", err)
	}
	h.await("drained", func(c Counters) bool { return c.Open == 0 })
	if sum, _ := h.counters(); sum.Refused != (Counters{}).Refused {
		t.Errorf("refused %v", sum.Refused)
	}
}
