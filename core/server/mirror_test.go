package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// recorded is a request as an upstream got it: its head as it came, and its body without its framing.
type recorded struct{ head, body, trailer string }

// recorder is an HTTP/1.1 upstream that keeps what it gets, and answers late if it is told so.
type recorder struct {
	addr   string
	mu     sync.Mutex
	answer string
	delay  chan struct{} // answers wait for its end
	got    []recorded
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	u := &recorder{answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}
	u.addr = serveConns(t, u.serve)
	t.Cleanup(u.release)
	return u
}

func (u *recorder) serve(c net.Conn) {
	var raw bytes.Buffer
	for r := bufio.NewReader(io.TeeReader(c, &raw)); ; raw.Reset() {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		head, _, _ := strings.Cut(raw.String(), "\r\n\r\n")
		u.mu.Lock()
		u.got = append(u.got, recorded{head, string(body), q.Trailer.Get("X-End")})
		delay, answer := u.delay, u.answer
		u.mu.Unlock()
		if delay != nil {
			<-delay
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// requestID is the id that the gateway has given a request.
func requestID(head string) string {
	_, rest, _ := strings.Cut(head, "\r\nX-Request-ID: ")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

// hold makes answers wait until release.
func (u *recorder) hold() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.delay = make(chan struct{})
}

func (u *recorder) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.delay != nil {
		close(u.delay)
		u.delay = nil
	}
}

// say changes what is answered.
func (u *recorder) say(answer string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = answer
}

func (u *recorder) all() []recorded {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.got)
}

func mirrored(listener, first, second, more string) string {
	return fmt.Sprintf(`
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [%s], forward: { via: edge, forwarded: true } } }
upstreams: { first: "%s", second: "%s" }
routes: [{ name: r, match: "/*", rewrite: { pattern: "^/old/(.*)$", to: "/new/$1" }, to: first, mirror: { to: second%s } }]
`, listener, first, second, more)
}

// mirror gives what became of the mirror of route r.
func (g *running) mirror() *admin.MirrorStatus {
	g.t.Helper()
	all, err := g.admin.Routes()
	if err != nil || all[0].Mirror == nil {
		g.t.Fatalf("%+v, %v", all, err)
	}
	return all[0].Mirror
}

// TestMirror shows that the other upstream gets what the first one gets, byte by byte but for the mark: by whatever protocol it came,
// with its fields as they were forwarded, its body and its trailer. A body that is too long is not mirrored, and the client gets the first
// one's answer only.
func TestMirror(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			first, second := newRecorder(t), newRecorder(t)
			second.say("HTTP/1.1 503 No\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\nnot!")
			g := run(t, mirrored(protocol, first.addr, second.addr, ", body: 20KiB"))
			defer g.stop()
			transport := &http.Transport{Protocols: &http.Protocols{}, DisableCompression: true}
			transport.Protocols.SetHTTP1(protocol == "h1")
			transport.Protocols.SetUnencryptedHTTP2(protocol == "h2c")
			defer transport.CloseIdleConnections()
			ask := func(method, path string, size int, unknown bool) {
				t.Helper()
				var body io.Reader
				if size > 0 {
					body = strings.NewReader(bodyOf(size))
				}
				if unknown {
					body = io.MultiReader(body)
				}
				q, _ := http.NewRequest(method, "http://"+g.addr+path, body)
				q.Host = "www.example:8080"
				q.Header.Set("X-Forwarded-For", "10.1.2.3")
				q.Header["X-Twice"] = []string{"1", "2"}
				q.Header.Set("Cookie", "a=b; c=d")
				q.Header.Set("X-Sluice-Mirror", "forged")
				if unknown {
					q.Trailer = http.Header{"X-End": {"the end"}}
				}
				res, err := transport.RoundTrip(q)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if res.StatusCode != 200 || string(got) != "ok" || res.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s %s: %v %q", method, path, res, got)
				}
			}
			ask("GET", "/old/a%20b?x=1&y=%2F", 0, false)
			ask("DELETE", "/?", 0, false)
			ask("POST", "/old/form", 1<<10, false)
			ask("PUT", "/put", 20<<10, false)
			ask("POST", "/stream", 15<<10, true)
			ask("POST", "/long", 20<<10+1, false)
			ask("POST", "/long", 20<<10+1, true)
			eventually(t, "five copies are answered", func() bool { m := g.mirror(); return m.Answered == 5 && m.UnderWay == 0 })
			if m := g.mirror(); m.Sent != 5 || m.TooLong != 2 || m.Failed+m.Dropped != 0 || m.Upstream != "second" || m.Seconds <= 0 {
				t.Errorf("%+v", m)
			}
			want, got := first.all(), second.all()
			if len(want) != 7 || len(got) != 5 {
				t.Fatalf("%d and %d requests", len(want), len(got))
			}
			trailers := 0
			for _, copied := range got { // in any order
				at := slices.IndexFunc(want, func(r recorded) bool { return requestID(r.head) == requestID(copied.head) })
				if at < 0 {
					t.Fatalf("a copy of nothing:\n%s", copied.head)
				}
				original := want[at]
				unmarked := strings.Replace(copied.head, "\r\nX-Sluice-Mirror: 1", "", 1)
				forged := strings.NewReplacer("\r\nX-Sluice-Mirror: forged", "", "\r\nx-sluice-mirror: forged", "").Replace(original.head)
				if unmarked == copied.head || unmarked != forged {
					t.Errorf("the first got\n%s\nand the mirror\n%s", original.head, copied.head)
				}
				if copied.body != original.body || copied.trailer != original.trailer {
					t.Errorf("request %d: bodies of %d and %d bytes, trailers %q and %q", at, len(original.body), len(copied.body), original.trailer, copied.trailer)
				}
				if copied.trailer == "the end" {
					trailers++
				}
				if !strings.Contains(copied.head, "X-Forwarded-For: 127.0.0.1") || !strings.Contains(copied.head, "\r\nVia: ") {
					t.Errorf("it is not as it was forwarded:\n%s", copied.head)
				}
			}
			if trailers != 1 {
				t.Errorf("%d copies have the trailer", trailers)
			}
		})
	}
}

