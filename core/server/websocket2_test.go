//lint:file-ignore SA1019 net/http refuses the field :protocol, with which RFC 8441 begins

package server

import (
	"bufio"
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	xhttp2 "golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/core"
)

// allowExtendedConnect starts the test's process anew with the setting that makes the standard library speak RFC 8441.
func allowExtendedConnect() error {
	const setting = "http2xconnect=1"
	if strings.Contains(os.Getenv("GODEBUG"), setting) {
		return nil
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "GODEBUG="+setting))
}

// socketTransport opens WebSockets over HTTP/2 for a client that knows HTTP/1.1 only.
type socketTransport struct{ *xhttp2.Transport }

// socketClient is a client that opens WebSockets over the protocol of c.
func (c *combination) socketClient() *http.Client {
	if !c.h2 {
		return c.client
	}
	t := &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *cryptotls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	c.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: socketTransport{t}}
}

func (s socketTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	connect, err := http.NewRequestWithContext(r.Context(), http.MethodConnect, r.URL.String(), in)
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		switch name {
		case "Connection", "Upgrade", core.WebSocketKeyField:
		default:
			connect.Header[name] = values
		}
	}
	connect.Header[":protocol"] = []string{"websocket"}
	res, err := s.Transport.RoundTrip(connect)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != 200 {
		return res, nil
	}
	if res.Header.Get(core.WebSocketAcceptField) != "" {
		return nil, errors.New("an answer to no key")
	}
	res.StatusCode = http.StatusSwitchingProtocols
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	res.Header.Set(core.WebSocketAcceptField, string(core.WebSocketAccept([]byte(r.Header.Get(core.WebSocketKeyField)))))
	res.Body = struct {
		io.Reader
		io.WriteCloser
	}{res.Body, closers{out, res.Body}}
	return res, nil
}

// closers writes to the first, and closes all.
type closers struct {
	*io.PipeWriter
	body io.Closer
}

func (c closers) Close() error { return errors.Join(c.PipeWriter.Close(), c.body.Close()) }

// echoing2 is echoing for an extended CONNECT as well.
func echoing2(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		echoing(w, r)
		return
	}
	if r.Header.Get(":protocol") != "websocket" || r.Header.Get(core.WebSocketKeyField) != "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.Method = http.MethodGet
	r.ProtoMajor, r.ProtoMinor = 1, 1
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set(core.WebSocketKeyField, "dGhlIHNhbXBsZSBub25jZQ==")
	echoing(&socketWriter{w, r.Body}, r)
}

// socketWriter lets a handler of HTTP/1.1 take a stream over.
type socketWriter struct {
	http.ResponseWriter
	body io.ReadCloser
}

func (s *socketWriter) WriteHeader(int) {
	for _, name := range []string{"Connection", "Upgrade", core.WebSocketAcceptField} {
		s.Header().Del(name)
	}
	s.ResponseWriter.WriteHeader(http.StatusOK)
	s.ResponseWriter.(http.Flusher).Flush()
}

func (s *socketWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := &streamConn{s.body, s.ResponseWriter}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// streamConn is a stream as a connection.
type streamConn struct {
	io.ReadCloser
	w http.ResponseWriter
}

func (c *streamConn) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.w.(http.Flusher).Flush()
	return n, err
}

func (*streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*streamConn) SetDeadline(time.Time) error      { return nil }
func (*streamConn) SetReadDeadline(time.Time) error  { return nil }
func (*streamConn) SetWriteDeadline(time.Time) error { return nil }

// socket opens a WebSocket through c.
func (c *combination) socket(ctx context.Context) (*websocket.Conn, error) {
	s, _, err := websocket.Dial(ctx, c.base+"/socket", &websocket.DialOptions{HTTPClient: c.socketClient(), Subprotocols: []string{"echo"}})
	return s, err
}

// TestCombinationsWebSocket opens WebSockets over HTTP/1.1 and HTTP/2, to upstreams of either, and sends messages of all sizes
// through many at once.
func TestCombinationsWebSocket(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var wait sync.WaitGroup
		for range 10 {
			wait.Go(func() {
				if err := c.echo(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	})
}

func (c *combination) echo(ctx context.Context) error {
	s, err := c.socket(ctx)
	if err != nil {
		return err
	}
	s.SetReadLimit(-1)
	if s.Subprotocol() != "echo" {
		return fmt.Errorf("subprotocol %q", s.Subprotocol())
	}
	for _, size := range []int{0, 1, 125, 126, 70_000, 2 << 20} {
		m := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]
		sent := make(chan error, 1)
		go func() { sent <- s.Write(ctx, websocket.MessageBinary, m) }()
		_, got, err := s.Read(ctx)
		if e := <-sent; err != nil || e != nil || !bytes.Equal(got, m) {
			return fmt.Errorf("message of %d: %d came back, %v, %v", size, len(got), err, e)
		}
	}
	return s.Close(websocket.StatusNormalClosure, "")
}

// TestCombinationsWebSocketRefused shows that who refuses a WebSocket is heard.
func TestCombinationsWebSocketRefused(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, res, err := websocket.Dial(ctx, c.base+"/status/403", &websocket.DialOptions{HTTPClient: c.socketClient()})
		if err == nil || res == nil || res.StatusCode != 403 {
			t.Errorf("%v, %v", res, err)
		}
	})
}

// TestWebSocketTimeouts shows the bounds of a tunnel: silence, and its whole life.
func TestWebSocketTimeouts(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(echoing))
	defer up.Close()
	for _, h2 := range []bool{false, true} {
		text := strings.Replace(h2Config(strings.TrimPrefix(up.URL, "http://"), "[h1, h2c]"), `"] } }`, `"], timeouts: { tunnel: 1s, tunnel_life: 1500ms } } }`, 1)
		g := newGate(t, text)
		c := &combination{gate: g, base: "http://" + g.addr, h2: h2, client: &http.Client{Transport: &http.Transport{}}}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		begun := time.Now()
		quiet, err := c.socket(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = quiet.Read(ctx); err == nil || time.Since(begun) < time.Second {
			t.Errorf("a silent tunnel ended with %v after %v", err, time.Since(begun))
		}
		begun = time.Now()
		busy, err := c.socket(ctx)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "one tunnel is counted", func() bool { return g.tunnels() == 1 }) // the quiet one has ended
		for err == nil {
			if err = busy.Write(ctx, websocket.MessageText, []byte("x")); err == nil {
				_, _, err = busy.Read(ctx)
			}
			time.Sleep(50 * time.Millisecond) // the test's subject is how much time passes
		}
		if d := time.Since(begun); d < 1500*time.Millisecond || ctx.Err() != nil {
			t.Errorf("a busy tunnel ended with %v after %v", err, d)
		}
		cancel()
		_ = quiet.CloseNow()
		_ = busy.CloseNow()
		c.client.CloseIdleConnections()
		eventually(t, "nothing is under way", func() bool { return g.active() == 0 && g.counters().Streams == 0 && g.tunnels() == 0 })
	}
}
