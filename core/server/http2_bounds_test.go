package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tally knows how many streams an upstream has open now, and had at most.
type tally struct{ now, most atomic.Int64 }

func (y *tally) add(n int64) int64 {
	now := y.now.Add(n)
	for most := y.most.Load(); now > most && !y.most.CompareAndSwap(most, now); most = y.most.Load() {
	}
	return now
}

// TestMuxStreams lowers and raises the number of streams that an upstream takes while requests come: more are never open once the
// gateway knows, and all are used. Who is above waits.
func TestMuxStreams(t *testing.T) {
	var open tally
	conns, acked := make(chan *scriptedConn, 1), make(chan bool, 9)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		c.acked = func() { acked <- true }
		conns <- c
		for r := c.request(); r != nil; r = c.request() {
			open.add(1)
			time.AfterFunc(2*time.Millisecond, func() {
				open.add(-1) // before the gateway can know
				c.say(func() { c.answer(r.StreamID, smallBody) })
			})
		}
	}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 100})
	g := newMuxGate(t, u.addr, ", pool: { max_connections: 1, queue_timeout: 10s }, http2: { streams: 50 }")
	client := h1Client(t)
	g.want(client, "GET", "/", "", okSmall)
	c := take(t, "a connection", conns)
	take(t, "the first acknowledgement", acked)
	for _, most := range []uint32{100, 1, 3, 0, 7} {
		c.say(func() {
			_ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: most})
		})
		take(t, "an acknowledgement", acked)
		open.most.Store(0)
		if most == 0 { // nobody goes before there is a place again
			time.AfterFunc(20*time.Millisecond, func() {
				if n := open.most.Load(); n != 0 {
					t.Errorf("%d streams were open, and none may be", n)
				}
				c.say(func() { _ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2}) })
			})
		}
		g.wants(60, client, "GET", "/", "", okSmall)
		want := int64(min(most, 50))
		if most == 0 {
			want = 2
			take(t, "an acknowledgement", acked)
		}
		if n := open.most.Load(); n > want || n < min(want, 7) { // how many come at once is the clients' affair
			t.Errorf("%d streams were open, want %d", n, want)
		}
	}
	if n := u.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestMuxFewStreams sends many requests at once to an upstream that takes few streams, which the gateway cannot know before it has
// sent the first.
func TestMuxFewStreams(t *testing.T) {
	for _, c := range []struct {
		streams uint32
		more    string
	}{{1, ""}, {3, ""}, {1, ", pool: { max_connections: 2, queue_timeout: 10s }"}} {
		t.Run(fmt.Sprint(c.streams, c.more), func(t *testing.T) {
			u := newScriptedUpstream(t, func(s *scriptedConn) {
				var open tally
				for r := s.request(); r != nil; r = s.request() {
					if open.add(1) > int64(c.streams) {
						open.add(-1)
						s.say(func() { _ = s.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeRefusedStream) })
						continue
					}
					time.AfterFunc(2*time.Millisecond, func() {
						open.add(-1)
						s.say(func() { s.answer(r.StreamID, smallBody) })
					})
				}
			}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: c.streams})
			g := newMuxGate(t, u.addr, c.more)
			g.wants(50, h1Client(t), "POST", "/", "a body", okSmall)
		})
	}
}

