package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// guarded is a configuration with two upstreams, of one endpoint each, of which the first has more keys. In the route, too, there
// may be more.
func guarded(first, second *named, more, route string) string {
	return fmt.Sprintf(`
loops: 2
log: { format: json }
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams:
  u: { endpoints: [%q]%s }
  v: { endpoints: [%q] }
routes: [{ match: "/v", to: v }, { name: r, match: "/*", to: u%s }]
`, first.addr, more, second.addr, route)
}

func (g *running) upstream(name string) admin.UpstreamStatus {
	g.t.Helper()
	all, err := g.admin.Upstreams()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, u := range all {
		if u.Name == name {
			return u
		}
	}
	g.t.Fatalf("there is no upstream %s", name)
	return admin.UpstreamStatus{}
}

// breaker is that of the upstream u, or else of the route r.
func (g *running) breaker() admin.BreakerStatus {
	g.t.Helper()
	if b := g.upstream("u").Breaker; b != nil {
		return *b
	}
	routes, err := g.admin.Routes()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, r := range routes {
		if r.Name == "r" && r.Breaker != nil {
			return *r.Breaker
		}
	}
	g.t.Fatal("there is no breaker")
	return admin.BreakerStatus{}
}

const quickBreaker = "breaker: { errors: 50%, min_requests: 10, window: 10s, cooldown: 200ms, growth: 1, probes: 3"

// TestBreaker shows how a breaker opens, refuses, lets exactly so many try, opens again, and closes; before an upstream, and of a route.
func TestBreaker(t *testing.T) {
	f := func(more, route string) {
		t.Helper()
		all := newNamed(t, 2)
		u := all[0]
		g := run(t, guarded(u, all[1], more, route))
		defer g.stop()
		c := newHTTPClient(t)
		if failed := g.failures(9); failed != 0 {
			t.Fatalf("%d requests failed", failed)
		}
		u.status.Store(500)
		if failed := g.failures(9); failed != 9 {
			t.Fatalf("%d requests failed, want 9", failed)
		}
		u.seen.Store(0)
		if status, retry, body := statusOf(t, c, g.addr, "/x", "Retry-After"); status != 503 || retry != "1" || body != `{"error":"breaker_open","status":503}`+"\n" {
			t.Errorf("got %d, Retry-After %q, %s", status, retry, body)
		}
		if n := u.seen.Load(); n != 0 {
			t.Errorf("the endpoint has got %d requests", n)
		}
		if b := g.breaker(); b.State != "open" || b.Opened != 1 || b.Refused != 1 || b.Left <= 0 && b.Left > 0.2 {
			t.Errorf("shown as %+v", b)
		}
		if status, _, body := statusOf(t, c, g.addr, "/v", ""); status != 200 || body != all[1].name {
			t.Errorf("the other upstream: %d %s", status, body)
		}
		// Half-open and the endpoint still fails: the first who tries opens it again.
		eventually(t, "the cooldown is over", func() bool { return g.breaker().Left == 0 })
		g.failures(1)
		if b := g.breaker(); b.State != "open" || b.Opened != 2 || u.seen.Load() != 1 {
			t.Errorf("after a probe that failed it is %+v, and the endpoint has %d requests", b, u.seen.Load())
		}
		// Half-open, and those who try are held: of many at once exactly three pass.
		eventually(t, "the cooldown is over", func() bool { return g.breaker().Left == 0 })
		u.status.Store(200)
		u.seen.Store(0)
		var wg sync.WaitGroup
		var passed, refused atomic.Int64
		for range 20 {
			wg.Go(func() {
				if _, err := askNamed(newHTTPClient(t), g.addr, "/hold"); err == nil {
					passed.Add(1)
				} else if strings.Contains(err.Error(), "breaker_open") {
					refused.Add(1)
				}
			})
		}
		eventually(t, "three probes are under way and the others refused", func() bool { return u.seen.Load() == 3 && refused.Load() == 17 })
		close(u.held)
		wg.Wait()
		if passed.Load() != 3 || g.breaker().State != "closed" {
			t.Errorf("%d passed, %d were refused, and it is %+v", passed.Load(), refused.Load(), g.breaker())
		}
		if failed := g.failures(20); failed != 0 {
			t.Errorf("%d requests failed after it has closed", failed)
		}
		for _, want := range []string{`"cause":"errors","requests":18,"failures":9,"slow":0,"cooldown":"200ms"`, `"cause":"probe"`, "breaker half-open", "breaker closed"} {
			g.logged(want)
		}
		metrics, err := g.admin.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`breaker_opened_total{`, `cause="errors"} 1`, `cause="probe"} 1`, `state="closed"} 1`, `reason="breaker_open"`} {
			if !strings.Contains(string(metrics), want) {
				t.Errorf("the metrics do not tell of %s", want)
			}
		}
	}
	f(", "+quickBreaker+" }", "")
	f("", ", "+quickBreaker+" }")
}

