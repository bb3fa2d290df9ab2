package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// distance stands between two peers: what one sends comes to the other a while later. How much is under way is not bounded.
type distance struct {
	listener net.Listener
	to       string
	oneWay   time.Duration
	conns    sync.WaitGroup
}

func newDistance(t testing.TB, to string, oneWay time.Duration) *distance {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &distance{listener: ln, to: to, oneWay: oneWay}
	d.conns.Go(d.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		d.conns.Wait()
	})
	return d
}

func (d *distance) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", d.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		d.conns.Go(func() { d.carry(near, far) })
		d.conns.Go(func() { d.carry(far, near) })
	}
}

// carried is what was read at once, and when it is to arrive.
type carried struct {
	bytes []byte
	at    time.Time
}

// carry takes bytes one way. The sleep is the distance itself.
func (d *distance) carry(from, to net.Conn) {
	under := make(chan carried, 1<<16)
	d.conns.Go(func() {
		defer func() { _, _ = from.Close(), to.Close() }()
		for c := range under {
			time.Sleep(time.Until(c.at))
			if _, err := to.Write(c.bytes); err != nil {
				return
			}
		}
	})
	for {
		b := make([]byte, 64<<10)
		n, err := from.Read(b)
		if err != nil {
			close(under)
			return
		}
		under <- carried{b[:n], time.Now().Add(d.oneWay)}
	}
}

// TestHTTP2WindowsWiden moves bodies over a distance, to the gateway and from an upstream: they take a fraction of the time that
// any windows of the initial size would need, of which there is one for each round trip.
func TestHTTP2WindowsWiden(t *testing.T) {
	const size, oneWay, gain = 8 * mebibyte, 60 * time.Millisecond, 3 // far enough for what a busy machine takes to be little
	const fixed = size / (64 << 10) * 2 * oneWay
	u := newManyUpstream(t)
	check := func(what string, move func() error) {
		t.Helper()
		start := time.Now()
		if err := move(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		took := time.Since(start)
		t.Logf("%s: %v, %.1f times as fast as with a fixed window", what, took.Round(time.Millisecond), float64(fixed)/float64(took))
		if took > fixed/gain {
			t.Errorf("%s took %v, with fixed windows it would take %v", what, took, fixed)
		}
	}
	near := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	check("upload", func() error {
		far := newDistance(t, near.addr, oneWay)
		res, body, err := exchange(client, "POST", fmt.Sprintf("http://%s/upload?%d", far.listener.Addr(), size), reader{&pattern{size: size}})
		if err == nil && (res.StatusCode != 200 || body != "-1 [chunked]") {
			err = fmt.Errorf("%s, %q", res.Status, body)
		}
		return err
	})
	client.CloseIdleConnections()
	far := newDistance(t, u.addr, oneWay)
	g := newGate(t, strings.Replace(h2Config(far.listener.Addr().String(), "[h2c]"), "endpoints:", "protocol: h2c, endpoints:", 1))
	check("download", func() error {
		res, err := client.Get(fmt.Sprintf("http://%s/download/%d", g.addr, size))
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		return checkPattern(res.Body, size)
	})
	client.CloseIdleConnections()
}

// TestHTTP2WindowsAreBounded uploads on many streams to an upstream that stops reading, after each has moved enough for its window
// to be wide: together they hold what the window of the connection lets them, and others on it are served.
func TestHTTP2WindowsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "up.sock") // whose buffers are small, and do not grow
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	const streams, taken = 100, 3 * streamInitial
	var stopped sync.WaitGroup
	stopped.Add(streams)
	end := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" {
			small(w, r)
			return
		}
		_, _ = io.CopyN(io.Discard, r.Body, taken)
		stopped.Done()
		<-end
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() {
		close(end)
		_ = server.Close()
	})
	g := newGate(t, h2Config("unix:"+path, "[h2c]"))
	growth := heap()
	c := dialRawH2(t, g.addr)
	sent := c.uploadAll(streams)
	stopped.Wait()
	var last int64
	eventually(t, "the windows are shut", func() bool {
		time.Sleep(50 * time.Millisecond)
		now := sent()
		done := now == last
		last = now
		return done
	})
	if err := c.get(2*streams+1, "/small"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another stream is answered", func() bool { return g.counters().Streams == streams })
	grown := growth()
	t.Logf("%d bytes were sent, the heap has grown by %d", last, grown)
	if grown > 8*mebibyte {
		t.Errorf("the heap has grown by %d bytes, %d were sent", grown, last)
	}
}

const streamInitial = 64 << 10

// uploadAll opens streams and sends bodies on all of them in turn, as far as the windows let it. sent says how much that was.
func (c *rawH2) uploadAll(streams int) (sent func() int64) {
	var mu sync.Mutex
	more := sync.NewCond(&mu)
	total, window, windows, ended := int64(0), int64(streamInitial-1), make([]int64, streams), false
	var work sync.WaitGroup
	c.t.Cleanup(func() {
		_ = c.conn.Close()
		work.Wait()
	})
	for i := range windows {
		windows[i] = streamInitial - 1
		if err := c.headers(uint32(2*i+1), false, requestFields("POST", "/upload")...); err != nil {
			c.t.Fatal(err)
		}
	}
	work.Go(func() {
		for {
			f, err := c.framer.ReadFrame()
			if err != nil {
				mu.Lock()
				ended = true
				more.Signal()
				mu.Unlock()
				return
			}
			if f, ok := f.(*xhttp2.WindowUpdateFrame); ok {
				mu.Lock()
				if f.StreamID == 0 {
					window += int64(f.Increment)
				} else {
					windows[f.StreamID/2] += int64(f.Increment)
				}
				more.Signal()
				mu.Unlock()
			}
		}
	})
	work.Go(func() {
		b := make([]byte, 16<<10)
		for i, shut := 0, 0; ; i = (i + 1) % streams {
			mu.Lock()
			n := min(window, windows[i], int64(len(b)))
			if n == 0 {
				if shut++; shut >= streams && !ended {
					more.Wait()
					shut = 0
				}
				over := ended
				mu.Unlock()
				if over {
					return
				}
				continue
			}
			window, windows[i], total, shut = window-n, windows[i]-n, total+n, 0
			mu.Unlock()
			if c.framer.WriteData(uint32(2*i+1), false, b[:n]) != nil {
				return
			}
		}
	})
	return func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return total
	}
}