// TestMirrorHost shows whom the other upstream is asked for, and that it may speak HTTP/2.
func TestMirrorHost(t *testing.T) {
	hosts := make(chan string, 1)
	second := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		hosts <- fmt.Sprint(r.Proto, " ", r.Host, " ", r.Header.Get("X-Sluice-Mirror"), " ", string(body))
	}))
	second.Config.Protocols = &http.Protocols{}
	second.Config.Protocols.SetHTTP1(true)
	second.Config.Protocols.SetUnencryptedHTTP2(true)
	second.Start()
	defer second.Close()
	addr := second.Listener.Addr().String()
	first := newRecorder(t)
	for _, c := range []struct{ protocol, more, host, want string }{
		{"h1", "", "www.example", "HTTP/1.1 www.example 1 body"},
		{"h1", ", host: shadow, mark: false", "www.example:81", "HTTP/1.1 www.example-shadow:81  body"},
		{"h1", ", host: shadow", "[::1]:81", "HTTP/1.1 [::1]:81 1 body"},
		{"h1", ", host: upstream", "www.example", "HTTP/1.1 " + addr + " 1 body"},
		{"h2c", ", host: shadow", "www.example", "HTTP/2.0 www.example-shadow 1 body"},
	} {
		config := strings.Replace(mirrored("h1", first.addr, addr, c.more), "second: \""+addr+"\"",
			"second: { endpoints: [\""+addr+"\"], protocol: "+c.protocol+" }", 1)
		g := run(t, config)
		q, _ := http.NewRequest("POST", "http://"+g.addr+"/", strings.NewReader("body"))
		q.Host = c.host
		res, err := newHTTPClient(t).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := take(t, "a copy", hosts); got != c.want {
			t.Errorf("%s%s: %q, want %q", c.protocol, c.more, got, c.want)
		}
		g.stop()
	}
}

