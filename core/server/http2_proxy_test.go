package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

const mebibyte = 1 << 20

// reader hides what the body is, so that its length is unknown.
type reader struct{ io.Reader }

// exchange makes a request and reads the whole answer.
func exchange(client *http.Client, method, url string, body io.Reader) (*http.Response, string, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// TestHTTP2Answers takes answers of every form to the real client. The listener speaks both protocols.
func TestHTTP2Answers(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h1, h2c]"))
	client, base := newH2Client(t), "http://"+g.addr
	for _, c := range []struct {
		method, path string
		status       int
		length       int64
		body         string
	}{
		{"GET", "/small", 200, int64(len(smallBody)), smallBody},
		{"POST", "/small", 200, int64(len(smallBody)), smallBody},
		{"HEAD", "/small", 200, int64(len(smallBody)), ""},
		{"HEAD", "/download/1000000", 200, 1000000, ""},
		{"GET", "/empty", 200, -1, ""},
		{"GET", "/status/204", 204, 0, ""},
		{"GET", "/status/304", 304, 0, ""},
		{"GET", "/status/404", 404, 0, ""},
		{"GET", "/status/599", 599, 0, ""},
		{"GET", "/hints", 200, int64(len(smallBody)), smallBody},
	} {
		res, body, err := exchange(client, c.method, base+c.path, nil)
		switch {
		case err != nil:
			t.Errorf("%s %s: %v", c.method, c.path, err)
		case res.StatusCode != c.status || body != c.body || res.ContentLength != c.length || res.ProtoMajor != 2:
			t.Errorf("%s %s: %s %s, %q of %d bytes; want %d, %q of %d", c.method, c.path, res.Proto, res.Status, body, res.ContentLength, c.status, c.body, c.length)
		}
	}
	res, body, err := exchange(http.DefaultClient, "GET", base+"/small", nil)
	if err != nil || res.ProtoMajor != 1 || body != smallBody {
		t.Errorf("HTTP/1.1 on the same port: %v, %q", err, body)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHTTP2EarlyHints(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	var links []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		links = append(links, fmt.Sprint(code, " ", h.Get("Link")))
		return nil
	}}
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", "http://"+g.addr+"/hints", nil)
	res, err := newH2Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if want := "103 </style.css>; rel=preload"; len(links) != 1 || links[0] != want || res.StatusCode != 200 {
		t.Errorf("interim answers %q, want %q; then %s", links, want, res.Status)
	}
}

// TestHTTP2Bodies moves long bodies one by one and at the same time, with and without a length, on one connection.
func TestHTTP2Bodies(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client, base := newH2Client(t), "http://"+g.addr
	const size = 4 * mebibyte
	down := func(path string, length int64) error {
		res, err := client.Get(base + path)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if res.ContentLength != length || res.StatusCode != 200 {
			return fmt.Errorf("%s, Content-Length %d, want %d", res.Status, res.ContentLength, length)
		}
		return checkPattern(res.Body, size)
	}
	up := func(unknown bool) error {
		want := fmt.Sprintf("%d []", size)
		req, _ := http.NewRequest("POST", fmt.Sprintf("%s/upload?%d", base, size), reader{&pattern{size: size}})
		if req.ContentLength = size; unknown {
			req.ContentLength, want = -1, "-1 [chunked]"
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
			return fmt.Errorf("the upstream got %q, want %q: %w", body, want, err)
		}
		return nil
	}
	duplex := func() error {
		req, _ := http.NewRequest("POST", fmt.Sprintf("%s/both/%d", base, size), reader{&pattern{size: size}})
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		return checkPattern(res.Body, size+1)
	}
	sized := fmt.Sprintf("/download/%d", size)
	kinds := []struct {
		name string
		do   func() error
	}{
		{"download", func() error { return down(sized, size) }},
		{"download of unknown length", func() error { return down(sized+"?unknown", -1) }},
		{"upload", func() error { return up(false) }},
		{"upload of unknown length", func() error { return up(true) }},
		{"both ways", duplex},
	}
	var wait sync.WaitGroup
	for _, k := range kinds {
		if err := k.do(); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		for range 4 {
			wait.Go(func() {
				if err := k.do(); err != nil {
					t.Errorf("%s, among others: %v", k.name, err)
				}
			})
		}
	}
	wait.Wait()
	if c := g.counters(); c.Connections != 1 || c.Calm != [len(c.Calm)]uint64{} {
		t.Errorf("all went on one connection, and none was ended: %+v", c)
	}
}

