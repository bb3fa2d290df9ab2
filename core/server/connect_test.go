package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// newConnectProxy is an upstream that opens a tunnel, says for whom, and sends back what comes.
func newConnectProxy(t *testing.T) string {
	return serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.RequestURI == "no.example:443" {
			http.Error(w, "no tunnel", http.StatusForbidden)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Target: %s\r\nX-Host: %s\r\n\r\n", r.RequestURI, r.Host)
		_, _ = io.Copy(conn, buffered)
	})})
}

// connectConfig has one host with a route for CONNECT, and one without.
func connectConfig(upstream string) string {
	return strings.Replace(h2Config(upstream, "[h1, h2c]"), `{ match: "/*", to: a }`,
		`{ match: { host: a.example, methods: [CONNECT] }, to: a }, { match: { host: no.example, methods: [CONNECT] }, to: a }, { match: "/*", to: a }`, 1)
}

// TestConnect shows that CONNECT passes where a route names it, to the upstream as to a proxy, and bytes then both ways; that what the
// upstream refuses is answered so; and that it is 405 elsewhere.
func TestConnect(t *testing.T) {
	g := newGate(t, connectConfig(newConnectProxy(t)))
	const text = "bytes of the tunnel"
	t.Run("h1", func(t *testing.T) {
		f := func(target string, want int) (net.Conn, *bufio.Reader) {
			t.Helper()
			c, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target)
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != want || want == 200 && (res.Header.Get("X-Target") != target || res.Header.Get("X-Host") != target) {
				t.Errorf("%s: %s, %v", target, res.Status, res.Header)
			}
			return c, r
		}
		c, r := f("a.example:443", 200)
		for range 3 {
			_, _ = io.WriteString(c, text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != text {
				t.Fatalf("%q, %v", got, err)
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		f("no.example:443", 403)
		f("b.example:443", 405)
	})
	t.Run("h2", func(t *testing.T) {
		c := dialRawH2(t, g.addr)
		for id, k := range map[uint32]struct{ target, want string }{1: {"no.example:443", "403"}, 3: {"b.example:443", "405"}} {
			c := dialRawH2(t, g.addr)
			if err := c.headers(id, false, ":method", "CONNECT", ":authority", k.target); err != nil {
				t.Fatal(err)
			}
			if got, err := c.outcome(id); !strings.HasPrefix(got, k.want) {
				t.Errorf("%s: %q, %v", k.target, got, err)
			}
		}
		if err := c.headers(1, false, ":method", "CONNECT", ":authority", "a.example:443"); err != nil {
			t.Fatal(err)
		}
		if err := c.framer.WriteData(1, false, []byte(text)); err != nil {
			t.Fatal(err)
		}
		head, got := map[string]string{}, ""
		for ended := false; !ended; {
			f, err := c.framer.ReadFrame()
			if err != nil {
				t.Fatalf("%v after %q", err, got)
			}
			switch f := f.(type) {
			case *xhttp2.MetaHeadersFrame:
				for _, field := range f.Fields {
					head[field.Name] = field.Value
				}
				ended = f.StreamEnded()
			case *xhttp2.RSTStreamFrame:
				t.Fatalf("reset: %v", f.ErrCode)
			case *xhttp2.DataFrame:
				got += string(f.Data())
				if got == text {
					_ = c.framer.WriteData(1, true, []byte(text))
				}
				ended = f.StreamEnded()
			}
		}
		if head[":status"] != "200" || head["x-target"] != "a.example:443" || got != text+text {
			t.Errorf("%v, %q", head, got)
		}
	})
	eventually(t, "nothing is left", func() bool { return g.active() == 0 && g.tunnels() == 0 })
}
