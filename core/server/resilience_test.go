package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that ask without a pause.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	asked  atomic.Int64
	failed atomic.Int64
	cut    atomic.Int64 // answers that broke off

	mu    sync.Mutex
	took  []time.Duration
	wrong map[string]int // what failed requests came to
}

// loaded has clients ask for path until stop. Each answer must be a whole one of 200.
func (g *running) loaded(clients int, path string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, wrong: map[string]int{}}
	g.t.Cleanup(func() { // of a test that has given up
		cancel()
		l.done.Wait()
	})
	for range clients {
		l.done.Go(func() {
			c := newHTTPClient(g.t)
			for ctx.Err() == nil {
				l.ask(c, "http://"+g.addr+path)
			}
		})
	}
	return l
}

func (l *load) ask(c *http.Client, url string) {
	began := time.Now()
	what := ""
	res, err := c.Get(url)
	if err == nil {
		var body []byte
		body, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 {
			what = fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(string(body[:min(len(body), 60)])))
		}
	}
	switch {
	case err == io.ErrUnexpectedEOF && res.StatusCode == 200: // the answer had begun: nobody could ask for it again
		l.cut.Add(1)
	case err != nil:
		what = err.Error()
	}
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(began))
	if what != "" {
		l.failed.Add(1)
		l.wrong[what]++
	}
}

// stop ends it, and tells what there was.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	slices.Sort(l.took)
	at := func(p int) time.Duration { return l.took[min(len(l.took)-1, len(l.took)*p/1000)] }
	t.Logf("%d requests, p50 %v, p99 %v, p99.9 %v, the longest %v; %d failed %v", len(l.took), at(500), at(990), at(999), l.took[len(l.took)-1], l.failed.Load(), l.wrong)
}

// retried is how often attempts were repeated, by cause, and denied, by reason.
func (g *running) retried() (lines []string) {
	g.t.Helper()
	metrics, err := g.admin.Metrics()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, line := range strings.Split(string(metrics), "\n") {
		if strings.HasPrefix(line, "sluice_retries") {
			lines = append(lines, line)
		}
	}
	return lines
}

// steady is a configuration whose upstream u has these endpoints, and everything on that keeps clients from their failures.
func steady(all []*process, more string) string {
	var list []string
	for _, p := range all {
		list = append(list, fmt.Sprintf("%q", p.addr))
	}
	return fmt.Sprintf(`
loops: 2
log: { format: json }
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u: { endpoints: [%s], health: { path: /health, interval: 200ms, timeout: 200ms, unhealthy: 2, healthy: 1 },
    outlier: { base_ejection_time: 500ms, interval: 100ms }, balance: least_request, %s }
routes: [{ match: "/*", to: u }]
`, strings.Join(list, ", "), more)
}

// TestRetryAtOnce shows that nobody waits before another attempt where that relieves nobody: an endpoint could not be reached and another is
// to be asked, or a kept connection was closed.
func TestRetryAtOnce(t *testing.T) {
	all := newProcesses(t, 2)
	config := strings.Replace(balanced("round_robin, retry: { backoff: { base: 1m, jitter: none } }", nil), "endpoints: []", fmt.Sprintf("endpoints: [%q, %q]", all[0].addr, all[1].addr), 1)
	g := run(t, strings.Replace(config, "loops: 2", "loops: 1", 1)) // each loop has connections of its own
	c := newHTTPClient(t)
	ask := func(path string) {
		t.Helper()
		if _, err := askNamed(c, g.addr, path); err != nil {
			t.Error(err)
		}
	}
	for range 4 {
		ask("/x")
	}
	l := g.loaded(2, "/x?ms=300") // one at each, over kept connections
	eventually(t, "it comes to pass", func() bool { return g.inFlight() == 2 })
	all[0].kill()
	l.cancel()
	l.stop(t)
	for range 4 {
		ask("/x")
	}
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d requests failed: %v", n, l.wrong)
	}
}

// TestEndpointsKilled kills one of three endpoints again and again under load: whatever the protocol, and whether connections are
// kept, no client notices. With SLUICE_SOAK each of the four lasts a twelfth of that.
func TestEndpointsKilled(t *testing.T) {
	length, pause := 1500*time.Millisecond, 150*time.Millisecond
	if os.Getenv(soakVariable) != "" {
		length, pause = soakTime(t)/12, 300*time.Millisecond
	}
	for _, more := range []string{ // the budget is another test's: on a busy machine many requests meet an endpoint's end at once
		"retry: { budget: off }",
		"retry: { attempts: 2, budget: off }",
		"retry: { budget: off }, protocol: h2c",
		"retry: { budget: off }, pool: { requests_per_connection: 1 }", // what fails is never taken for the end of a kept connection
	} {
		t.Run(more, func(t *testing.T) {
			all := newProcesses(t, 3)
			g := run(t, steady(all, more))
			defer g.stop()
			l := g.loaded(24, "/x?ms=5")
			for i, until := 0, time.Now().Add(length); time.Now().Before(until); i++ {
				p := all[i%len(all)]
				time.Sleep(pause)
				p.kill()
				time.Sleep(pause)
				p.start()
				eventually(t, "it is back", func() bool { return g.flags(p.addr) == nil })
			}
			l.stop(t)
			t.Log(strings.Join(g.retried(), "\n"))
			if n := l.failed.Load(); n > 0 {
				t.Errorf("%d of %d requests failed: %v", n, l.asked.Load(), l.wrong)
			}
			if n := l.cut.Load(); n > 1+l.asked.Load()/10_000 {
				t.Errorf("%d of %d answers were cut off", n, l.asked.Load())
			}
		})
	}
}