// TestHTTP2ManyUpdates downloads in small bites: a client that sends many window updates for what it takes is no attacker.
func TestHTTP2ManyUpdates(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	const size = 64 * mebibyte
	c := dialRawH2(t, g.addr)
	if err := c.get(1, fmt.Sprintf("/download/%d", size)); err != nil {
		t.Fatal(err)
	}
	for got, left := uint32(0), uint32(0); got < size; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v; %+v", got, c.ending(), g.counters())
		}
		if f, ok := f.(*xhttp2.DataFrame); ok {
			got += f.Length
			for left += f.Length; left >= 4<<10; left -= 4 << 10 { // as a client that reads by 4 KiB
				_ = c.framer.WriteWindowUpdate(0, 4<<10)
				_ = c.framer.WriteWindowUpdate(1, 4<<10)
			}
		}
	}
}

func TestHTTP2Trailers(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	for _, size := range []int64{0, 1, 100, 300000} {
		req, _ := http.NewRequest("POST", "http://"+g.addr+"/trailers", reader{&pattern{size: size}})
		req.Trailer = http.Header{"X-Mark": {fmt.Sprint("mark ", size)}}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPattern(res.Body, size); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		_ = res.Body.Close()
		if sum, mark := res.Trailer.Get("X-Sum"), res.Trailer.Get("X-Echo"); sum != fmt.Sprint(size) || mark != fmt.Sprint("mark ", size) {
			t.Errorf("%d bytes: trailers %q and %q", size, sum, mark)
		}
	}
}

