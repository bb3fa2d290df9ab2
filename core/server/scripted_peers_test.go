package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// scriptedUpstream is an upstream of HTTP/2 that says what its script likes, on each connection that comes.
type scriptedUpstream struct {
	t        testing.TB
	listener net.Listener
	addr     string
	settings []xhttp2.Setting
	accepted atomic.Int64
	open     atomic.Int64
	silent   bool // SETTINGS are left to the script
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

// newScriptedUpstream runs script for each connection, which is closed when it returns.
func newScriptedUpstream(t testing.TB, script func(c *scriptedConn), settings ...xhttp2.Setting) *scriptedUpstream {
	t.Helper()
	u := &scriptedUpstream{t: t, settings: settings}
	u.listen("127.0.0.1:0", script)
	t.Cleanup(u.close)
	return u
}

// newSilentUpstream is one whose script says the first word, too.
func newSilentUpstream(t testing.TB, script func(c *scriptedConn)) *scriptedUpstream {
	t.Helper()
	u := &scriptedUpstream{t: t, silent: true}
	u.listen("127.0.0.1:0", script)
	t.Cleanup(u.close)
	return u
}

func (u *scriptedUpstream) listen(addr string, script func(c *scriptedConn)) {
	u.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		u.t.Fatal(err)
	}
	u.listener, u.addr = ln, ln.Addr().String()
	u.work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns = append(u.conns, conn)
			u.mu.Unlock()
			u.open.Add(1)
			number := u.accepted.Add(1)
			u.work.Go(func() {
				defer u.open.Add(-1)
				defer func() { _ = conn.Close() }()
				u.run(conn, int(number), script)
			})
		}
	})
}

// close ends the upstream and all its connections.
func (u *scriptedUpstream) close() {
	_ = u.listener.Close()
	u.hangUp()
	u.work.Wait()
}

// hangUp closes the connections that are open.
func (u *scriptedUpstream) hangUp() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.conns {
		_ = c.Close()
	}
	u.conns = nil
}

func (u *scriptedUpstream) run(conn net.Conn, number int, script func(c *scriptedConn)) {
	c := &scriptedConn{t: u.t, number: number, conn: conn}
	c.framer = xhttp2.NewFramer(c, conn)
	c.framer.AllowIllegalWrites = true
	c.framer.SetMaxReadFrameSize(16 << 10) // all that anybody may send who was not told otherwise
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.hpack = hpack.NewEncoder(&c.block)
	preface := make([]byte, len(xhttp2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	if string(preface) != xhttp2.ClientPreface {
		u.t.Errorf("connection %d begins with %q", number, preface)
		return
	}
	if !u.silent {
		_ = c.framer.WriteSettings(u.settings...)
	}
	script(c)
}

// scriptedConn is one connection of a scripted upstream. One goroutine reads it; others may write with say.
type scriptedConn struct {
	t      testing.TB
	number int // among those of the upstream, from 1 on
	conn   net.Conn
	framer *xhttp2.Framer
	saying sync.Mutex // what is written, where more than the script's goroutine writes
	block  bytes.Buffer
	hpack  *hpack.Encoder
	held   *bytes.Buffer // what is to leave in one write; nil: each frame has its own
	acked  func()        // called for each acknowledged SETTINGS; nil: nothing is
	quiet  bool          // every frame is left to the script, SETTINGS and PING unanswered
}

// Write is the framer's.
func (c *scriptedConn) Write(p []byte) (int, error) {
	if c.held != nil {
		return c.held.Write(p)
	}
	return c.conn.Write(p)
}

// say lets f write.
func (c *scriptedConn) say(f func()) {
	c.saying.Lock()
	defer c.saying.Unlock()
	f()
}

// atOnce sends all that f says in one write.
func (c *scriptedConn) atOnce(f func()) {
	c.held = &bytes.Buffer{}
	f()
	_, _ = c.conn.Write(c.held.Bytes())
	c.held = nil
}

// next gives the next frame that is not part of the connection's housekeeping; nil: the connection has ended.
func (c *scriptedConn) next() xhttp2.Frame {
	for {
		f, err := c.framer.ReadFrame()
		var stream xhttp2.StreamError
		var all xhttp2.ConnectionError
		if err != nil {
			if errors.As(err, &stream) || errors.As(err, &all) || errors.Is(err, xhttp2.ErrFrameTooLarge) {
				c.t.Errorf("the gateway has sent a malformed message: %v", err)
			}
			return nil
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame:
			if !f.IsAck() && !c.quiet {
				c.say(func() { _ = c.framer.WriteSettingsAck() })
			} else if f.IsAck() && c.acked != nil {
				c.acked()
			}
		case *xhttp2.PingFrame:
			if !c.quiet && !f.IsAck() {
				c.say(func() { _ = c.framer.WritePing(true, f.Data) })
			}
		case *xhttp2.WindowUpdateFrame:
		default:
			return f
		}
		if c.quiet {
			return f
		}
	}
}

// request waits for the head of a request; nil: the connection has ended.
func (c *scriptedConn) request() *xhttp2.MetaHeadersFrame {
	for {
		switch f := c.next().(type) {
		case nil:
			return nil
		case *xhttp2.MetaHeadersFrame:
			return f
		}
	}
}

// requests waits for so many heads, and gives their streams; nil: the connection has ended before.
func (c *scriptedConn) requests(n int) (ids []uint32) {
	for range n {
		r := c.request()
		if r == nil {
			return nil
		}
		ids = append(ids, r.StreamID)
	}
	return ids
}

// rest reads up to the end of the connection, and gives the resets that came.
func (c *scriptedConn) rest() (resets []string) {
	for {
		switch f := c.next().(type) {
		case nil:
			return resets
		case *xhttp2.RSTStreamFrame:
			resets = append(resets, fmt.Sprint(f.StreamID, " ", f.ErrCode))
		case *xhttp2.GoAwayFrame:
			if f.ErrCode != xhttp2.ErrCodeNo {
				resets = append(resets, "GOAWAY "+f.ErrCode.String())
			}
		}
	}
}

// headers sends a head: names and values by turns.
func (c *scriptedConn) headers(id uint32, end bool, fields ...string) {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	const most = 16 << 10 // in a frame
	block := c.block.Bytes()
	first, block := block[:min(len(block), most)], block[min(len(block), most):]
	_ = c.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: len(block) == 0, BlockFragment: first})
	for len(block) > 0 {
		next := block[:min(len(block), most)]
		block = block[len(next):]
		_ = c.framer.WriteContinuation(id, len(block) == 0, next)
	}
}

