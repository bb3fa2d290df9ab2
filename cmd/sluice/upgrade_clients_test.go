package main

import (
	"bufio"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// upgradeClient makes requests until it is told to stop, and repeats none: what browsers mend silently is a failure here.
type upgradeClient struct {
	name  string
	addr  string
	tls   *cryptotls.Config // nil: clear text
	made  atomic.Int64      // exchanges, those that a gateway counts
	once  func(c *upgradeClient) error
	conn  net.Conn
	read  *bufio.Reader
	h2    *http.Client
	ended int64 // connections that were announced to end
}

func (c *upgradeClient) run(stop *atomic.Bool) error {
	defer c.hangUp()
	for !stop.Load() {
		if err := c.once(c); err != nil {
			return fmt.Errorf("%s, exchange %d: %w", c.name, c.made.Load(), err)
		}
	}
	return nil
}

func (c *upgradeClient) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *upgradeClient) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	network := "tcp"
	if strings.HasPrefix(c.addr, "/") {
		network = "unix"
	}
	conn, err := d.Dial(network, c.addr)
	if err == nil && c.tls != nil {
		conn = cryptotls.Client(conn, c.tls)
	}
	return conn, err
}

// kept makes a request on the connection of the one before, unless that was announced to be the last.
func kept(c *upgradeClient) error { return c.get(false) }

// fresh makes a request on a connection of its own.
func fresh(c *upgradeClient) error { return c.get(true) }

func (c *upgradeClient) get(last bool) error {
	if c.conn == nil {
		conn, err := c.dial()
		if err != nil {
			return fmt.Errorf("cannot connect: %w", err)
		}
		c.conn, c.read = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	path := fmt.Sprintf("/echo/%d", c.made.Load())
	req, err := http.NewRequest("GET", "http://a.test"+path, nil)
	if err != nil {
		return err
	}
	req.Close = last
	if err := req.Write(c.conn); err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	res, err := http.ReadResponse(c.read, req)
	if err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != path {
		return fmt.Errorf("%s %q, want %q: %w", res.Status, body, path, err)
	}
	c.made.Add(1)
	if res.Close || last {
		if !last {
			c.ended++
		}
		c.hangUp()
	}
	return nil
}

// multiplexed makes a request over HTTP/2, of which each client has one connection at a time. A POST is not repeated by the
// transport, unless it was announced that it would not be served.
func multiplexed(c *upgradeClient) error {
	path := fmt.Sprintf("/echo/%d", c.made.Load())
	scheme := "http"
	if c.tls != nil {
		scheme = "https"
	}
	res, err := c.h2.Post(scheme+"://"+c.addr+path, "text/plain", strings.NewReader("body"))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || string(body) != path || res.ProtoMajor != 2 {
		return fmt.Errorf("%s %s %q, want %q: %w", res.Proto, res.Status, body, path, err)
	}
	c.made.Add(1)
	return nil
}

// newMultiplexed makes c's client of HTTP/2.
func (c *upgradeClient) newMultiplexed() (end func()) {
	p := &http.Protocols{}
	p.SetHTTP2(c.tls != nil)
	p.SetUnencryptedHTTP2(c.tls == nil)
	t := &http.Transport{Protocols: p, TLSClientConfig: c.tls, DisableCompression: true}
	c.h2 = &http.Client{Transport: t, Timeout: patience}
	return t.CloseIdleConnections
}

const (
	socketMessages = 12
	socketPause    = 50 * time.Millisecond
)

// socket opens a WebSocket and exchanges messages for longer than an upgrade takes.
func socket(c *upgradeClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c.dial() }}
	defer t.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, "ws://a.test/socket", &websocket.DialOptions{HTTPClient: &http.Client{Transport: t}})
	if err != nil {
		return fmt.Errorf("cannot open: %w", err)
	}
	defer ws.CloseNow() //nolint:errcheck // closed below if all went well
	tick := time.NewTicker(socketPause)
	defer tick.Stop()
	for i := range socketMessages {
		text := fmt.Sprintf("message %d of %d", i, c.made.Load())
		if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			return fmt.Errorf("message %d: cannot send: %w", i, err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != text {
			return fmt.Errorf("message %d: %q, %w", i, got, err)
		}
		<-tick.C
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("cannot close: %w", err)
	}
	c.made.Add(1)
	return nil
}

// echoHandler is the upstream: it answers with the path, and returns the messages of WebSockets.
func echoHandler(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/socket" {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.URL.Path)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow() //nolint:errcheck // the client ends it
	for {
		kind, m, err := ws.Read(r.Context())
		if err != nil || ws.Write(r.Context(), kind, m) != nil {
			return
		}
	}
}
