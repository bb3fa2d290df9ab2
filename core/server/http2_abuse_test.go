package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/core/loop"
)

// flood is something that a client does again and again.
type flood struct {
	name, reason string
	begin        func(c *rawH2) error // nil: nothing
	again        func(c *rawH2, i uint32) error
}

// raw sends a frame as it is.
func raw(kind xhttp2.FrameType, flags xhttp2.Flags, stream uint32, payload string) func(*rawH2, uint32) error {
	b := []byte(payload)
	return func(c *rawH2, _ uint32) error { return c.framer.WriteRawFrame(kind, flags, stream, b) }
}

// upload opens stream 1, whose body never ends.
func openUpload(c *rawH2) error { return c.headers(1, false, requestFields("POST", "/hold")...) }

// openBlock opens a header block that does not end.
func openBlock(c *rawH2) error {
	return c.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("GET", "/small")...)})
}

// resetUpload has stream 1 reset by the gateway.
func resetUpload(c *rawH2) error {
	if err := openUpload(c); err != nil {
		return err
	}
	return c.framer.WriteWindowUpdate(1, 0)
}

func floods() []flood {
	const ping, priority = "12345678", "\x00\x00\x00\x00\x10"
	return []flood{
		{"continuation", "continuation_flood", openBlock, raw(xhttp2.FrameContinuation, 0, 1, "x")},
		{"empty continuation", "continuation_flood", openBlock, raw(xhttp2.FrameContinuation, 0, 1, "")},
		{"long continuation", "continuation_flood", openBlock, raw(xhttp2.FrameContinuation, 0, 1, strings.Repeat("x", 16<<10))},
		{"hpack bomb", "hpack_bomb", bomb, raw(xhttp2.FramePing, 0, 0, ping)},
		{"refused streams", "rapid_reset", nil, func(c *rawH2, i uint32) error { return c.get(2*i+1, "/hold") }},
		{"empty data", "empty_frame_flood", openUpload, raw(xhttp2.FrameData, 0, 1, "")},
		{"padding", "empty_frame_flood", openUpload, raw(xhttp2.FrameData, xhttp2.FlagDataPadded, 1, "\x03abc")},
		{"settings", "settings_flood", nil, raw(xhttp2.FrameSettings, 0, 0, "")},
		{"acknowledged settings", "settings_flood", nil, raw(xhttp2.FrameSettings, xhttp2.FlagSettingsAck, 0, "")},
		{"ping", "ping_flood", nil, raw(xhttp2.FramePing, 0, 0, ping)},
		{"acknowledged ping", "ping_flood", nil, raw(xhttp2.FramePing, xhttp2.FlagPingAck, 0, ping)},
		{"priority", "control_flood", nil, raw(xhttp2.FramePriority, 0, 1, priority)},
		{"self-dependency", "control_flood", nil, raw(xhttp2.FramePriority, 0, 1, "\x00\x00\x00\x01\x10")},
		{"priority update", "control_flood", nil, raw(xhttp2.FrameType(0x10), 0, 0, "\x00\x00\x00\x01u=1")},
		{"unknown frame", "control_flood", nil, raw(xhttp2.FrameType(0xbe), 0, 0, "")},
		{"goaway", "control_flood", nil, raw(xhttp2.FrameGoAway, 0, 0, "12345678")},
		{"window of the connection", "window_update_flood", nil, raw(xhttp2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x01")},
		{"window of a stream", "window_update_flood", openUpload, raw(xhttp2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01")},
		{"data on a reset stream", "control_flood", resetUpload, raw(xhttp2.FrameData, 0, 1, "x")},
		{"reset again", "control_flood", resetUpload, raw(xhttp2.FrameRSTStream, 0, 1, "\x00\x00\x00\x00")},
	}
}

// bomb sends a block of 16 KiB that stands for 64 MB.
func bomb(c *rawH2) error {
	block := append([]byte(nil), c.encode(requestFields("GET", "/small", "x-bomb", strings.Repeat("b", 4000))...)...)
	block = append(block, bytes.Repeat([]byte{0xbe}, 16<<10-len(block))...)
	return c.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block})
}

// floodTime is what a flood may take of the processor until it has ended, with what sends it, which is in this process.
const floodTime = time.Second

// TestHTTP2Floods shows that each ends the connection of who does it, is counted, costs little memory, and leaves others alone.
func TestHTTP2Floods(t *testing.T) {
	for _, f := range floods() {
		t.Run(f.name, func(t *testing.T) { testFlood(t, &f) })
	}
}

func testFlood(t *testing.T, f *flood) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	g.mustAnswer(client, "/small")
	growth, used := heap(), processor()
	c := dialRawH2(t, g.addr)
	ended := make(chan error, 1)
	go func() { ended <- c.ending() }()
	if f.begin != nil {
		if err := f.begin(c); err != nil {
			t.Fatal(err)
		}
	}
	const most = 2_000_000
	sent, over, told := uint32(0), false, time.Time{}
	for !over && f.again(c, sent) == nil && sent < most {
		if sent++; sent == 100 {
			g.mustAnswer(client, "/small")
		}
		select {
		case err := <-ended:
			if told.IsZero() {
				told = time.Now()
			}
			over = f.reason != "ping_flood" // who does not heed the end is cut off a little later
			ended <- err
		default:
		}
	}
	if sent == most {
		t.Errorf("the connection stands after %d", sent)
	}
	wantCalm(t, <-ended)
	if n := used(); n > floodTime && !raceDetector {
		t.Errorf("it took %v of the processor", n)
	}
	if took := time.Since(told); !told.IsZero() && took > 3*time.Second {
		t.Errorf("the connection was cut off %v after its end was announced", took)
	}
	_ = c.conn.Close()
	g.mustAnswer(client, "/small")
	if n := g.calmed(f.reason); n != 1 {
		t.Errorf("%d connections were ended for %s: %+v", n, f.reason, g.counters())
	}
	eventually(t, "nothing of it is left", func() bool { return g.active() == 0 && g.counters().Connections == 1 })
	if n := growth(); n > 16*mebibyte {
		t.Errorf("the heap has grown by %d bytes", n)
	}
}

// stallConfig has little patience with who does not read.
func stallConfig(upstream string) string {
	return strings.Replace(h2Config(upstream, "[h2c]"), "protocols:", "timeouts: { write: "+stallTimeout.String()+" }\n    protocols:", 1)
}

const (
	stalled      = 100 // streams
	stallTimeout = 800 * time.Millisecond
	// stallBytes is what stalled streams may hold: a buffer of the loop each, and what the upstream holds for them, which is in this
	// process: an exchange, two buffered writers, and the buffer that it copies from.
	stallBytes = stalled*(loop.BufferBytes+96<<10) + 4*mebibyte
	// stallShare is what they may take of a processor, with both sides of the test and on a machine that is slow. The race detector takes
	// more than what it looks at.
	stallShare = 0.5
)

// TestHTTP2Stalls shows what becomes of who asks for much and takes little.
func TestHTTP2Stalls(t *testing.T) {
	window := func(n uint32) xhttp2.Setting { return xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: n} }
	t.Run("window shut", func(t *testing.T) { testStall(t, window(0), "/download/4194304", nil, stallBytes) })
	t.Run("window shut, connection's opened again and again", func(t *testing.T) {
		testStall(t, window(0), "/download/4194304", func(c *rawH2) error { return c.framer.WriteWindowUpdate(0, 1) }, stallBytes)
	})
	t.Run("window of a byte", func(t *testing.T) { testStall(t, window(1), "/download/4194304", nil, stallBytes) })
	t.Run("window of the connection", func(t *testing.T) { testStall(t, window(1<<20), "/download/4194304", nil, stallBytes) })
	t.Run("window used up", func(t *testing.T) { testStall(t, window(dripBytes), "/drip", nil, stallBytes/2) })
}

