package server

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// freed is how long the upstream's connection may outlive its client.
const freed = 100 * time.Millisecond

// TestHTTP2Cancel shows that who leaves, in whatever state the exchange is, leaves nothing behind at the upstream.
func TestHTTP2Cancel(t *testing.T) {
	begin := map[string]func(c *rawH2) error{
		"waiting":     func(c *rawH2) error { return c.get(1, "/hold") },
		"downloading": func(c *rawH2) error { return c.get(1, "/download/100000000") },
		"uploading": func(c *rawH2) error {
			if err := c.headers(1, false, requestFields("POST", "/upload?100000000")...); err != nil {
				return err
			}
			return c.framer.WriteData(1, false, make([]byte, 10000))
		},
		"stuck in an upload": func(c *rawH2) error {
			if err := c.headers(1, false, requestFields("POST", "/hold")...); err != nil {
				return err
			}
			return c.framer.WriteData(1, false, make([]byte, 10000))
		},
	}
	leave := map[string]func(c *rawH2){
		"reset":       func(c *rawH2) { _ = c.framer.WriteRSTStream(1, xhttp2.ErrCodeCancel) },
		"close":       func(c *rawH2) { _ = c.conn.Close() },
		"half-close":  func(c *rawH2) { _ = c.conn.(*net.TCPConn).CloseWrite() },
		"abort":       func(c *rawH2) { _ = c.conn.(*net.TCPConn).SetLinger(0); _ = c.conn.Close() },
		"malformed":   func(c *rawH2) { _ = c.framer.WriteWindowUpdate(1, 0) },
		"connerror":   func(c *rawH2) { _ = c.framer.WriteRawFrame(xhttp2.FramePing, 0, 0, []byte("short")) },
		"later fault": func(c *rawH2) { _ = c.headers(1, true, "late", "trailer", ":path", "/") },
	}
	for state, open := range begin {
		for how, end := range leave {
			t.Run(state+"/"+how, func(t *testing.T) { testCancel(t, open, end) })
		}
	}
}

// testCancel gives a shared machine ten chances to be in time.
func testCancel(t *testing.T, open func(*rawH2) error, end func(*rawH2)) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	for try := 1; ; try++ {
		c := dialRawH2(t, g.addr)
		seen := u.seen.Load()
		if err := open(c); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upstream works", func() bool { return u.seen.Load() > seen && g.upstreams() == 1 && g.active() == 1 })
		time.Sleep(5 * time.Millisecond) // let bodies fill the windows
		start := time.Now()
		end(c)
		eventually(t, "the upstream is free", func() bool { return g.upstreams() == 0 })
		took := time.Since(start)
		eventually(t, "the exchange has ended", func() bool { return g.active() == 0 && g.counters().Streams == 0 })
		if took <= freed {
			return
		}
		if try == 10 {
			t.Fatalf("the upstream was freed after %v", took)
		}
	}
}

// heap watches the memory of the process, and gives by how much it has grown at most.
func heap() (growth func() int64) {
	look := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := look()
	var most atomic.Int64
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
				most.Store(max(most.Load(), look()))
			}
		}
	})
	return func() int64 {
		close(end)
		work.Wait()
		return max(most.Load(), look()) - before
	}
}

// processor gives the processor time that the process has used since, without its garbage collector's: the tests' look at the heap is
// not what they measure.
func processor() (used func() time.Duration) {
	look := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
		sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
		metrics.Read(sample)
		return time.Duration(u.Utime.Nano()+u.Stime.Nano()) - time.Duration(sample[0].Value.Float64()*float64(time.Second))
	}
	before := look()
	return func() time.Duration { return look() - before }
}

