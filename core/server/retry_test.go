package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/vacant"
)

// faulty is an endpoint that speaks HTTP/1.1 and h2c, counts what comes to it, and answers as it is told.
type faulty struct {
	addr     string
	seen     atomic.Int64
	accepted atomic.Int64
	answer   atomic.Pointer[http.HandlerFunc]
	mu       sync.Mutex
	last     http.Header // of the last request
}

func newFaulty(t testing.TB, answer http.HandlerFunc) *faulty {
	t.Helper()
	u := &faulty{}
	u.answer.Store(&answer)
	u.addr = serveHTTP(t, &http.Server{Handler: u, Protocols: bothProtocols(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			u.accepted.Add(1)
		}
	}})
	return u
}

func (u *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.seen.Add(1)
	u.mu.Lock()
	u.last = r.Header.Clone()
	u.mu.Unlock()
	(*u.answer.Load())(w, r)
}

func (u *faulty) field(name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last.Get(name)
}

// repeatBack answers with the request's method and body.
func repeatBack(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = fmt.Fprintf(w, "%s %s", r.Method, body)
}

// answerWith answers with a status and a body, once it has read the request.
func answerWith(code int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "no luck")
	}
}

// reset breaks the connection, or the stream, off.
func reset(w http.ResponseWriter, r *http.Request) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// stall never answers. It reads the request, or net/http would not see that the gateway leaves.
func stall(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// stallMidHead sends the start of a head where that can be, and nothing more.
func stallMidHead(w http.ResponseWriter, r *http.Request) {
	h, ok := w.(http.Hijacker)
	if !ok {
		stall(w, r)
		return
	}
	c, _, err := h.Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// triedGate is a gateway with an upstream of these endpoints; more goes into the upstream, route into the route.
func triedGate(t testing.TB, protocol, more, route string, all ...*faulty) *gate {
	t.Helper()
	var list []string
	for _, u := range all {
		list = append(list, `"`+u.addr+`"`)
	}
	g := newGate(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { u: { endpoints: [%s], protocol: %s%s } }
routes: [{ match: "/*", to: u%s }]
`, strings.Join(list, ", "), protocol, more, route))
	t.Cleanup(g.settled)
	return g
}

// outcomeOf makes a request with fields, and tells of it as outcome does.
func (g *gate) outcomeOf(client *http.Client, method string, body io.Reader, fields ...string) string {
	r, err := http.NewRequestWithContext(context.Background(), method, "http://"+g.addr+"/", body)
	if err != nil {
		return err.Error()
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return g.outcomeOfRequest(client, r)
}

func (g *gate) outcomeOfRequest(client *http.Client, r *http.Request) string {
	res, err := client.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", res.StatusCode, text)
}

func h2Client(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// TestRetryElsewhere has one of three endpoints fail in each way there is, under load: no client of an idempotent request notices, and
// every body comes whole.
func TestRetryElsewhere(t *testing.T) {
	faults := map[string]http.HandlerFunc{"503": answerWith(503), "reset": reset, "stall": stall, "stall mid-head": stallMidHead}
	for _, protocol := range []string{"h1", "h2c"} {
		for name, fault := range faults {
			t.Run(protocol+" "+name, func(t *testing.T) {
				bad := newFaulty(t, fault)
				g := triedGate(t, protocol, ", retry: { on: [reset, gateway_error, timeout], per_try: 400ms, budget: { percent: 100% } }", "", // longer than a busy machine keeps who is well waiting
					bad, newFaulty(t, repeatBack), newFaulty(t, repeatBack))
				body := strings.Repeat("0123456789abcdef", 500)
				var clients sync.WaitGroup
				for i := range 8 {
					client := h1Client(t)
					if i%2 == 0 {
						client = h2Client(t)
					}
					clients.Go(func() {
						for range 5 {
							if got := g.outcomeOf(client, "GET", nil); got != "200 GET " {
								t.Errorf("GET: %q", got)
							}
							if got := g.outcomeOf(client, "PUT", strings.NewReader(body)); got != "200 PUT "+body {
								t.Errorf("PUT: %d bytes: %.100q", len(got), got)
							}
						}
					})
				}
				clients.Wait()
				if n := bad.seen.Load(); n < 20 {
					t.Errorf("only %d requests met the endpoint that fails", n)
				}
			})
		}
	}
}

// TestRetryKilledEndpoint kills an endpoint and brings it back, again and again, under load.
func TestRetryKilledEndpoint(t *testing.T) {
	stays := []*faulty{newFaulty(t, repeatBack), newFaulty(t, repeatBack)}
	dies := &faulty{addr: vacant.Address(t)}
	ln, err := net.Listen("tcp", dies.addr)
	if err != nil {
		t.Fatal(err)
	}
	g := triedGate(t, "h1", ", retry: { budget: { percent: 100% } }", "", stays[0], stays[1], dies)
	var over atomic.Bool
	var made, seen atomic.Int64
	var clients sync.WaitGroup
	for range 6 {
		client := h1Client(t)
		clients.Go(func() {
			for !over.Load() {
				if got := g.outcomeOf(client, "GET", nil); got != "200 GET " {
					t.Errorf("%q", got)
				}
				made.Add(1)
			}
		})
	}
	for range 8 {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			repeatBack(w, r)
		})}
		served := make(chan struct{})
		before := seen.Load()
		go func() {
			defer close(served)
			_ = server.Serve(ln)
		}()
		eventually(t, "it serves", func() bool { return seen.Load() > before+20 })
		_ = server.Close() // with what is under way
		<-served
		then := made.Load()
		eventually(t, "others serve", func() bool { return made.Load() > then+20 })
		eventually(t, "the port is free", func() bool {
			ln, err = net.Listen("tcp", dies.addr)
			return err == nil
		})
	}
	_ = ln.Close() // nobody accepts from it: who has a connection would wait for the timeout
	over.Store(true)
	clients.Wait()
}

// TestRetryMethods repeats what may be executed twice, by its method or because the client says so, and nothing else.
func TestRetryMethods(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{"503 no luck": answerWith(503), "502 upstream_reset": reset} {
		for _, c := range []struct {
			retry, method, key string
			again              bool
		}{
			{"{}", "GET", "", true},
			{"{}", "PUT", "", true},
			{"{}", "POST", "", false},
			{"{}", "POST", "1234", true},
			{"{}", "PATCH", "1234", true},
			{"{ idempotency_key: false }", "POST", "1234", false},
			{"{ methods: POST }", "POST", "", true},
			{"{ methods: POST }", "GET", "", false},
			{"off", "GET", "", false},
			{"1", "GET", "", false},
			{"{ on: connect }", "GET", "", false},
		} {
			t.Run(fmt.Sprintf("%s %s %s %s", name, c.retry, c.method, c.key), func(t *testing.T) {
				u := newFaulty(t, nil)
				first := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if u.seen.Load() == 1 {
						fault(w, r)
						return
					}
					repeatBack(w, r)
				})
				u.answer.Store(&first)
				g := triedGate(t, "h1", "", ", retry: "+c.retry, u)
				var fields []string
				if c.key != "" {
					fields = []string{"Idempotency-Key", c.key}
				}
				got, want, seen := g.outcomeOf(h2Client(t), c.method, strings.NewReader("a body"), fields...), "200 "+c.method+" a body", int64(2)
				if !c.again {
					want, seen = name, 1
					if !strings.Contains(want, "luck") {
						want = "502 {\"error\":\"upstream_reset\",\"status\":502}\n"
					}
				}
				if got != want || u.seen.Load() != seen {
					t.Errorf("%q after %d requests, want %q after %d", got, u.seen.Load(), want, seen)
				}
			})
		}
	}
}

// TestRetryWithoutBody shows that it is the method that keeps a request from being repeated, and not that its body is gone.
func TestRetryWithoutBody(t *testing.T) {
	u := newFaulty(t, answerWith(503))
	g := triedGate(t, "h1", ", retry: 2", "", u)
	for method, seen := range map[string]int64{"POST": 1, "GET": 2} {
		u.seen.Store(0)
		if got := g.outcomeOf(h2Client(t), method, nil); got != "503 no luck" || u.seen.Load() != seen {
			t.Errorf("%s: %q after %d requests", method, got, u.seen.Load())
		}
	}
}

// TestRetryReplaysBodies sends bodies of all sizes and framings to an endpoint that does not want them the first two times: what the
// client gets in the end is what it has sent, byte for byte. A body that is larger than what is kept is not sent again.
func TestRetryReplaysBodies(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		for _, size := range []int{1, 1000, 16 << 10, 60_000, 70_000} {
			for _, h2 := range []bool{false, true} {
				for _, chunked := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %d bytes, h2 %t, chunked %t", protocol, size, h2, chunked), func(t *testing.T) {
						body := make([]byte, size)
						for i := range body {
							body[i] = 'a' + byte(rand.N(26))
						}
						u := newFaulty(t, nil)
						third := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if u.seen.Load() < 3 {
								answerWith(502)(w, r)
								return
							}
							repeatBack(w, r)
						})
						u.answer.Store(&third)
						g := triedGate(t, protocol, ", retry: 3, replay_bytes: 64KiB", "", u)
						client := h1Client(t)
						if h2 {
							client = h2Client(t)
						}
						var r io.Reader = bytes.NewReader(body)
						if chunked {
							r = io.MultiReader(bytes.NewReader(body[:size/2]), bytes.NewReader(body[size/2:])) // of unknown length
						}
						want := "200 PUT " + string(body)
						if size > 64<<10 {
							want = "502 no luck"
						}
						if got := g.outcomeOf(client, "PUT", r); got != want {
							t.Errorf("%d bytes: %.60q, want %d", len(got), got, len(want))
						}
						if n := u.accepted.Load(); n != 1 && size < 64<<10 {
							t.Errorf("%d connections: a short answer that is dropped need not cost one", n)
						}
					})
				}
			}
		}
	}
}

// TestRetryBudget has every request fail: retries stay about the share of the load that the budget says.
func TestRetryBudget(t *testing.T) {
	for _, c := range []struct {
		more string
		most func(requests int64, took time.Duration) int64
	}{
		{", retry: { attempts: 4, backoff: { base: 25ms, jitter: none } }", func(n int64, _ time.Duration) int64 { return n * 13 / 10 }},
		{", retry: { attempts: 4, budget: { percent: 0%, floor: 0 } }", func(n int64, _ time.Duration) int64 { return n }},
		{", pool: { max_retries: 2 }, retry: { attempts: 2, budget: off, backoff: { base: 500ms, jitter: none } }", // two at a time, each of which waits half a second
			func(n int64, took time.Duration) int64 { return n + 2*int64(took/(500*time.Millisecond)+1) }},
	} {
		t.Run(c.more, func(t *testing.T) {
			slow := func(w http.ResponseWriter, r *http.Request) {
				<-time.After(20 * time.Millisecond) // so that requests are under way together
				answerWith(503)(w, r)
			}
			all := []*faulty{newFaulty(t, slow), newFaulty(t, slow)}
			g := triedGate(t, "h1", c.more, "", all...)
			const clients, each = 60, 8
			start := time.Now()
			var wg sync.WaitGroup
			for range clients {
				client := h1Client(t)
				wg.Go(func() {
					for range each {
						if got := g.outcomeOf(client, "GET", nil); got != "503 no luck" {
							t.Errorf("%q", got)
						}
					}
				})
			}
			wg.Wait()
			n := all[0].seen.Load() + all[1].seen.Load()
			if most := c.most(clients*each, time.Since(start)); n > most || n < clients*each {
				t.Errorf("%d requests have met the endpoints, want %d to %d", n, clients*each, most)
			}
			t.Logf("%d requests for %d", n, clients*each)
		})
	}
}

// TestRetryAfterIsRespected waits as long as an answer asks, unless that is too long.
func TestRetryAfterIsRespected(t *testing.T) {
	for _, c := range []struct {
		after, retry string
		seen         int64
		least, most  time.Duration
	}{
		{"1", "{ on: 503 }", 2, 900 * time.Millisecond, patience},
		{"2", "{ on: 503 }", 1, 0, 1900 * time.Millisecond},
		{"100", "{ on: 503, retry_after: off }", 2, 0, patience},
		{"0", "{ on: 503 }", 2, 0, time.Second},
	} {
		t.Run(c.after+" "+c.retry, func(t *testing.T) {
			u := newFaulty(t, answerWith(503, "Retry-After", c.after))
			g := triedGate(t, "h1", ", retry: "+c.retry, "", u)
			start := time.Now()
			if got := g.outcomeOf(h1Client(t), "GET", nil); got != "503 no luck" {
				t.Errorf("%q", got)
			}
			if took := time.Since(start); took < c.least || took > c.most || u.seen.Load() != c.seen {
				t.Errorf("%d requests in %v", u.seen.Load(), took)
			}
		})
	}
}

// TestRetryLeavesWithClient ends the wait before another attempt when the client leaves.
func TestRetryLeavesWithClient(t *testing.T) {
	for _, client := range []*http.Client{h1Client(t), h2Client(t)} {
		u := newFaulty(t, answerWith(503))
		g := triedGate(t, "h1", ", retry: { on: 503, backoff: { base: 1m, jitter: none } }", "", u)
		ctx, leave := context.WithCancel(context.Background())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan string)
		go func() { done <- g.outcomeOfRequest(client, r) }()
		eventually(t, "it waits", func() bool { return u.seen.Load() == 1 && g.state.Load().compiled.Upstreams[0].Retrying() == 1 })
		leave()
		<-done
		within(t, patience, "to leave", func() { eventually(t, "nobody waits", func() bool { return g.active() == 0 }) })
		if n := g.state.Load().compiled.Upstreams[0].Retrying(); n != 0 {
			t.Errorf("%d retries are counted", n)
		}
	}
}
