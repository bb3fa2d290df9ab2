package listen

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

func encrypted(t *testing.T, timeout time.Duration, handshakes int) Settings {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &cryptotls.Config{Certificates: []cryptotls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}
	s := settings(nil)
	s.TLS = &TLS{Config: config, Timeout: timeout, Handshakes: handshakes}
	return s
}

func trusting() *cryptotls.Config {
	return &cryptotls.Config{ServerName: "test", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
}

// A client that shakes hands gets to the protocol, with and without a PROXY header before, in one packet with it or not.
func TestTLSToTheProtocol(t *testing.T) {
	for _, proxied := range []bool{false, true} {
		s := encrypted(t, 5*time.Second, 0)
		if proxied {
			s.Proxies = NewNetworks([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
		}
		h := newHost(t, 1, s)
		at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
		for range 2 {
			raw, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			conn := raw
			if proxied {
				conn = &withHeader{Conn: raw, header: []byte("PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n")}
			}
			c := cryptotls.Client(conn, trusting())
			want := bytes.Repeat([]byte("0123456789"), 5000)
			go c.Write(want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("echo through TLS: %v", err)
			}
			if p := h.peers.Load(); proxied != (p.Addr() == netip.MustParseAddr("192.0.2.7")) {
				t.Errorf("the protocol was told of %v", p)
			}
			c.Close()
		}
		h.await("two handshakes, none open", func(c Counters) bool { return c.Handshakes == 2 && c.Handshaking == 0 && c.Open == 0 })
	}
}

// withHeader sends a header in the packet of the first write.
type withHeader struct {
	net.Conn
	header []byte
}

func (w *withHeader) Write(p []byte) (int, error) {
	if w.header == nil {
		return w.Conn.Write(p)
	}
	_, err := w.Conn.Write(append(w.header, p...))
	w.header = nil
	return len(p), err
}

// A connection that agreed on the protocol of a challenge ends with its handshake: no HTTP is spoken on it.
func TestTLSChallengeEnds(t *testing.T) {
	s := encrypted(t, 5*time.Second, 0)
	s.TLS.Config.NextProtos = []string{"acme-tls/1"}
	h := newHost(t, 1, s)
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	client := trusting()
	client.NextProtos = []string{"acme-tls/1"}
	c, err := cryptotls.Dial("tcp", at.String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes: %v", n, err)
	}
	h.await("a handshake, and nothing open", func(c Counters) bool { return c.Handshakes == 1 && c.Handshaking == 0 && c.Open == 0 })
}

// Those who are silent, slow or wrong are counted by reason, and do not keep others out for longer than their time.
func TestTLSRefusals(t *testing.T) {
	h := newHost(t, 1, encrypted(t, 300*time.Millisecond, 3))
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	var conns []net.Conn
	for range 3 { // silent, in the middle, and still more than may be
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	conns[1].Write([]byte("\x16\x03\x01\x02\x00\x01"))
	h.await("three in their handshake", func(c Counters) bool { return c.Handshaking == 3 })
	if fourth, err := net.Dial("tcp", at.String()); err == nil { // the reset may come before Dial is done
		defer fourth.Close()
	}
	h.await("a fourth is refused", func(c Counters) bool { return c.Refused[OverHandshakes] == 1 })
	h.await("all three are too late", func(c Counters) bool { return c.Refused[LateHandshake] == 3 && c.Open == 0 && c.Handshaking == 0 })
	plain, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	plain.Write([]byte("GET / HTTP/1.1\r\nHost: test\r\n\r\n"))
	h.await("what is no handshake is refused", func(c Counters) bool { return c.Refused[BadHandshake] == 1 && c.Open == 0 })
	for _, c := range append(conns, plain) {
		c.Close()
	}
}

// The protocol of a plain connection is what its first bytes say, however they come.
func TestPreface(t *testing.T) {
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n": "decided", "P": "", "PR": "", "PO": "decided", "PRI * HTTP/2.0\r\n": "", core.HTTP2Preface: "http2", core.HTTP2Preface + "x": "http2",
		"PRI * HTTP/1.1\r\n": "decided", "": "",
	} {
		http2, decided := prefaceOf([]byte(in))
		if decided != (want != "") || http2 != (want == "http2") {
			t.Errorf("%q: HTTP/2 %v, decided %v", in, http2, decided)
		}
	}
	s := settings(nil)
	s.H1, s.H2C = true, true
	h := newHost(t, 1, s)
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range len(core.HTTP2Preface) {
		c.Write([]byte(core.HTTP2Preface[i : i+1]))
	}
	got := make([]byte, len(core.HTTP2Preface))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != core.HTTP2Preface {
		t.Fatalf("%q, %v", got, err)
	}
}

// However many handshakes come at once, each turn begins a few, and all come to their end.
func TestTLSHandshakesTakeTurns(t *testing.T) {
	var r ration
	for turn := range int64(3) {
		begun := 0
		for range 5 * turnHandshakes {
			if r.take(turn + 1) {
				begun++
			}
		}
		if begun != turnHandshakes {
			t.Errorf("%d handshakes in a turn, want %d", begun, turnHandshakes)
		}
	}
	h := newHost(t, 1, encrypted(t, 10*time.Second, 0))
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	const clients = 10 * turnHandshakes
	done := make(chan error, clients)
	for range clients {
		go func() {
			c, err := cryptotls.Dial("tcp", at.String(), trusting())
			if err == nil {
				err = c.Close()
			}
			done <- err
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	h.await("all have shaken hands", func(c Counters) bool { return c.Handshakes == clients && c.Handshaking == 0 })
}

// What comes faster than the rate is refused, and after a pause as many come through again.
func TestTLSHandshakeRate(t *testing.T) {
	var r rate
	count := func(now int64) (n int) {
		for range 100 {
			if r.take(now, 10) {
				n++
			}
		}
		return n
	}
	const start = int64(time.Hour)
	if n := count(start); n != 10 {
		t.Errorf("%d taken at once, want 10", n)
	}
	if n := count(start + int64(time.Second)/2); n != 5 {
		t.Errorf("%d taken after half a second, want 5", n)
	}
	if n := count(start + 10*int64(time.Second)); n != 10 {
		t.Errorf("%d taken after a pause, want 10", n)
	}
	s := encrypted(t, 5*time.Second, 0)
	s.TLS.Rate = 2
	h := newHost(t, 1, s)
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	for range 6 {
		if c, err := net.Dial("tcp", at.String()); err == nil {
			defer c.Close()
		}
	}
	h.await("most are refused", func(c Counters) bool { return c.Refused[OverHandshakeRate] >= 3 && c.Open >= 2 })
}

// A handshake that is under way when the listener stops to be encrypted is finished as it began.
func TestTLSTakenAwayInAHandshake(t *testing.T) {
	h := newHost(t, 1, encrypted(t, 5*time.Second, 0))
	at := h.listen(Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr()
	raw, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	held := &heldBack{Conn: raw, goOn: make(chan struct{})}
	c := cryptotls.Client(held, trusting())
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		if _, err := c.Write([]byte("x")); err != nil {
			done <- err
			return
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		done <- err
	}()
	h.await("the handshake has begun", func(c Counters) bool { return c.Handshaking == 1 })
	time.Sleep(20 * time.Millisecond) // so that the first bytes are there
	h.do(0, func(p *Port) { p.Configure(settings(nil)) })
	close(held.goOn)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the handshake came to %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the handshake comes to nothing")
	}
}

// heldBack sends the first byte at once and waits with the others.
type heldBack struct {
	net.Conn
	begun bool
	goOn  chan struct{}
}

func (b *heldBack) Write(p []byte) (int, error) {
	if b.begun {
		return b.Conn.Write(p)
	}
	b.begun = true
	if _, err := b.Conn.Write(p[:1]); err != nil {
		return 0, err
	}
	<-b.goOn
	n, err := b.Conn.Write(p[1:])
	return n + 1, err
}
