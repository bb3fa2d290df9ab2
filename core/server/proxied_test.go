package server

import (
	"bufio"
	"bytes"
	cryptotls "crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// announcement is what a PROXY header of version 2 says.
type announcement struct {
	source, destination string
	tlvs                map[byte][]byte
}

// readAnnouncement reads a header by the letter of proxy-protocol.txt, 2.2.
func readAnnouncement(r io.Reader) (a announcement, err error) {
	head := make([]byte, 16)
	if _, err = io.ReadFull(r, head); err != nil {
		return a, err
	}
	if string(head[:12]) != "\r\n\r\n\x00\r\nQUIT\n" || head[12] != 0x21 {
		return a, fmt.Errorf("no header: %q", head)
	}
	rest := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err = io.ReadFull(r, rest); err != nil {
		return a, err
	}
	size := map[byte]int{0x11: 4, 0x21: 16}[head[13]]
	end := func(at int) string {
		addr, _ := netip.AddrFromSlice(rest[at*size : at*size+size])
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(rest[2*size+2*at:])).String()
	}
	a.source, a.destination = end(0), end(1)
	a.tlvs = map[byte][]byte{}
	for rest = rest[2*size+4:]; len(rest) > 0; {
		n := 3 + int(binary.BigEndian.Uint16(rest[1:]))
		a.tlvs[rest[0]] = rest[3:n]
		rest = rest[n:]
	}
	return a, nil
}

// announcedUpstream takes connections that begin with a PROXY header, then TLS, then HTTP/1.1.
type announcedUpstream struct {
	addr string
	mu   sync.Mutex
	all  []announcement
}

func newAnnouncedUpstream(t *testing.T, config *cryptotls.Config) *announcedUpstream {
	t.Helper()
	u := &announcedUpstream{}
	u.addr = serveConns(t, func(c net.Conn) {
		if err := u.serve(c, config); err != nil {
			t.Error(err)
		}
	})
	return u
}

func (u *announcedUpstream) serve(c net.Conn, config *cryptotls.Config) error {
	a, err := readAnnouncement(c)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.all = append(u.all, a)
	u.mu.Unlock()
	secured := cryptotls.Server(c, config)
	if err := secured.Handshake(); err != nil {
		return err
	}
	for r := bufio.NewReader(secured); ; {
		q, err := http.ReadRequest(r)
		if err != nil {
			return nil // its end
		}
		_, _ = io.Copy(io.Discard, q.Body)
		if _, err := fmt.Fprintf(secured, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(a.source), a.source); err != nil {
			return err
		}
	}
}

// The client's address, and what its TLS has shown, come to the upstream before the TLS of the connection to it, whatever
// the client speaks; several streams of one client may share what was announced for it.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	a := newAuthority(t)
	pair, err := cryptotls.X509KeyPair(a.issue(false, "up.test"))
	a.must(err)
	u := newAnnouncedUpstream(t, &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}})
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	own, err := cryptotls.X509KeyPair(a.issue(false, "client"))
	a.must(err)
	g := run(t, strings.NewReplacer("DIR", folder, "UPSTREAM", u.addr).Replace(`
loops: 1
access_log: { to: off }
listeners:
  http:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: DIR/a.pem, key: DIR/a.key }], client_auth: { mode: optional, ca: DIR/ca.pem } }
upstreams: { up: { endpoints: ["UPSTREAM"], tls: { ca: DIR/ca.pem, server_name: up.test }, proxy_protocol: v2 } }
routes: [{ match: "/*", to: up }]
`))
	for i, http2 := range []bool{false, true} {
		var local string
		c := a.client(g.addr, http2, func(c *cryptotls.Config) {
			if http2 {
				c.Certificates = []cryptotls.Certificate{own}
			}
		})
		for range 3 {
			r, body, err := ask(c, "https://a.test/", []byte("x"))
			if err != nil || r.StatusCode != 200 {
				t.Fatalf("%v, %v", r, err)
			}
			if local == "" {
				local = string(body)
			}
			if string(body) != local || !strings.HasPrefix(local, "127.0.0.1:") {
				t.Errorf("HTTP/2 %v: one connection's requests went out for %s and %s", http2, local, body)
			}
		}
		u.mu.Lock()
		if len(u.all) != i+1 {
			t.Fatalf("HTTP/2 %v: %d connections", http2, len(u.all))
		}
		got := u.all[i]
		u.mu.Unlock()
		ssl := "\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3"
		if http2 {
			ssl = "\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x22\x00\x06client"
		}
		if got.destination != g.addr || string(got.tlvs[0x02]) != "a.test" || !bytes.Equal(got.tlvs[0x20], []byte(ssl)) {
			t.Errorf("HTTP/2 %v: %+v, want %s, a.test and %q", http2, got, g.addr, ssl)
		}
	}
}