// TestMuxWindow has an upstream open its window in steps, the first of which is nothing: no byte more is sent than fits.
func TestMuxWindow(t *testing.T) {
	const size = 100_000
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		if r := c.request(); r != nil { // once it is answered the settings are known
			c.answer(r.StreamID, smallBody)
		}
		r := c.request()
		if r == nil {
			return
		}
		acked := make(chan bool, 9)
		c.acked = func() { acked <- true }
		steps := []struct {
			name string
			do   func()
			sum  int // bytes that may have come after it
		}{
			{"nothing", func() {}, 0},
			{"settings of 1000", func() {
				_ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
			}, 1000},
			{"500 less", func() {
				_ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 500})
			}, 1000},
			{"400 of the 500 that are owed", func() { _ = c.framer.WriteWindowUpdate(r.StreamID, 400) }, 1000},
			{"200 more", func() { _ = c.framer.WriteWindowUpdate(r.StreamID, 200) }, 1100},
			{"all of the stream", func() { _ = c.framer.WriteWindowUpdate(r.StreamID, size) }, 65535}, // the connection's own
			{"all", func() { _ = c.framer.WriteWindowUpdate(0, size) }, size},
		}
		frames := make(chan *xhttp2.DataFrame, 1000)
		go func() {
			defer close(frames)
			for f := c.next(); f != nil; f = c.next() {
				if d, ok := f.(*xhttp2.DataFrame); ok {
					frames <- d
				}
			}
		}()
		sum := 0
		for _, step := range steps {
			c.say(step.do)
			quiet := 20 * time.Millisecond // for what must not come
			for {
				wait := quiet
				if sum < step.sum {
					wait = patience / 4
				}
				var d *xhttp2.DataFrame
				select {
				case d = <-frames:
				case <-time.After(wait):
				}
				if d == nil {
					break
				}
				sum += int(d.Length)
			}
			if sum != step.sum {
				t.Errorf("after %s %d bytes have come, want %d", step.name, sum, step.sum)
			}
		}
		c.say(func() { c.answer(r.StreamID, smallBody) })
		for range frames {
		}
	}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	g := newMuxGate(t, u.addr, "")
	client := newH2Client(t)
	g.want(client, "GET", "/", "", okSmall)
	g.want(client, "POST", "/", strings.Repeat("x", size), okSmall)
}

// TestMuxHeaderTable shows that an upstream without memory for fields is not asked to have any, and that heads which do not fit
// into a frame are split.
func TestMuxHeaderTable(t *testing.T) {
	large := strings.Repeat("v", 20<<10)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		c.acked = func() { c.framer.ReadMetaHeaders = hpack.NewDecoder(0, nil) } // what was inserted before is forgotten
		for r := c.request(); r != nil; r = c.request() {
			var got []string
			for _, f := range r.RegularFields() {
				if f.Name == "x-large" || f.Name == "x-mark" {
					got = append(got, fmt.Sprint(f.Name, len(f.Value)))
				}
			}
			c.answer(r.StreamID, strings.Join(got, " "))
		}
	}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0}, xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 1<<24 - 1})
	g := newMuxGate(t, u.addr, "")
	client := h1Client(t)
	for range 5 {
		req, _ := http.NewRequest("GET", "http://"+g.addr, nil)
		req.Header.Set("X-Large", large)
		req.Header.Set("X-Mark", "abc")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := fmt.Sprint("x-large", len(large), " x-mark3"); string(body) != want {
			t.Errorf("%s %q, want %q", res.Status, body, want)
		}
	}
}