// answer sends a whole answer: 200 with a body.
func (c *scriptedConn) answer(id uint32, body string) {
	c.headers(id, false, ":status", "200")
	_ = c.framer.WriteData(id, true, []byte(body))
}

// serve answers whatever comes, up to the end of the connection.
func (c *scriptedConn) serve() {
	for r := c.request(); r != nil; r = c.request() {
		c.answer(r.StreamID, smallBody)
	}
}

// muxConfig sends everything to an HTTP/2 upstream on one loop. more is of the upstream.
func muxConfig(endpoints, more string) string {
	return `
loops: 1
access_log: { to: off }
log: { level: error }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: { endpoints: [` + endpoints + `], protocol: h2c` + more + ` } }
routes: [{ match: "/*", to: a }]
`
}

// newMuxGate gives a gateway on one loop. When the test is over, nothing may be left of what it has done.
func newMuxGate(t testing.TB, endpoints, more string) *gate {
	t.Helper()
	if !strings.HasPrefix(endpoints, `"`) {
		endpoints = `"` + endpoints + `"`
	}
	g := newGate(t, muxConfig(endpoints, more))
	t.Cleanup(g.settled)
	return g
}

// settled checks that no exchange is under way and none waits, and that what connections are open are free: they close when
// nobody wants them any more.
func (g *gate) settled() {
	g.t.Helper()
	var all []*upstream.Endpoint
	for _, u := range g.state.Load().compiled.Upstreams {
		all = append(all, u.Endpoints()...)
		if b := u.Settings().Budget; b != nil {
			eventually(g.t, "the budget counts nothing", func() bool { return b.Active() == 0 && b.Retries() == 0 && u.Retrying() == 0 })
		}
	}
	open := func() (open, idle int) {
		for _, e := range all {
			open += e.Open()
		}
		onEach(g.loops, func(i int) {
			for _, e := range all {
				idle += e.Idle(i)
			}
		})
		return open, idle
	}
	eventually(g.t, "nothing is under way", func() bool {
		for _, u := range g.state.Load().compiled.Upstreams {
			if u.Pending() > 0 {
				return false
			}
		}
		n, idle := open()
		return g.active() == 0 && n == idle
	})
	for _, u := range g.state.Load().compiled.Upstreams {
		u.Retire(func(w *core.Worker, f func()) { w.Loop.Post(f) })
	}
	eventually(g.t, "connections that nobody uses are closed", func() bool { n, _ := open(); return n == 0 })
}

// h1Client is a client that makes each request once, on kept connections.
func h1Client(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// outcome makes a request and tells how it went: "200 a small answer", the status and reason of the gateway's own answers,
// or "cut off after" what came.
func (g *gate) outcome(client *http.Client, method, path, body string) string {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+g.addr+path, r)
	if err != nil {
		return err.Error()
	}
	req.GetBody = nil
	res, err := client.Do(req)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Sprintf("cut off after %d %s", res.StatusCode, got)
	case res.Header.Get("Content-Type") == "application/json":
		var failure struct{ Error string }
		if err := json.Unmarshal(got, &failure); err != nil {
			return err.Error()
		}
		return fmt.Sprint(res.StatusCode, " ", failure.Error)
	}
	return fmt.Sprint(res.StatusCode, " ", string(got))
}

// want makes a request that must go a certain way.
func (g *gate) want(client *http.Client, method, path, body, outcome string) {
	g.t.Helper()
	if got := g.outcome(client, method, path, body); got != outcome {
		g.t.Errorf("%s %s with %d bytes: %q, want %q", method, path, len(body), got, outcome)
	}
}

// wants makes requests at once, which must all go a certain way.
func (g *gate) wants(n int, client *http.Client, method, path, body, outcome string) {
	g.t.Helper()
	var work sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for range n {
		work.Go(func() {
			got := g.outcome(client, method, path, body)
			mu.Lock()
			defer mu.Unlock()
			outcomes[got]++
		})
	}
	if work.Wait(); outcomes[outcome] != n {
		g.t.Errorf("of %d: %v, want %q", n, outcomes, outcome)
	}
}

// take waits for what is to come.
func take[T any](t testing.TB, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience / 4):
		t.Fatalf("it never came: %s", what)
	}
	return v
}

const okSmall = "200 " + smallBody

// within fails a test that takes longer than it may.
func within(t testing.TB, d time.Duration, what string, f func()) {
	t.Helper()
	start := time.Now()
	if f(); time.Since(start) > d {
		t.Errorf("%s took %v", what, time.Since(start))
	}
}
