package server

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// serve2 serves h over HTTP/2 without TLS, and gives the address.
func serve2(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := &http.Server{Handler: h, Protocols: &http.Protocols{}}
	s.Protocols.SetUnencryptedHTTP2(true)
	return serveHTTP(t, s)
}

// shut reads a stream without opening a window. wait is called when so many bytes have come.
func (c *rawH2) shut(id uint32, size int, wait func()) (string, error) {
	status, trailer, got := "", "", 0
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return fmt.Sprint(status, " ", got), err
		}
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			if s := f.PseudoValue("status"); s != "" {
				status = s
			} else {
				trailer = " " + f.Fields[0].Name
			}
		case *xhttp2.DataFrame:
			if got += len(f.Data()); got == size && len(f.Data()) > 0 {
				wait()
			}
		case *xhttp2.RSTStreamFrame:
			return "reset", nil
		}
		if h := f.Header(); h.StreamID == id && (h.Type == xhttp2.FrameData || h.Type == xhttp2.FrameHeaders) && h.Flags.Has(xhttp2.FlagDataEndStream) {
			return fmt.Sprint(status, " ", got, trailer), nil
		}
	}
}

// TestHTTP2EndNeedsNoWindow shuts the window of a client and sees that a body of which only the end is left comes to its end: one
// that is empty, one that has used the window up, and one that is followed by a trailer, whether that is known before or later.
func TestHTTP2EndNeedsNoWindow(t *testing.T) {
	const window = 1000
	let := make(chan struct{}, 1)
	over2 := serve2(t, func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		switch r.URL.Path {
		case "/empty":
			_ = flush()
		case "/exact", "/trailer":
			_, _ = io.Copy(w, &pattern{size: window})
			_ = flush()
			<-let
			if r.URL.Path == "/trailer" {
				w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
			}
		}
	})
	h1 := newFixedUpstream(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nil, "\r\n\r\n")
	g1 := newGate(t, h2Config(h1.addr(), "[h2c]"))
	g2 := newGate(t, strings.Replace(h2Config(over2, "[h2c]"), "endpoints:", "protocol: h2c, endpoints:", 1))
	for _, c := range []struct {
		name, path string
		gate       *gate
		window     uint32
		want       string
	}{
		{"empty", "/empty", g2, 0, "200 0"},
		{"empty, from HTTP/1.1", "/empty", g1, 0, "200 0"},
		{"used up", "/exact", g2, window, "200 1000"},
		{"used up, and a trailer", "/trailer", g2, window, "200 1000 x-sum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := dialRawH2(t, c.gate.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: c.window})
			_ = raw.conn.SetDeadline(time.Now().Add(5 * time.Second))
			if err := raw.get(1, c.path); err != nil {
				t.Fatal(err)
			}
			got, err := raw.shut(1, window, func() {
				time.Sleep(20 * time.Millisecond) // so that the gateway waits for the window before it hears of the end
				let <- struct{}{}
			})
			if got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestHTTP2NegativeWindow makes the window of a stream negative (RFC 9113, 6.9.2) while an answer is under way whose end takes none.
func TestHTTP2NegativeWindow(t *testing.T) {
	let := make(chan struct{})
	g := newGate(t, strings.Replace(h2Config(serve2(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, &pattern{size: 1000})
		_ = http.NewResponseController(w).Flush()
		<-let
	}), "[h2c]"), "endpoints:", "protocol: h2c, endpoints:", 1))
	c := dialRawH2(t, g.addr)
	_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := c.get(1, "/"); err != nil {
		t.Fatal(err)
	}
	got, err := c.shut(1, 1000, func() {
		_ = c.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
		c.until("the acknowledgement", func(f xhttp2.Frame) bool {
			return f.Header().Type == xhttp2.FrameSettings && f.Header().Flags.Has(xhttp2.FlagSettingsAck)
		})
		close(let)
	})
	if want := "200 1000"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// TestHTTP2StalledRests shuts the windows of many streams when a little of a piece is left: they hold a little each.
func TestHTTP2StalledRests(t *testing.T) {
	const size, window, bound = 60 << 10, 57 << 10, 2 * mebibyte
	var round sync.WaitGroup // all ask before any is answered: each has a connection of its own
	u := newFixedUpstream(t, answerOf(bodyOf(size)), func() {
		round.Done()
		round.Wait()
	}, "\r\n\r\n")
	g := newGate(t, strings.Replace(h2Config(u.addr(), "[h2c]"), "loops: 2", "loops: 1", 1))
	held := func() int64 { // now, and not at most: while it is busy it may well hold more
		var m runtime.MemStats
		for range 3 { // what is freed while one runs is left to the next
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	ask := func(window uint32) *rawH2 {
		c := dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: window})
		_ = c.framer.WriteWindowUpdate(0, stalled*size)
		round.Add(stalled)
		for i := range uint32(stalled) {
			if err := c.get(2*i+1, "/"); err != nil {
				t.Fatal(err)
			}
		}
		for left := stalled * int(min(window, size)); left > 0; {
			f, err := c.framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := f.(*xhttp2.DataFrame); ok {
				left -= len(f.Data())
			}
		}
		return c
	}
	_ = ask(size).conn.Close() // so that connections to the upstream are there, and buffers
	eventually(t, "all is quiet", func() bool { return g.active() == 0 })
	before := held()
	c := ask(window)
	if n := g.active(); n != stalled {
		t.Errorf("%d streams wait, want %d", n, stalled)
	}
	if n := held() - before; n > bound {
		t.Errorf("the heap has grown by %d bytes", n)
	}
	for i := range uint32(stalled) {
		_ = c.framer.WriteWindowUpdate(2*i+1, size)
	}
	for ended := 0; ended < stalled; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*xhttp2.DataFrame); ok && f.StreamEnded() {
			ended++
			if text := f.Data(); !strings.HasSuffix(bodyOf(size), string(text)) || len(text) != size-window {
				t.Fatalf("the rest is wrong: %d bytes", len(text))
			}
		}
	}
}
