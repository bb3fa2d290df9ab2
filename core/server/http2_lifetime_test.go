package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestMuxTimeouts has an upstream not answer, not go on with an answer, and not take a body: each ends in time and tells the
// upstream with CANCEL; the connection stays.
func TestMuxTimeouts(t *testing.T) {
	resets := make(chan string, 10)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		for f := c.next(); f != nil; f = c.next() {
			switch f := f.(type) {
			case *xhttp2.MetaHeadersFrame:
				switch f.PseudoValue("path") {
				case "/ok":
					c.answer(f.StreamID, smallBody)
				case "/start":
					c.headers(f.StreamID, false, ":status", "200")
				}
			case *xhttp2.RSTStreamFrame:
				resets <- f.ErrCode.String()
			}
		}
	}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
	g := newMuxGate(t, u.addr, ", timeouts: { header: 60ms, idle: 100ms }")
	client := h1Client(t)
	for _, c := range []struct{ method, path, body, outcome string }{
		{"GET", "/ok", "", okSmall},
		{"GET", "/never", "", "504 header_timeout"},
		{"POST", "/never", "a body", "504 header_timeout"},
		{"POST", "/never", "a body that does not fit", "504 idle_timeout"},
		{"GET", "/start", "", "cut off after 200 "},
	} {
		within(t, patience/4, c.path, func() { g.want(client, c.method, c.path, c.body, c.outcome) })
		if c.path != "/ok" {
			if code := take(t, "a reset", resets); code != "CANCEL" {
				t.Errorf("%s %s: reset with %s", c.method, c.path, code)
			}
		}
		g.want(client, "GET", "/ok", "", okSmall)
	}
	if n := u.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestMuxCancel shows that the upstream learns at once of a client that has left, whatever it was doing.
