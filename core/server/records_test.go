package server

import (
	"bufio"
	cryptotls "crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// recordConn is a client's connection that looks at the record layer of what comes, RFC 8446, section 5.1: it notes the lengths of records
// of application data, which in TLS 1.3 the encrypted part of the handshake is as well.
type recordConn struct {
	*net.TCPConn
	lengths []int
	header  []byte // of the next record, as far as it came
	left    int    // of the record
}

func (c *recordConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	for b := p[:max(n, 0)]; len(b) > 0; {
		if c.left > 0 {
			k := min(c.left, len(b))
			c.left, b = c.left-k, b[k:]
			continue
		}
		k := min(5-len(c.header), len(b))
		c.header, b = append(c.header, b[:k]...), b[k:]
		if len(c.header) == 5 {
			c.left = int(c.header[3])<<8 | int(c.header[4])
			if c.header[0] == 23 {
				c.lengths = append(c.lengths, c.left)
			}
			c.header = c.header[:0]
		}
	}
	return n, err
}

// segments is how many segments with data have come. On the loopback interface a write of a few KiB is one.
func segments(t *testing.T, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	var failed error
	if err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return int(info.Data_segs_in)
}

const recordsConfig = `
loops: 1
access_log: { to: off }
listeners:
  http: { bind: "127.0.0.1:0", tls: { tickets: false, certificates: [{ cert: CERTS/a.pem, key: CERTS/a.key }] } }
  plain: { bind: "127.0.0.1:0" }
upstreams: { up: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: up }]
`

// runRecords starts a gateway before an upstream that answers /N with N bytes.
func runRecords(t *testing.T, a *authority) *running {
	t.Helper()
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(make([]byte, n))
	}))
	t.Cleanup(u.Close)
	certs := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(certs, "a", cert, key)
	return run(t, strings.NewReplacer("CERTS", certs, "UPSTREAM", strings.TrimPrefix(u.URL, "http://")).Replace(recordsConfig))
}

// withRecords connects by TLS. The lengths are of what came after the handshake.
func withRecords(t *testing.T, a *authority, addr string, version uint16, protocol string) (*cryptotls.Conn, *recordConn) {
	t.Helper()
	plain, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	_ = plain.SetDeadline(time.Now().Add(patience))
	records := &recordConn{TCPConn: plain.(*net.TCPConn)}
	c := cryptotls.Client(records, &cryptotls.Config{ServerName: "a.test", RootCAs: a.pool, MinVersion: version, MaxVersion: version, NextProtos: []string{protocol}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	records.lengths = nil
	return c, records
}

// The first records of a connection fit a segment each, so that a client can use what has come; a stream goes in records of 16 KiB.
func TestRecordSizes(t *testing.T) {
	const (
		segment  = 1400     // bytes that any path takes, less the headers of IP and TCP
		full     = 16 << 10 // of plain text, RFC 8446, section 5.1
		overhead = 64       // of encryption, at most
		streamed = 8 << 20
	)
	a := newAuthority(t)
	g := runRecords(t, a)
	for name, version := range map[string]uint16{"TLS 1.2": cryptotls.VersionTLS12, "TLS 1.3": cryptotls.VersionTLS13} {
		c, records := withRecords(t, a, g.addr, version, "http/1.1")
		if _, err := io.WriteString(c, "GET /"+strconv.Itoa(streamed)+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != streamed {
			t.Fatalf("%s: %d bytes, %v", name, n, err)
		}
		all := records.lengths
		if all[0]+5 > segment || all[0] < segment/2 {
			t.Errorf("%s: the first record has %d bytes: %v", name, all[0], all[:10])
		}
		early, late, whole := 0, 0, 0 // bytes before the first full record, records after 256 KiB, and the full ones of these
		sent := 0
		for _, n := range all {
			if n > full+overhead {
				t.Fatalf("%s: a record of %d bytes", name, n)
			}
			if n >= full && early == 0 {
				early = sent
			}
			if sent >= 256<<10 {
				late++
				if n >= full {
					whole++
				}
			}
			sent += n
		}
		t.Logf("%s: %v ...; the first full one after %d bytes; %d of %d are full later", name, all[:12], early, whole, late)
		if early < 8<<10 || early > 160<<10 {
			t.Errorf("%s: the first full record comes after %d bytes", name, early)
		}
		if whole*10 < late*7 {
			t.Errorf("%s: of %d records of a stream %d are full", name, late, whole)
		}
		c.Close()
	}
}

// Head and body of a small answer leave in one write, and one record where there is TLS.
func TestHeadAndBodyInOneWrite(t *testing.T) {
	const rounds, size = 20, 700 // its first record has to fit a segment
	a := newAuthority(t)
	g := runRecords(t, a)
	ask := func(c io.Writer, from *bufio.Reader) {
		t.Helper()
		if _, err := io.WriteString(c, "GET /"+strconv.Itoa(size)+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != size || r.StatusCode != 200 {
			t.Fatal(r.StatusCode, n, err)
		}
	}
	plain, err := net.Dial("tcp", g.bind("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	from := bufio.NewReader(plain)
	for range rounds {
		ask(plain, from)
	}
	if n := segments(t, plain.(*net.TCPConn)); n != rounds {
		t.Errorf("without TLS %d answers came in %d segments", rounds, n)
	}
	for name, version := range map[string]uint16{"TLS 1.2": cryptotls.VersionTLS12, "TLS 1.3": cryptotls.VersionTLS13} {
		c, records := withRecords(t, a, g.addr, version, "http/1.1")
		before, from := segments(t, records.TCPConn), bufio.NewReader(c)
		for range rounds {
			ask(c, from)
		}
		if n := segments(t, records.TCPConn) - before; len(records.lengths) != rounds || n != rounds {
			t.Errorf("%s: %d answers came in %d records and %d segments", name, rounds, len(records.lengths), n)
		}
		c.Close()
	}

	c, records := withRecords(t, a, g.addr, cryptotls.VersionTLS13, "h2")
	defer c.Close()
	framer, settled := http2.NewFramer(c, c), false
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for !settled { // the gateway's settings, and that it has ours
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		s, is := f.(*http2.SettingsFrame)
		settled = is && s.IsAck()
	}
	records.lengths = nil
	before := segments(t, records.TCPConn)
	for i := range rounds {
		var block strings.Builder
		e := hpack.NewEncoder(&block)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a.test"}, {":path", "/" + strconv.Itoa(size)}} {
			if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		for ended := false; !ended; {
			f, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			ended = f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().StreamID != 0
		}
	}
	if n := segments(t, records.TCPConn) - before; len(records.lengths) != rounds || n != rounds {
		t.Errorf("HTTP/2: %d answers came in %d records and %d segments", rounds, len(records.lengths), n)
	}
}
