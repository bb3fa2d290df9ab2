package server

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// h2Listener is h2Config for HTTP/2 alone, with more settings of the listener.
func h2Listener(upstream, more string) string {
	return strings.Replace(h2Config(upstream, "[h2c]"), "protocols:", more+"\n    protocols:", 1)
}

// TestHTTP2KeepAlive shows that a silent client with a stream open is asked whether it is there: who answers is left alone, who
// does not is given up, with what its streams were working for. Nobody is asked without a stream.
func TestHTTP2KeepAlive(t *testing.T) {
	u := newManyUpstream(t)
	const timeout = 3 * time.Second
	g := newGate(t, h2Listener(u.addr, "http2: { keepalive: 100ms, keepalive_timeout: "+timeout.String()+" }"))
	start := time.Now()
	idle, there, gone := dialRawH2(t, g.addr), dialRawH2(t, g.addr), dialRawH2(t, g.addr)
	if err := idle.get(1, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := idle.outcome(1); got != "200 14" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, c := range []*rawH2{there, gone} {
		if err := c.get(1, "/hold"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both streams are open", func() bool { return u.held.Load() == 2 })
	for asked := 0; asked < 4; {
		f, err := there.framer.ReadFrame()
		if err != nil {
			t.Fatalf("asked %d times, then %v", asked, err)
		}
		if p, ok := f.(*xhttp2.PingFrame); ok && !p.IsAck() {
			asked++
			_ = there.framer.WritePing(true, p.Data)
		}
	}
	if took := time.Since(start); took < 380*time.Millisecond || took > 2*timeout {
		t.Errorf("asked 4 times in %v, the interval is 100ms", took)
	}
	asked := 0
	for {
		f, err := gone.framer.ReadFrame()
		if err != nil {
			break
		}
		if p, ok := f.(*xhttp2.PingFrame); ok && !p.IsAck() {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the silent client was asked %d times", asked)
	}
	eventually(t, "what the silent client had begun has ended", func() bool { return g.active() == 1 && u.held.Load() == 1 })
	close(u.let)
	if got, err := there.outcome(1); got != "200 14" {
		t.Errorf("the client that is there: %q, %v", got, err)
	}
	if err := idle.get(3, "/small"); err != nil {
		t.Fatal(err)
	}
	idle.until("the answer", func(f xhttp2.Frame) bool {
		if p, ok := f.(*xhttp2.PingFrame); ok {
			t.Errorf("a client without streams was asked: %v", p)
		}
		return f.Header().StreamID == 3 && f.Header().Flags.Has(xhttp2.FlagDataEndStream)
	})
	if n := g.counters().Connections; n != 2 {
		t.Errorf("%d connections are open, want those of the two that answer or need not", n)
	}
}

// TestHTTP2MaxAge shows the end of connections that are old enough: no new streams, time for those that are open, and after that
// their end, too.
func TestHTTP2MaxAge(t *testing.T) {
	const age, grace = 1500 * time.Millisecond, 2 * time.Second
	u := newManyUpstream(t)
	g := newGate(t, h2Listener(u.addr, "http2: { max_age: "+age.String()+", max_age_grace: "+grace.String()+" }"))
	start := time.Now()
	idle, busy := dialRawH2(t, g.addr), dialRawH2(t, g.addr)
	for _, path := range []string{"/hold", "/small"} {
		if err := busy.get(uint32(2*len(path)+1), path); err != nil {
			t.Fatal(err)
		}
	}
	const held, small = 11, 13
	if got, err := busy.outcome(small); got != "200 14" {
		t.Fatalf("while it is young: %q, %v", got, err)
	}
	busy.goAway(lastOfAll)
	if took := time.Since(start); took < age*9/10-50*time.Millisecond || took > 2*age {
		t.Errorf("the end was announced after %v, the age is %v", took, age)
	}
	idle.goAway(lastOfAll)
	idle.goAway(0)
	if err := idle.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection ended with %v", err)
	}
	busy.goAway(small)
	if err := busy.get(15, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := busy.outcome(15); got != "reset REFUSED_STREAM" {
		t.Errorf("a stream after the end: %q, %v", got, err)
	}
	if n := u.held.Load(); n != 1 || g.active() != 1 {
		t.Errorf("the open stream has ended within the grace: %d at the upstream", n)
	}
	busy.goAway(small)
	if took := time.Since(start); took < age*9/10+grace-50*time.Millisecond || took > 2*(age+grace) {
		t.Errorf("the open stream was cut off after %v", took)
	}
	if err := busy.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	eventually(t, "nothing is left", func() bool { return g.active() == 0 && u.held.Load() == 0 && g.counters().Connections == 0 })
}

// TestHTTP2IdleTimeout shows that a client is told before its idle connection is closed, and that what it has sent meanwhile is
// refused, so that it knows that nobody has seen it.
func TestHTTP2IdleTimeout(t *testing.T) {
	const idle = 300 * time.Millisecond
	u := newManyUpstream(t)
	g := newGate(t, h2Listener(u.addr, "timeouts: { idle: "+idle.String()+", header: 10s }"))
	c, halfway := dialRawH2(t, g.addr), dialRawH2(t, g.addr)
	begun := xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: halfway.encode(requestFields("GET", "/small")...)}
	if err := halfway.framer.WriteHeaders(begun); err != nil {
		t.Fatal(err)
	}
	if err := c.get(1, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(1); got != "200 14" {
		t.Fatalf("%q, %v", got, err)
	}
	start := time.Now()
	c.goAway(1)
	if took := time.Since(start); took < idle-50*time.Millisecond {
		t.Errorf("closed after %v, the timeout is %v", took, idle)
	}
	if err := c.ending(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	eventually(t, "only what is under way is left", func() bool { return g.counters().Connections == 1 })
	if err := halfway.framer.WriteContinuation(1, true, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := halfway.outcome(1); got != "200 14" {
		t.Errorf("a client in the middle of its request: %q, %v", got, err)
	}
}

// TestHTTP2StreamsOption gives clients fewer streams than usual: they are told, and held to it.
func TestHTTP2StreamsOption(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Listener(u.addr, "http2: { streams: 3 }"))
	c := dialRawH2(t, g.addr)
	c.until("SETTINGS", func(f xhttp2.Frame) bool {
		s, ok := f.(*xhttp2.SettingsFrame)
		if ok {
			if n, _ := s.Value(xhttp2.SettingMaxConcurrentStreams); n != 3 {
				t.Errorf("%d streams were announced, want 3", n)
			}
		}
		return ok
	})
	for id := uint32(1); id <= 7; id += 2 {
		if err := c.get(id, "/hold"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := c.outcome(7); got != "reset REFUSED_STREAM" {
		t.Errorf("the fourth: %q, %v", got, err)
	}
	eventually(t, "three are under way", func() bool { return u.held.Load() == 3 })
	close(u.let)
}