// TestHTTP2ManyRequests makes more requests at once than streams are allowed: the real client takes more connections for them.
func TestHTTP2ManyRequests(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	g.mustAnswer(client, "/small") // the limit is known
	const requests = 300
	var wait sync.WaitGroup
	for range requests {
		wait.Go(func() {
			res, body, err := exchange(client, "GET", "http://"+g.addr+"/hold", nil)
			if err != nil || res.StatusCode != 200 || body != smallBody {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
	eventually(t, "all are under way", func() bool { return u.held.Load() == requests })
	if c := g.counters(); c.Connections < 3 || c.Streams != requests {
		t.Errorf("%+v, want %d streams of 3 connections or more", c, requests)
	}
	close(u.let)
	wait.Wait()
	eventually(t, "no stream is left", func() bool { return g.counters().Streams == 0 })
}

// TestHTTP2StreamLimit opens more streams than are allowed: those above are refused, the others go on.
func TestHTTP2StreamLimit(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	c := dialRawH2(t, g.addr)
	const streams = 300
	for i := range uint32(streams) {
		if err := c.get(2*i+1, "/hold"); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint32(128); i < streams; i++ {
		if got, err := c.outcome(2*i + 1); got != "reset REFUSED_STREAM" {
			t.Fatalf("stream %d of %d: %q, %v", i+1, streams, got, err)
		}
	}
	eventually(t, "128 are under way", func() bool { return u.held.Load() == 128 })
	close(u.let)
	answered := map[uint32]bool{}
	for len(answered) < 128 {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d answers: %v", len(answered), err)
		}
		if f, ok := f.(*xhttp2.DataFrame); ok && f.StreamEnded() && f.StreamID < 2*128 {
			answered[f.StreamID] = true
		}
	}
	if err := c.get(2*streams+1, "/small"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.outcome(2*streams + 1); got != "200 14" {
		t.Errorf("the next stream: %q, %v", got, err)
	}
	if n := u.seen.Load(); n != 129 {
		t.Errorf("the upstream has seen %d requests", n)
	}
}

// TestHTTP2LargeHeaders sends heads that need CONTINUATION, both ways.
func TestHTTP2LargeHeaders(t *testing.T) {
	u := newManyUpstream(t)
	text := strings.Replace(h2Config(u.addr, "[h2c]"), "protocols:", "limits: { header_bytes: 256KiB }\n    protocols:", 1)
	g := newGate(t, text)
	client := newH2Client(t)
	for _, size := range []int{100, 16 << 10, 40 << 10} {
		value := string(bytes.Repeat([]byte("v"), size))
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/large", nil)
		req.Header.Set("X-Large", value)
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("X-Large"); got != value {
			t.Errorf("%d bytes: %d came back, %s", size, len(got), res.Status)
		}
	}
	value := string(bytes.Repeat([]byte("v"), 230<<10)) // too much of an answer, not of a request
	req, _ := http.NewRequest("GET", "http://"+g.addr+"/small", nil)
	req.Header.Set("X-Large", value)
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(value), err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("%d bytes: %s", len(value), res.Status)
	}
}

// TestHTTP2ContentLength sees that an upstream is told the length that the client gave, and no other.
func TestHTTP2ContentLength(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	for _, c := range []struct {
		length int64
		want   string
	}{{5, "5 []"}, {-1, "-1 [chunked]"}} {
		req, _ := http.NewRequest("PUT", "http://"+g.addr+"/upload?5", reader{&pattern{size: 5}})
		req.ContentLength = c.length
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != c.want {
			t.Errorf("length %d: the upstream got %q, want %q", c.length, body, c.want)
		}
	}
	for method, want := range map[string]string{"GET": "0", "POST": "0"} {
		res, _, err := exchange(client, method, "http://"+g.addr+"/small", nil)
		if err != nil || res.Header.Get("X-Length") != want {
			t.Errorf("%s without a body: the upstream was told of %q bytes: %v", method, res.Header.Get("X-Length"), err)
		}
	}
}

// TestHTTP2EarlyAnswer shows that who is refused while it uploads gets the answer: an upstream's, and the gateway's own.
func TestHTTP2EarlyAnswer(t *testing.T) {
	u := newManyUpstream(t)
	text := strings.Replace(h2Config(u.addr, "[h2c]"), "routes: [", "routes: [{ match: /limited, body_bytes: 100KiB, to: a }, ", 1)
	g := newGate(t, text)
	client := newH2Client(t)
	for range 20 {
		for path, want := range map[string]string{"/early": smallBody, "/limited": `{"error":"body_too_large","status":413}` + "\n"} {
			res, body, err := exchange(client, "POST", "http://"+g.addr+path, reader{&pattern{size: 8 * mebibyte}})
			if err != nil || res.StatusCode != 413 || body != want {
				t.Errorf("%s: %q, %v", path, body, err)
			}
		}
	}
	if c := g.counters(); c.Connections != 1 || c.Calm != [len(c.Calm)]uint64{} {
		t.Errorf("all went on one connection, and none was ended: %+v", c)
	}
	eventually(t, "the refused uploads have ended", func() bool { return g.active() == 0 && g.counters().Streams == 0 })
}

// TestHTTP2BrokenAnswer shows that no client takes what an upstream has cut off for the whole.
func TestHTTP2BrokenAnswer(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	for _, how := range []string{"length", "chunked", "chunk"} {
		_, body, err := exchange(client, "GET", "http://"+g.addr+"/break/"+how, nil)
		if err == nil {
			t.Errorf("%s: a broken answer of %d bytes came without an error", how, len(body))
		}
	}
	g.mustAnswer(client, "/small")
	if c := g.counters(); c.Connections != 1 {
		t.Errorf("%d connections, want the one", c.Connections)
	}
}

func TestHTTP2UpstreamDown(t *testing.T) {
	u := newManyUpstream(t)
	_ = u.server.Close()
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	client := newH2Client(t)
	for _, method := range []string{"GET", "POST"} {
		res, body, err := exchange(client, method, "http://"+g.addr+"/small", nil)
		if want := `{"error":"connect_failed","status":502}` + "\n"; err != nil || res.StatusCode != 502 || body != want {
			t.Errorf("%s: %q, %v", method, body, err)
		} else if kind := res.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("%s: Content-Type %q", method, kind)
		}
	}
}