// TestBreakerFallback shows what answers while a breaker is open: a fixed answer, or another upstream, whose own fallback counts.
func TestBreakerFallback(t *testing.T) {
	f := func(fallback, route string, status int, want string) {
		t.Helper()
		all := newNamed(t, 2)
		all[0].status.Store(502)
		more := ""
		if fallback != "" {
			more = ", breaker: { errors: off, consecutive: 3, fallback: " + fallback + " }"
		}
		if route != "" {
			route = ", breaker: { errors: off, consecutive: 3, fallback: " + route + " }"
		}
		g := run(t, guarded(all[0], all[1], more, route))
		defer g.stop()
		if failed := g.failures(3); failed != 3 {
			t.Errorf("%d failed", failed)
		}
		got, _, body := statusOf(t, newHTTPClient(t), g.addr, "/x", "")
		if got != status || body != want || counts(all)[0] != 3 {
			t.Errorf("%s %s: got %d %s after %d requests", fallback, route, got, body, counts(all)[0])
		}
		if b := g.breaker(); b.Fallbacks != 1 || b.Refused != 1 {
			t.Errorf("%s %s: shown as %+v", fallback, route, b)
		}
	}
	f("{ respond: { status: 200, body: later } }", "", 200, "later")
	f("{ to: v }", "", 200, "endpoint1")
	f("", "{ respond: { status: 599, body: x } }", 599, "x")
	f("", "{ to: v }", 200, "endpoint1")
}

// TestBreakerByTime shows that answers which take long open a breaker, and that clients who leave do not.
func TestBreakerByTime(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, guarded(all[0], all[1], `, breaker: { errors: 1%, slow: p50 > 20ms, min_requests: 5 }`, ""))
	for range 8 {
		c := newHTTPClient(t)
		c.Timeout = 10 * time.Millisecond
		_, _ = askNamed(c, g.addr, "/hold")
	}
	eventually(t, "nothing is in flight", func() bool { return g.inFlight() == 0 })
	if b := g.breaker(); b.State != "closed" {
		t.Errorf("clients that left have made it %+v", b)
	}
	all[0].delay.Store(int64(30 * time.Millisecond))
	if g.failures(5); g.breaker().State != "open" {
		t.Errorf("slow answers have made it %+v", g.breaker())
	}
	g.logged(`"cause":"latency"`)
}

// logged waits until the error log has a text: it is written by another goroutine than that which serves.
func (g *running) logged(text string) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(g.log.String(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s is not logged:\n%s", text, g.log)
		}
	}
}

// TestBreakerReload shows that an open breaker stays open over reloads that change its fallback alone, and that one with another spec
// begins closed.
func TestBreakerReload(t *testing.T) {
	all := newNamed(t, 2)
	config := func(cooldown, fallback string) string {
		return guarded(all[0], all[1], ", breaker: { errors: off, consecutive: 3, cooldown: "+cooldown+fallback+" }", "")
	}
	g := run(t, config("1m", ""))
	all[0].status.Store(500)
	g.failures(3)
	g.write(config("1m", ", fallback: { to: v }"))
	g.reload()
	if b := g.breaker(); b.State != "open" || g.failures(1) != 0 {
		t.Errorf("after a reload it is %+v", b)
	}
	g.write(config("2m", ""))
	g.reload()
	all[0].status.Store(200)
	if b := g.breaker(); b.State != "closed" || g.failures(5) != 0 {
		t.Errorf("with another spec it is %+v", b)
	}
}

