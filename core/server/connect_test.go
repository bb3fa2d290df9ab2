package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// newConnectProxy is an upstream of either protocol that opens a tunnel, says for whom, and sends back what comes; from count.example
// how much it was, once it has ended.
func newConnectProxy(t *testing.T) string {
	return serveHTTP(t, &http.Server{Protocols: bothProtocols(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host == "no.example:443" {
			http.Error(w, "no tunnel", http.StatusForbidden)
			return
		}
		var to io.Writer = &streamConn{r.Body, w}
		from := io.Reader(r.Body)
		if r.ProtoMajor == 2 {
			w.Header().Set("X-Target", r.RequestURI)
			w.Header().Set("X-Proto", r.Proto)
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		} else {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			to, from = conn, buffered
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Target: %s\r\nX-Proto: %s\r\n\r\n", r.RequestURI, r.Proto)
		}
		if r.Host == "count.example:443" {
			n, _ := io.Copy(io.Discard, from)
			_, _ = fmt.Fprint(to, n)
			return
		}
		_, _ = io.Copy(to, from)
	})})
}

// connectConfig has hosts with a route for CONNECT, and one without. more is of the upstream.
func connectConfig(upstream, more string) string {
	text := strings.Replace(h2Config(upstream, "[h1, h2c]"), `"] } }`, `"]`+more+` } }`, 1)
	routes := ""
	for _, name := range []string{"a", "count", "no"} {
		routes += "{ match: { host: " + name + ".example, methods: [CONNECT] }, to: a }, "
	}
	return strings.Replace(text, "routes: [", "routes: ["+routes, 1)
}

// connected is a client's end of a tunnel that was asked for, or of the answer that refuses it.
type connected struct {
	io.Reader
	io.Writer
	answer     *http.Response
	closeWrite func() error
	abort      func()
}

// connect asks for a tunnel by a real client of HTTP/1.1 or HTTP/2.
func (g *gate) connect(h2 bool, target string) (*connected, error) {
	if h2 {
		return g.connect2(target)
	}
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		return nil, err
	}
	g.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	// Neither says anything of a tunnel, and a client may say both.
	_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", target)
	r := bufio.NewReader(c)
	var res *http.Response
	for res == nil || res.StatusCode < 200 {
		if res, err = http.ReadResponse(r, &http.Request{Method: http.MethodConnect}); err != nil {
			return nil, err
		}
	}
	tcp := c.(*net.TCPConn)
	return &connected{r, c, res, tcp.CloseWrite, func() {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}}, nil
}

func (g *gate) connect2(target string) (*connected, error) {
	transport := &http.Transport{Protocols: &http.Protocols{}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, g.addr)
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	in, out := io.Pipe()
	g.t.Cleanup(func() {
		cancel()
		_ = in.Close()
		transport.CloseIdleConnections()
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://"+target, in)
	if err != nil {
		return nil, err
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return &connected{res.Body, out, res, out.Close, func() { _ = res.Body.Close() }}, nil
}

// fate reads what is left, and tells how it ended: "end" in order, "reset" broken off.
func (c *connected) fate() (text, how string) {
	b, err := io.ReadAll(c)
	var stream xhttp2.StreamError
	switch {
	case err == nil:
		return string(b), "end"
	case errors.As(err, &stream) && stream.Code == xhttp2.ErrCodeConnect, errors.Is(err, syscall.ECONNRESET):
		return string(b), "reset"
	}
	return string(b), err.Error()
}

// eachConnect runs f with clients and upstreams of either protocol.
func eachConnect(t *testing.T, f func(t *testing.T, g *gate, h2, h2up bool)) {
	for _, client := range []string{"h1", "h2c"} {
		for _, protocol := range []string{"h1", "h2c"} {
			t.Run(client+" to "+protocol, func(t *testing.T) {
				g := newGate(t, connectConfig(newConnectProxy(t), ", protocol: "+protocol))
				f(t, g, client == "h2c", protocol == "h2c")
				eventually(t, "nothing is left", func() bool { return g.active() == 0 && g.tunnels() == 0 && g.counters().Streams == 0 })
			})
		}
	}
}

// TestConnect shows that CONNECT passes where a route names it, to the upstream as to a proxy, and bytes then both ways, of many tunnels
// at once; that either end of it may come first; that what the upstream refuses is answered so; and that it is 405 elsewhere.
func TestConnect(t *testing.T) {
	eachConnect(t, func(t *testing.T, g *gate, h2, h2up bool) {
		f := func(target string, want int) *connected {
			t.Helper()
			c, err := g.connect(h2, target)
			if err != nil {
				t.Fatal(err)
			}
			proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2up]
			if h := c.answer.Header; c.answer.StatusCode != want || want == 200 && (h.Get("X-Target") != target || h.Get("X-Proto") != proto) {
				t.Errorf("%s: %s, %v", target, c.answer.Status, h)
			}
			return c
		}
		var wait sync.WaitGroup
		for i := range 5 {
			c := f("a.example:443", 200)
			wait.Go(func() {
				sent := bytes.Repeat([]byte{byte(i), 1, 2, 3, 5}, 200_000)
				go func() {
					_, _ = c.Write(sent)
					_ = c.closeWrite()
				}()
				if got, how := c.fate(); got != string(sent) || how != "end" {
					t.Errorf("%d of %d bytes came back, or others, and then %s", len(got), len(sent), how)
				}
			})
		}
		wait.Wait()
		c := f("count.example:443", 200)
		_, _ = c.Write(make([]byte, 100_000))
		_ = c.closeWrite()
		if got, how := c.fate(); got != "100000" || how != "end" {
			t.Errorf("behind the client's end: %q, %s", got, how)
		}
		f("no.example:443", 403)
		f("b.example:443", 405)
	})
}

// TestConnectClientGone shows that a client that leaves is not waited for.
func TestConnectClientGone(t *testing.T) {
	eachConnect(t, func(t *testing.T, g *gate, h2, _ bool) {
		c, err := g.connect(h2, "a.example:443")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil || g.tunnels() != 1 {
			t.Errorf("%d tunnels, %v", g.tunnels(), err)
		}
		c.abort()
	})
}

// TestConnectTimeouts shows the bounds of such a tunnel: silence, and its whole life.
func TestConnectTimeouts(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		g := newGate(t, connectConfig(newConnectProxy(t), ", timeouts: { tunnel: 200ms, tunnel_life: 600ms }, protocol: "+protocol))
		for _, h2 := range []bool{false, true} {
			begun := time.Now()
			quiet, err := g.connect(h2, "a.example:443")
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := quiet.fate(); got != "" || time.Since(begun) < 200*time.Millisecond {
				t.Errorf("a silent tunnel ended after %v", time.Since(begun))
			}
			begun = time.Now()
			busy, err := g.connect(h2, "a.example:443")
			for b := []byte{'x'}; err == nil; {
				if _, err = busy.Write(b); err == nil {
					_, err = io.ReadFull(busy, b)
				}
				time.Sleep(50 * time.Millisecond) // the test's subject is how much time passes
			}
			if d := time.Since(begun); d < 600*time.Millisecond || d > patience/2 {
				t.Errorf("a busy tunnel ended after %v", d)
			}
		}
		eventually(t, "nothing is left", func() bool { return g.active() == 0 && g.tunnels() == 0 && g.counters().Streams == 0 })
	}
}