// testStall opens streams whose windows are never opened: their connection ends after the write timeout.
func testStall(t *testing.T, s xhttp2.Setting, path string, meanwhile func(c *rawH2) error, bound int64) {
	u := newManyUpstream(t)
	g := newGate(t, stallConfig(u.addr))
	client := newH2Client(t)
	g.mustAnswer(client, "/small")
	growth := heap()
	c := dialRawH2(t, g.addr, s)
	start := time.Now()
	for i := range uint32(stalled) {
		if err := c.get(2*i+1, path); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are under way", func() bool { return u.seen.Load() == stalled+1 })
	time.Sleep(stallTimeout / 4) // until the upstream, which is in this process, has filled what the kernel has for it
	settled, used := time.Now(), processor()
	ended := make(chan error, 1)
	go func() { ended <- c.ending() }()
	for over := false; !over; {
		select {
		case err := <-ended:
			over = true
			wantCalm(t, err)
		case <-time.After(20 * time.Millisecond):
			g.mustAnswer(client, "/small")
			if meanwhile != nil {
				_ = meanwhile(c)
			}
		}
	}
	took := time.Since(start)
	if took < stallTimeout || took > 10*stallTimeout {
		t.Errorf("the connection ended after %v, the timeout is %v", took, stallTimeout)
	}
	if share := float64(used()) / float64(time.Since(settled)); share > stallShare && !raceDetector {
		t.Errorf("it took %.2f of a processor", share)
	}
	if n := g.calmed("stall"); n != 1 {
		t.Errorf("%d connections were ended for it: %+v", n, g.counters())
	}
	if n := growth(); n > bound {
		t.Errorf("the heap has grown by %d bytes, more than %d", n, bound)
	}
	_ = c.conn.Close()
	eventually(t, "the upstreams are free", func() bool { return g.active() == 0 && u.open.Load() <= 1 && g.counters().Connections == 1 })
	g.mustAnswer(client, "/small")
}

// TestHTTP2Pauses shows that a few answers that are not taken are reset, and that their connection goes on.
func TestHTTP2Pauses(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, stallConfig(u.addr))
	c := dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	const paused = 5
	for i := range uint32(paused) {
		if err := c.get(2*i+1, "/download/4194304"); err != nil {
			t.Fatal(err)
		}
	}
	for reset := 0; reset < paused; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*xhttp2.RSTStreamFrame); ok {
			if reset++; f.ErrCode != xhttp2.ErrCodeCancel {
				t.Errorf("stream %d was reset with %v", f.StreamID, f.ErrCode)
			}
		}
	}
	if err := c.get(2*paused+1, "/status/204"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(2*paused + 1); got != "204 0" {
		t.Errorf("the connection does not go on: %q, %v", got, err)
	}
	if n := g.calmed("stall"); n != 0 {
		t.Errorf("%d connections were ended for it", n)
	}
	eventually(t, "the upstreams are free", func() bool { return g.active() == 0 && u.open.Load() <= 1 })
}