// TestMaxRequests shows that requests over the maximum are refused at once, and that each gives its place back, whichever way it ends.
func TestMaxRequests(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, guarded(all[0], all[1], ", pool: { max_requests: 2 }", ""))
	f := func(leave bool) {
		t.Helper()
		eventually(t, "nothing is under way", func() bool { return g.upstream("u").Active == 0 }) // an answer leaves before its place is given back
		var clients []net.Conn
		for range 2 {
			c, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
			clients = append(clients, c)
		}
		eventually(t, "two are under way", func() bool { return g.upstream("u").Active == 2 })
		began := time.Now()
		status, _, body := statusOf(t, newHTTPClient(t), g.addr, "/x", "")
		if status != 503 || body != `{"error":"max_requests","status":503}`+"\n" {
			t.Errorf("got %d %s after %v", status, body, time.Since(began))
		}
		if !leave {
			close(all[0].held)
			for _, c := range clients {
				_, _ = c.Read(make([]byte, 100))
			}
		}
		for _, c := range clients {
			_ = c.Close()
		}
		eventually(t, "nothing is under way", func() bool { return g.upstream("u").Active == 0 })
		if failed := g.failures(10); failed != 0 {
			t.Errorf("%d requests failed afterwards", failed)
		}
	}
	f(true)
	f(false)
	all[0].held = make(chan struct{})
	c := &http.Client{Transport: &http.Transport{Protocols: &http.Protocols{}}}
	c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer c.CloseIdleConnections()
	for range 10 { // streams that are reset
		ctx, leave := context.WithCancel(context.Background())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/hold", nil)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if res, err := c.Do(r); err == nil {
				_ = res.Body.Close()
			}
		}()
		eventually(t, "one is under way", func() bool { return g.upstream("u").Active == 1 })
		leave()
		<-gone
		eventually(t, "nothing is under way", func() bool { return g.upstream("u").Active == 0 })
	}
	all[0].status.Store(500)
	g.failures(5)
	all[0].addr = "127.0.0.1:1"
	g.write(guarded(all[0], all[1], ", pool: { max_requests: 2 }", ""))
	g.reload()
	g.failures(5) // connections that are refused
	eventually(t, "nothing is under way", func() bool { return g.upstream("u").Active == 0 })
}

// TestAdaptiveConcurrency shows that an upstream which gets slow with the requests at it has excess refused, and is asked as much as
// before once it has recovered.
func TestAdaptiveConcurrency(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, guarded(all[0], all[1], ", concurrency: { min_concurrency: 2, update_interval: 10ms, measure_requests: 10, measure_interval: 1h }", ""))
	all[0].delay.Store(int64(2 * time.Millisecond))
	g.failures(30) // one at a time: the latency without load
	status := func() admin.ConcurrencyStatus { return *g.upstream("u").Concurrency }
	if s := status(); s.Least < 0.001 || s.Least > 0.1 {
		t.Errorf("the latency without load is %+v", s)
	}
	all[0].delay.Store(int64(100 * time.Millisecond)) // as if it were queueing
	var wg sync.WaitGroup
	var refused, other atomic.Int64
	most := atomic.Int64{}
	for range 20 {
		wg.Go(func() {
			c := newHTTPClient(t)
			for range 20 {
				_, err := askNamed(c, g.addr, "/x")
				switch {
				case err == nil:
				case strings.Contains(err.Error(), "concurrency_limit"):
					refused.Add(1)
					<-time.After(5 * time.Millisecond)
				default:
					other.Add(1)
				}
				most.Store(max(most.Load(), int64(status().InFlight)))
			}
		})
	}
	wg.Wait()
	s := status()
	t.Logf("%d of 400 refused, at most %d in flight, at last %+v", refused.Load(), most.Load(), s)
	if refused.Load() < 50 || other.Load() != 0 || s.Limit > 15 || s.InFlight != 0 {
		t.Errorf("%d were refused, %d failed otherwise, and it is %+v", refused.Load(), other.Load(), s)
	}
}