// TestMirrorHarmless shows that a mirror which does not answer, is full, resets, or is not there, costs clients nothing: their answers come
// as fast as ever, copies under way are bounded, and the rest are dropped.
func TestMirrorHarmless(t *testing.T) {
	first, second := newRecorder(t), newRecorder(t)
	g := run(t, mirrored("h1", first.addr, second.addr, ", at_once: 5, timeout: 500ms"))
	p90 := func() time.Duration { // a pause of the machine is one of all four clients: of the longest they would tell nothing else
		t.Helper()
		var all []time.Duration
		var mu sync.Mutex
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				c := newHTTPClient(t)
				for range 50 {
					start := time.Now()
					res, err := c.Post("http://"+g.addr+"/x", "text/plain", strings.NewReader(bodyOf(2<<10)))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
					took := time.Since(start)
					mu.Lock()
					all = append(all, took)
					mu.Unlock()
					if res.StatusCode != 200 {
						t.Error(res.Status)
					}
				}
			})
		}
		work.Wait()
		slices.Sort(all)
		return all[len(all)*90/100]
	}
	second.hold()
	if most := p90(); most > 250*time.Millisecond { // half of what a mirror may take
		t.Errorf("beside a mirror that does not answer p90 is %v", most)
	}
	if m := g.mirror(); m.UnderWay > 5 || m.Dropped < 150 || m.Sent+m.Dropped != 200 {
		t.Errorf("%+v", m)
	}
	eventually(t, "copies end by the timeout", func() bool { m := g.mirror(); return m.UnderWay == 0 && m.Failed == m.Sent })
	second.release()
	second.say("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nlie")
	if most := p90(); most > 250*time.Millisecond {
		t.Errorf("beside a mirror that lies p90 is %v", most)
	}
	g.write(mirrored("h1", first.addr, "127.0.0.1:1", ""))
	g.reload()
	before := g.mirror()
	if most := p90(); most > 250*time.Millisecond {
		t.Errorf("beside a mirror that is not there p90 is %v", most)
	}
	eventually(t, "all copies have failed", func() bool {
		m := g.mirror()
		return m.UnderWay == 0 && m.Failed+m.Dropped == before.Failed+before.Dropped+200+uint64(before.UnderWay)
	})
	if n := len(first.all()); n != 600 {
		t.Errorf("%d requests came to the first upstream", n)
	}
}

// TestMirrorLetsGo shows that a copy whose body does not come to its end is let go, and others take its place. Meanwhile it is counted.
func TestMirrorLetsGo(t *testing.T) {
	first, second := newRecorder(t), newRecorder(t)
	g := run(t, mirrored("h1", first.addr, second.addr, ", at_once: 1"))
	for range 3 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a copy gathers its body", func() bool { return g.mirror().UnderWay == 1 })
		_ = c.Close()
		eventually(t, "it is let go", func() bool { return g.mirror().UnderWay == 0 })
	}
	if _, err := askNamed(newHTTPClient(t), g.addr, "/"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another is answered", func() bool { return g.mirror().Answered == 1 })
	if m := g.mirror(); m.Sent != 1 || m.Failed+m.Dropped+m.TooLong != 0 {
		t.Errorf("%+v", m)
	}
}

// TestMirrorBesideCanary shows that a canary hears of the ends of requests whose bodies are copied, too.
func TestMirrorBesideCanary(t *testing.T) {
	first, second, third := newRecorder(t), newRecorder(t), newRecorder(t)
	config := mirrored("h1", first.addr, second.addr, "")
	config = strings.NewReplacer("upstreams: {", "upstreams: { third: \""+third.addr+"\",",
		"to: first,", "to: first, canary: { to: third, steps: [50], hold: 1h },").Replace(config)
	g := run(t, config)
	c := newHTTPClient(t)
	const n = 40
	for range n {
		res, err := c.Post("http://"+g.addr+"/", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	eventually(t, "all are copied", func() bool { return g.mirror().Answered == n })
	k := g.canary()
	if a, b := k.Sides["canary"].Requests, k.Sides["stable"].Requests; a+b != n || int(a) != len(third.all()) || int(b) != len(first.all()) {
		t.Errorf("%d and %d of %d: %+v", a, b, n, k)
	}
	g.reload()
	if now := g.canary(); now.Sides["stable"] != k.Sides["stable"] || now.Sides["canary"] != k.Sides["canary"] {
		t.Errorf("a reload that does not concern the canary has it count anew: %+v, then %+v", k, now)
	}
}

// TestMirrorShare shows that the mirror gets its share of the requests.
func TestMirrorShare(t *testing.T) {
	first, second := newRecorder(t), newRecorder(t)
	g := run(t, mirrored("h1", first.addr, second.addr, ", share: 25%"))
	c := newHTTPClient(t)
	for range 800 {
		if _, err := askNamed(c, g.addr, "/"); err != nil {
			t.Fatal(err)
		}
	}
	if m := g.mirror(); m.Sent < 130 || m.Sent > 270 { // a deviation is 12
		t.Errorf("%d of 800 at 25 %%", m.Sent)
	}
}