// TestMuxFloods has an upstream say without end what costs it nothing: its connection is ended, soon, and the next request is
// served on another.
func TestMuxFloods(t *testing.T) {
	frame := func(kind xhttp2.FrameType, flags xhttp2.Flags, payload string) func(c *scriptedConn, id uint32) error {
		return func(c *scriptedConn, id uint32) error {
			switch kind {
			case xhttp2.FramePing, xhttp2.FrameSettings, xhttp2.FrameGoAway:
				id = 0
			}
			return c.framer.WriteRawFrame(kind, flags, id, []byte(payload))
		}
	}
	growth := heap()
	t.Cleanup(func() {
		if n := growth(); n > 32*mebibyte {
			t.Errorf("the heap has grown by %d bytes", n)
		}
	})
	for name, say := range map[string]func(c *scriptedConn, id uint32) error{
		"PING":           frame(xhttp2.FramePing, 0, "12345678"),
		"SETTINGS":       frame(xhttp2.FrameSettings, 0, ""),
		"SETTINGS ACK":   frame(xhttp2.FrameSettings, 1, ""),
		"empty DATA":     frame(xhttp2.FrameData, 0, ""),
		"padded DATA":    frame(xhttp2.FrameData, xhttp2.FlagDataPadded, "\x00"),
		"window updates": frame(xhttp2.FrameWindowUpdate, 0, "\x00\x00\x00\x01"),
		"PRIORITY":       frame(xhttp2.FramePriority, 0, "\x00\x00\x00\x00\x00"),
		"unknown frames": frame(0xee, 0, ""),
		"GOAWAY":         frame(xhttp2.FrameGoAway, 0, "\x7f\xff\xff\xff\x00\x00\x00\x00"),
		"CONTINUATION":   func(c *scriptedConn, id uint32) error { return c.framer.WriteContinuation(id, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan int, 1)
			u := newScriptedUpstream(t, func(c *scriptedConn) {
				if c.number > 1 {
					c.serve()
					return
				}
				r := c.request()
				if r == nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, c.conn) }()
				if name == "CONTINUATION" {
					_ = c.framer.WriteRawFrame(xhttp2.FrameHeaders, 0, r.StreamID, nil)
				} else {
					c.headers(r.StreamID, false, ":status", "103")
				}
				if strings.HasSuffix(name, "DATA") {
					c.headers(r.StreamID, false, ":status", "200")
				}
				n := 0
				for ; say(c, r.StreamID) == nil; n++ {
				}
				ended <- n
			})
			g := newMuxGate(t, u.addr, "")
			client := h1Client(t)
			if got := g.outcome(client, "GET", "/", ""); got != "502 bad_response" && got != "cut off after 200 " {
				t.Errorf("%q", got)
			}
			take(t, "the end of the flood", ended)
			g.want(client, "GET", "/", "", okSmall)
		})
	}
}

// TestMuxManyCancelled shows that clients which leave do not make a flood of what their upstream had already sent: others on the
// connection go on.
func TestMuxManyCancelled(t *testing.T) {
	const clients, each = 8, 150
	var cancelled atomic.Int64
	all := make(chan bool)
	u := newScriptedUpstream(t, func(c *scriptedConn) {
		neighbour := uint32(0)
		var ids []uint32
		for f := c.next(); f != nil; f = c.next() {
			switch f := f.(type) {
			case *xhttp2.MetaHeadersFrame:
				if f.PseudoValue("path") == "/neighbour" {
					neighbour = f.StreamID
				}
			case *xhttp2.RSTStreamFrame:
				ids = append(ids, f.StreamID)
				if cancelled.Add(1) < clients*each {
					continue
				}
				c.atOnce(func() { // as if all were sent before the resets came
					for _, id := range ids {
						c.headers(id, false, ":status", "200")
						_ = c.framer.WriteData(id, false, []byte("a"))
						_ = c.framer.WriteData(id, false, []byte("little"))
						_ = c.framer.WriteData(id, true, []byte("body"))
					}
				})
				c.answer(neighbour, smallBody)
				close(all)
			}
		}
	}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 10_000})
	g := newMuxGate(t, u.addr, ", http2: { streams: 1000 }")
	neighbour := make(chan string, 1)
	go func() { neighbour <- g.outcome(h1Client(t), "GET", "/neighbour", "") }()
	eventually(t, "the neighbour is under way", func() bool { return g.active() == 1 })
	for range clients {
		c := dialRawH2(t, g.addr)
		for i := range uint32(each) {
			if i%100 == 0 {
				eventually(t, "the last are gone", func() bool { return g.active() == 1 })
			}
			_ = c.get(2*i+1, "/")
			if i%100 == 99 || i == each-1 {
				eventually(t, "they are under way", func() bool { return g.active() == int(i%100)+2 })
				for j := i - i%100; j <= i; j++ {
					_ = c.framer.WriteRSTStream(2*j+1, xhttp2.ErrCodeCancel)
				}
			}
		}
		eventually(t, "all are gone", func() bool { return g.active() <= 1 })
	}
	take(t, "all resets", all)
	if got := take(t, "the neighbour's answer", neighbour); got != okSmall {
		t.Errorf("the neighbour: %q", got)
	}
	if n := u.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