// TestHTTP2RapidReset opens streams and resets them at once, as fast as it can.
func TestHTTP2RapidReset(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	g.mustAnswer(client, "/small")
	growth, used := heap(), processor()
	c := dialRawH2(t, g.addr)
	ended := make(chan error, 1)
	go func() { ended <- c.ending() }()

	var most atomic.Int64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				most.Store(max(most.Load(), int64(g.active())))
				time.Sleep(time.Millisecond) // between two looks
			}
		}
	})
	for i := range uint32(10000) {
		if c.get(2*i+1, "/hold") != nil || c.framer.WriteRSTStream(2*i+1, xhttp2.ErrCodeCancel) != nil {
			break
		}
		if i%100 == 0 {
			g.mustAnswer(client, "/small")
		}
	}
	wantCalm(t, <-ended)
	if n := used(); n > floodTime && !raceDetector {
		t.Errorf("it took %v of the processor", n)
	}
	close(stop)
	watch.Wait()
	g.mustAnswer(client, "/small")
	if n := most.Load(); n > 128+1 {
		t.Errorf("%d exchanges were under way", n)
	}
	if n := g.calmed("rapid_reset"); n != 1 {
		t.Errorf("%d connections were ended for it: %+v", n, g.counters())
	}
	if n := g.counters().Resets; n < 100 || n > 1000 {
		t.Errorf("%d resets were let pass", n)
	}
	if n := u.seen.Load(); n > 1000 {
		t.Errorf("the upstream has seen %d requests", n)
	}
	eventually(t, "nothing of it is left", func() bool { return g.active() == 0 && g.counters().Connections == 1 })
	if n := growth(); n > 16*mebibyte {
		t.Errorf("the heap has grown by %d bytes", n)
	}
}

// TestHTTP2Resets shows that a client which gives up a stream now and then is no attacker.
func TestHTTP2Resets(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	c := dialRawH2(t, g.addr)
	for i := uint32(0); i < 150; i++ {
		_ = c.get(4*i+1, "/hold")
		_ = c.get(4*i+3, "/small")
		if got, err := c.outcome(4*i + 3); got != "200 14" {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
		_ = c.framer.WriteRSTStream(4*i+1, xhttp2.ErrCodeCancel)
		_ = c.framer.WriteWindowUpdate(4*i+1, 1) // what crosses on the way is no fault
		_ = c.framer.WriteRSTStream(4*i+1, xhttp2.ErrCodeCancel)
	}
	var at bytes.Buffer // what is given up in the same breath reaches no upstream
	c.framer = xhttp2.NewFramer(&at, c.conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for i := uint32(150); i < 170; i++ {
		_ = c.get(4*i+1, "/hold")
		_ = c.framer.WriteRSTStream(4*i+1, xhttp2.ErrCodeCancel)
	}
	eventually(t, "the upstream has seen the others", func() bool { return u.seen.Load() == 300 })
	seen := u.seen.Load()
	_, _ = c.conn.Write(at.Bytes())
	eventually(t, "the resets are counted", func() bool { return g.counters().Resets == 170 && g.active() == 0 })
	if n := u.seen.Load() - seen; n != 0 {
		t.Errorf("the upstream has seen %d requests that were given up before they began", n)
	}
	if c := g.counters(); c.Connections != 1 {
		t.Errorf("%+v", c)
	}
}

// TestHTTP2CancelWithPing cancels streams as Go's client does, each with a PING beside it: as many as may be cancelled.
func TestHTTP2CancelWithPing(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	c := dialRawH2(t, g.addr)
	const cancels, others = 100, 150 // PINGs are rationed by 200 at once
	for i := range uint32(cancels) {
		if err := c.get(2*i+1, "/hold"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.framer.WriteRSTStream(2*i+1, xhttp2.ErrCodeCancel), c.framer.WritePing(false, [8]byte{1})); err != nil {
			t.Fatal(err)
		}
	}
	for range others {
		if err := c.framer.WritePing(false, [8]byte{2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.get(2*cancels+1, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(2*cancels + 1); got != fmt.Sprint("200 ", len(smallBody)) {
		t.Errorf("%q, %v", got, err)
	}
	close(u.let)
}
