package server

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// until reads frames up to one that is wanted.
func (c *rawH2) until(what string, wanted func(f xhttp2.Frame) bool) {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", what, err)
		}
		if wanted(f) {
			return
		}
	}
}

// goAway waits for a GOAWAY that announces an end without a fault.
func (c *rawH2) goAway(last uint32) {
	c.t.Helper()
	c.until("GOAWAY", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.GoAwayFrame)
		if ok && (g.ErrCode != xhttp2.ErrCodeNo || g.LastStreamID != last) {
			c.t.Fatalf("GOAWAY %v, last stream %d, want %d", g.ErrCode, g.LastStreamID, last)
		}
		return ok
	})
}

const lastOfAll = 1<<31 - 1

// TestHTTP2Drain ends the gateway while streams are open: clients are told, what has begun or begins within a moment is answered,
// what comes after is refused, and the process ends.
func TestHTTP2Drain(t *testing.T) {
	u := newManyUpstream(t)
	g := run(t, h2Config(u.addr, "[h1, h2c]"))
	c, idle := dialRawH2(t, g.addr), dialRawH2(t, g.addr)
	if err := c.get(1, "/hold"); err != nil {
		t.Fatal(err)
	}
	if err := idle.get(1, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := idle.outcome(1); got != "200 14" {
		t.Fatalf("%q, %v", got, err)
	}
	eventually(t, "the stream is open", func() bool { return u.held.Load() == 1 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		g.stop()
	}()
	c.goAway(lastOfAll)
	idle.goAway(lastOfAll)
	if err := c.get(3, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(3); got != "200 14" {
		t.Errorf("a stream that comes before the last is named: %q, %v", got, err)
	}
	c.goAway(3)
	idle.goAway(1)
	if err := idle.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection ended with %v", err)
	}
	if err := c.get(5, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(5); got != "reset REFUSED_STREAM" {
		t.Errorf("a stream after the last: %q, %v", got, err)
	}
	close(u.let)
	if got, err := c.outcome(1); got != "200 14" {
		t.Errorf("the open stream: %q, %v", got, err)
	}
	if err := c.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	_, _ = c.conn.Close(), idle.conn.Close()
	<-stopped
	if n := u.seen.Load(); n != 3 {
		t.Errorf("the upstream has seen %d requests", n)
	}
}

// TestHTTP2Reload puts configurations in force in turn while requests are made: none fails, and no connection is lost.
func TestHTTP2Reload(t *testing.T) {
	a, b := newSumUpstream(t), newSumUpstream(t)
	configs := soakConfigs(a.addr, b.addr)
	for i := range configs {
		configs[i] = strings.Replace(configs[i], `bind: "127.0.0.1:0"`, `bind: "127.0.0.1:0", protocols: [h1, h2c]`, 1)
	}
	g := run(t, configs[0])
	until := time.Now().Add(2 * time.Second)
	client := newH2Client(t)
	var dialer net.Dialer
	var made, dialed atomic.Int64
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed.Add(1)
		return dialer.DialContext(ctx, network, addr)
	}
	if _, _, err := exchange(client, "GET", "http://"+g.addr+"/", nil); err != nil { // there is a connection
		t.Fatal(err)
	}
	made.Store(1)
	var work sync.WaitGroup
	for i := range 8 {
		c := &soakClient{addr: g.addr, upload: i%2 == 1, keepAlive: true, rand: rand.New(rand.NewPCG(uint64(i), 1))}
		work.Go(func() {
			for ; time.Now().Before(until); c.made++ {
				req, want := c.next()
				res, err := client.Do(req)
				if err != nil {
					t.Errorf("request %d: %v", c.made, err)
					return
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK || string(body) != want {
					t.Errorf("request %d: %s %q, want %q: %v", c.made, res.Status, body, want, err)
				}
				made.Add(1)
			}
		})
	}
	g.reloadUntil(until, configs)
	work.Wait()
	if served := a.served.Load() + b.served.Load(); served != made.Load() || served == 0 {
		t.Errorf("the upstreams have served %d of %d requests", served, made.Load())
	}
	if n := dialed.Load(); n != 1 {
		t.Errorf("%d connections were made, one is enough", n)
	}
}

// TestHTTP2RemovedListener removes a listener by a reload: its connections end as in a drain, others go on.
func TestHTTP2RemovedListener(t *testing.T) {
	u := newManyUpstream(t)
	text := h2Config(u.addr, "[h2c]")
	g := run(t, strings.Replace(text, "listeners:\n", "listeners:\n  extra: { bind: \"127.0.0.1:0\", protocols: [h2c] }\n", 1))
	var addr string
	for _, l := range g.status().Listeners {
		if l.Name == "extra" {
			addr = l.Binds[0]
		}
	}
	c, other := dialRawH2(t, addr), dialRawH2(t, g.addr)
	idle := dialRawH2(t, addr)
	_ = idle.get(1, "/small")
	_, _ = idle.outcome(1)
	_ = c.get(1, "/hold")
	_ = other.get(1, "/hold")
	eventually(t, "both streams are open", func() bool { return u.held.Load() == 2 })
	g.write(text)
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	idle.goAway(lastOfAll)
	c.goAway(lastOfAll)
	c.goAway(1)
	close(u.let)
	if got, err := c.outcome(1); got != "200 14" {
		t.Errorf("the open stream: %q, %v", got, err)
	}
	if err := c.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	if got, err := other.outcome(1); got != "200 14" {
		t.Errorf("the other listener's stream: %q, %v", got, err)
	}
	_ = other.get(3, "/small")
	if got, err := other.outcome(3); got != "200 14" {
		t.Errorf("the other listener's connection: %q, %v", got, err)
	}
}