// TestHTTP2SlowReader opens the windows wide, and does not read: the connection ends. Who looks again soon after is told why.
func TestHTTP2SlowReader(t *testing.T) {
	t.Run("never again", func(t *testing.T) {
		testSlowReader(t, func(g *gate, _ *rawH2) bool { return g.counters().Connections == 1 })
	})
	t.Run("told", func(t *testing.T) {
		testSlowReader(t, func(g *gate, c *rawH2) bool {
			if g.calmed("slow_reader") == 0 {
				return false
			}
			wantCalm(t, c.ending())
			return true
		})
	})
}

// testSlowReader goes on until over.
func testSlowReader(t *testing.T, over func(*gate, *rawH2) bool) {
	u := newManyUpstream(t)
	g := newGate(t, stallConfig(u.addr))
	client := newH2Client(t)
	g.mustAnswer(client, "/small")
	growth := heap()
	c := dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = c.framer.WriteWindowUpdate(0, 1<<31-1-(64<<10))
	for i := range uint32(stalled) {
		if err := c.get(2*i+1, fmt.Sprintf("/download/%d", 4*mebibyte)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is on", func() bool { return g.counters().Streams == stalled })
	time.Sleep(stallTimeout / 4) // as testStall
	settled, used := time.Now(), processor()
	eventually(t, "it is over", func() bool {
		g.mustAnswer(client, "/small")
		time.Sleep(10 * time.Millisecond) // others ask at some rate, not as fast as they can
		return over(g, c)
	})
	if share := float64(used()) / float64(time.Since(settled)); share > stallShare && !raceDetector {
		t.Errorf("it took %.2f of a processor", share)
	}
	if n := g.calmed("slow_reader"); n != 1 {
		t.Errorf("%d connections were ended for it: %+v", n, g.counters())
	}
	if n := growth(); n > stallBytes {
		t.Errorf("the heap has grown by %d bytes", n)
	}
	const whole = 4 // answers that the kernel may have taken to their end, whose connections are kept
	eventually(t, "the upstreams are free", func() bool { return g.active() == 0 && u.open.Load() <= 1+whole })
}