func TestMuxCancel(t *testing.T) {
	for _, client := range []string{"h1", "h2c"} {
		for _, state := range []string{"waiting", "downloading", "uploading"} {
			t.Run(client+" "+state, func(t *testing.T) {
				reset, begun := make(chan string, 1), make(chan bool, 1)
				u := newScriptedUpstream(t, func(c *scriptedConn) {
					for f := c.next(); f != nil; f = c.next() {
						switch f := f.(type) {
						case *xhttp2.MetaHeadersFrame:
							if f.PseudoValue("path") == "/ok" {
								c.answer(f.StreamID, smallBody)
								continue
							}
							if state == "downloading" {
								c.headers(f.StreamID, false, ":status", "200")
							}
							begun <- true
						case *xhttp2.RSTStreamFrame:
							reset <- f.ErrCode.String()
						}
					}
				})
				g := newMuxGate(t, u.addr, "")
				var body io.Reader
				giveUp := func() error { return nil }
				if state == "uploading" {
					r, w := io.Pipe()
					body, giveUp = r, w.Close
				}
				real := map[string]func(testing.TB) *http.Client{"h1": h1Client, "h2c": newH2Client}[client](t)
				ctx, leave := context.WithCancel(context.Background())
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+g.addr, body)
				ended := make(chan bool)
				go func() {
					defer close(ended)
					if res, err := real.Do(req); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				}()
				take(t, "the request", begun)
				leave()
				if code := take(t, "a reset", reset); code != "CANCEL" {
					t.Errorf("reset with %s", code)
				}
				_ = giveUp() // the client waits for its own body
				<-ended
				g.want(h1Client(t), "GET", "/ok", "", okSmall)
				if n := u.accepted.Load(); n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

// TestMuxEnds shows when a connection ends that nothing is wrong with: after so long without a request, and after so many.
func TestMuxEnds(t *testing.T) {
	var goneAway atomic.Int64
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		for f := c.next(); f != nil; f = c.next() {
			switch f := f.(type) {
			case *xhttp2.MetaHeadersFrame:
				if f.PseudoValue("path") == "/refuse" {
					_ = c.framer.WriteRSTStream(f.StreamID, xhttp2.ErrCodeInternal)
				} else {
					c.answer(f.StreamID, smallBody)
				}
			case *xhttp2.GoAwayFrame:
				goneAway.Add(1)
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		before := u.accepted.Load()
		const timeout = 50 * time.Millisecond
		g := newMuxGate(t, u.addr, ", pool: { idle_timeout: 50ms }")
		client := h1Client(t)
		longest, last := time.Duration(0), time.Now()
		for range 10 {
			g.want(client, "GET", "/", "", okSmall)
			longest, last = max(longest, time.Since(last)), time.Now()
		}
		eventually(t, "the connection is closed", func() bool { return g.upstreams() == 0 && u.open.Load() == 0 })
		g.want(client, "GET", "/", "", okSmall)
		if n := u.accepted.Load() - before; n != 2 && longest < timeout || n < 2 { // on a busy machine it may have been idle for as long between two
			t.Errorf("%d connections", n)
		}
	})
	for path, outcome := range map[string]string{"/": okSmall, "/refuse": "502 upstream_reset"} {
		t.Run("requests "+path, func(t *testing.T) {
			before, gone := u.accepted.Load(), goneAway.Load()
			g := newMuxGate(t, u.addr, ", pool: { requests_per_connection: 5, max_connections: 1, queue_timeout: 5s }")
			client := h1Client(t)
			for range 20 {
				g.want(client, "GET", path, "", outcome)
			}
			g.wants(20, client, "GET", path, "", outcome)
			if n := u.accepted.Load() - before; n != 8 {
				t.Errorf("%d connections for 40 requests, want 8", n)
			}
			eventually(t, "each end was announced", func() bool { return goneAway.Load()-gone == 8 })
		})
	}
}

// TestMuxKeepAlive asks an upstream that is silent for a sign of life, and gives it up if there is none.
func TestMuxKeepAlive(t *testing.T) {
	var pings atomic.Int64
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		c.quiet = true
		var held []uint32
		for f := c.next(); f != nil; f = c.next() {
			switch f := f.(type) {
			case *xhttp2.MetaHeadersFrame:
				held = append(held, f.StreamID)
			case *xhttp2.PingFrame:
				if f.IsAck() {
					t.Error("an answer to nothing")
				}
				if n := pings.Add(1); c.number == 1 {
					if n == 3 {
						c.answer(held[0], smallBody) // before the sign, for which nothing else is asked until it has come
					}
					_ = c.framer.WritePing(true, f.Data)
				}
			}
		}
	})
	g := newMuxGate(t, u.addr, ", http2: { keepalive: 20ms, keepalive_timeout: 1s }")
	client := h1Client(t)
	within(t, patience/4, "an answer after three signs of life", func() { g.want(client, "GET", "/", "", okSmall) })
	n := pings.Load()
	time.Sleep(60 * time.Millisecond) // longer than the interval: without a request nobody is asked
	if now := pings.Load(); now != n {
		t.Errorf("%d PINGs on an idle connection", now-n)
	}
	u.hangUp()
	eventually(t, "the end is known", func() bool { return g.upstreams() == 0 })
	start := time.Now()
	g.wants(5, client, "GET", "/", "", "502 upstream_closed")
	if took := time.Since(start); took < time.Second || took > patience/4 {
		t.Errorf("it was given up after %v", took)
	}
	if now := pings.Load(); now != n+1 {
		t.Errorf("it was asked %d times", now-n)
	}
}

// TestMuxSilent has upstreams that say nothing, something else, or take nothing: requests fail in time, and no connection stays that
// is of no use.
func TestMuxSilent(t *testing.T) {
	t.Run("no SETTINGS", func(t *testing.T) {
		u := newSilentUpstream(t, func(c *scriptedConn) {
			c.quiet = true
			c.rest()
		})
		g := newMuxGate(t, u.addr, ", timeouts: { header: 50ms }")
		client := h1Client(t)
		g.want(client, "GET", "/", "", "504 header_timeout")
		g.want(client, "POST", "/", "a body", "504 header_timeout")
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		u := newSilentUpstream(t, func(c *scriptedConn) {
			_, _ = io.WriteString(c.conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			c.rest()
		})
		g := newMuxGate(t, u.addr, "")
		g.want(h1Client(t), "GET", "/", "", "502 bad_response")
	})
	t.Run("HEADERS before SETTINGS", func(t *testing.T) {
		u := newSilentUpstream(t, func(c *scriptedConn) { c.serve() })
		g := newMuxGate(t, u.addr, "")
		g.want(h1Client(t), "GET", "/", "", "502 bad_response")
	})
	t.Run("nothing is read", func(t *testing.T) {
		end := make(chan bool)
		u := newScriptedUpstream(t, func(c *scriptedConn) {
			if c.number > 1 {
				c.serve()
				return
			}
			_ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
			_ = c.framer.WriteWindowUpdate(0, 1<<30)
			c.request()
			<-end
		})
		g := newMuxGate(t, u.addr, ", timeouts: { idle: 100ms }")
		defer close(end)
		client := h1Client(t)
		if got := g.outcome(client, "POST", "/", strings.Repeat("x", 32*mebibyte)); !strings.HasPrefix(got, "50") && !strings.HasPrefix(got, "no answer") {
			t.Errorf("%q", got)
		}
		eventually(t, "the connection is given up", func() bool { return g.upstreams() == 0 })
		g.want(client, "GET", "/", "", okSmall)
	})
}

// TestMuxQueue makes more requests than there are places: they are served in the order in which they came; who waits too long or
// leaves takes nothing with it.
func TestMuxQueue(t *testing.T) {
	const waiters = 40
	var order []string
	let := make(chan bool)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		for r := c.request(); r != nil; r = c.request() {
			order = append(order, r.PseudoValue("path"))
			<-let
			c.answer(r.StreamID, smallBody)
		}
	})
	g := newMuxGate(t, u.addr, ", pool: { max_connections: 1, queue_timeout: 300ms }, http2: { streams: 1 }")
	waiting := g.state.Load().compiled.Upstreams[0].Pending
	client := newH2Client(t)
	for round := range 2 {
		order = nil
		var want []string
		var work sync.WaitGroup
		ctx, leave := context.WithCancel(context.Background())
		for i := range waiters {
			path := fmt.Sprintf("/%d", i)
			work.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+path, nil)
				if i%4 != 1 { // these leave while they wait
					req = req.WithContext(context.Background())
				}
				res, err := client.Do(req)
				if err != nil {
					if i%4 != 1 {
						t.Errorf("%s: %v", path, err)
					}
					return
				}
				_ = res.Body.Close()
				if res.StatusCode != map[int]int{0: 200, 1: 503}[round] && i > 0 {
					t.Errorf("round %d: %s: %s", round, path, res.Status)
				}
			})
			eventually(t, "it waits", func() bool { return waiting() == i && g.active() == i+1 })
			if i%4 != 1 {
				want = append(want, path)
			}
		}
		leave()
		eventually(t, "some have left", func() bool { return waiting() < waiters-waiters/4 })
		if round == 0 {
			for range waiters - waiters/4 {
				let <- true
			}
			work.Wait()
			if !slices.Equal(order, want) {
				t.Errorf("they were served in the order %v", order)
			}
			continue
		}
		eventually(t, "nobody waits any more", func() bool { return waiting() == 0 })
		let <- true
		work.Wait()
		go func() { let <- true }()
		g.want(client, "GET", "/after", "", okSmall)
	}
}
