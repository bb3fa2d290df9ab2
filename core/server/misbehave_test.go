package server

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// TestEndpointsMisbehave has one of three endpoints under load do everything but die: no client notices what retries can mend, and what they
// cannot, an answer that breaks off, lasts until the endpoint is ejected. The configuration is reloaded all along.
func TestEndpointsMisbehave(t *testing.T) {
	// The budget is another test's: on a busy machine many requests meet the endpoint at once.
	const retry, eager = "retry: { budget: off }", "retry: { attempts: 3, budget: off, on: [connect, reset, timeout, gateway_error, 5xx] }"
	for _, c := range []struct {
		how, more string
		most      int64 // requests that fail
	}{
		{"stop", retry + ", timeouts: { header: 600ms }", 0}, // by SIGSTOP; the timeout is longer than a busy machine keeps those waiting that are well
		{"stop", retry + ", timeouts: { header: 600ms }, protocol: h2c", 0},
		{"stall", retry + ", timeouts: { header: 600ms }", 0},
		{"500", eager, 0},
		{"503", eager, 0}, // to checks as well
		{"reset", retry, 0},
		{"reset", retry + ", protocol: h2c", 0},
		{"cut", retry, 5 + 12 + 12}, // until five in a row: those under way, and those that follow meanwhile
		{"half", retry + ", timeouts: { idle: 100ms }", 5 + 12 + 12}, // likewise
	} {
		t.Run(c.how+" "+c.more, func(t *testing.T) {
			all := newProcesses(t, 3)
			config := strings.Replace(steady(all, c.more), "interval: 100ms }", "interval: 100ms, successful_active_health_check_uneject_host: false }", 1)
			config = strings.Replace(config, "base_ejection_time: 500ms", "base_ejection_time: 800ms", 1)
			g := run(t, config)
			defer g.stop()
			l := g.loaded(12, "/x?ms=3")
			time.Sleep(150 * time.Millisecond) // so that there is load
			p := all[1]
			if c.how == "stop" {
				p.signal(syscall.SIGSTOP)
			} else {
				p.behave(c.how)
			}
			for range 5 {
				time.Sleep(60 * time.Millisecond)
				g.reload()
			}
			eventually(t, "it is taken for unhealthy", func() bool { return g.flags(p.addr) != nil })
			if c.how == "stop" {
				p.signal(syscall.SIGCONT)
			} else {
				p.behave("ok")
			}
			eventually(t, "it comes to pass", func() bool { return g.flags(p.addr) == nil })
			l.stop(t)
			t.Log(strings.Join(g.retried(), "\n"))
			if n := l.failed.Load(); n > c.most {
				t.Errorf("%d of %d requests failed, want at most %d: %v", n, l.asked.Load(), c.most, l.wrong)
			}
			if u := g.upstream("u"); u.Active != 0 || u.Pending != 0 || g.inFlight() != 0 {
				t.Errorf("left over: %+v", u)
			}
		})
	}
}

// TestAllDown kills all endpoints: clients are told at once, and are served again when the next check has passed.
func TestAllDown(t *testing.T) {
	for _, more := range []string{"retry: on", "retry: on, balance: { least_request: {}, panic: 0% }", "breaker: { consecutive: 5, cooldown: 200ms }, retry: on"} {
		t.Run(more, func(t *testing.T) {
			all := newProcesses(t, 3)
			config := steady(all, more)
			if strings.Contains(more, "balance") {
				config = strings.Replace(config, " balance: least_request,", "", 1)
			}
			g := run(t, config)
			defer g.stop()
			if failed := g.failures(10); failed != 0 {
				t.Fatalf("%d requests failed", failed)
			}
			for _, p := range all {
				p.kill()
			}
			eventually(t, "it comes to pass", func() bool { // by checks, or by outliers and then checks
				return !slices.ContainsFunc(all, func(p *process) bool { return !slices.Contains(g.flags(p.addr), "check") })
			})
			l := &load{wrong: map[string]int{}, cancel: func() {}}
			c := newHTTPClient(t)
			for range 100 {
				l.ask(c, "http://"+g.addr+"/x")
			}
			l.stop(t)
			if n := l.failed.Load(); n != 100 {
				t.Errorf("%d of 100 requests failed", n)
			}
			for what := range l.wrong {
				if !strings.HasPrefix(what, "503") && !strings.HasPrefix(what, "502") {
					t.Errorf("a client got %q", what)
				}
			}
			for _, p := range all {
				p.start()
			}
			began := time.Now()
			for {
				before := l.failed.Load()
				if l.ask(c, "http://"+g.addr+"/x"); l.failed.Load() == before {
					break
				}
				if time.Since(began) > patience {
					t.Fatalf("they are not served any more: %v", l.wrong)
				}
			}
			t.Logf("served again after %v", time.Since(began))
		})
	}
}

// TestSubsetOfTheDead has one subset of an upstream lose its endpoints, one after another, by outliers and by checks: the other subset does
// not notice, and panic is each subset's own.
func TestSubsetOfTheDead(t *testing.T) {
	all := newProcesses(t, 4)
	var list []string
	for i, p := range all {
		list = append(list, fmt.Sprintf("{ address: %q, labels: { version: v%d } }", p.addr, 1+i/2))
	}
	g := run(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u:
    endpoints: [%s]
    balance: { least_request: {}, panic: 50%% }
    health: { path: /health, interval: 200ms, timeout: 200ms, unhealthy: 1, healthy: 1 }
    outlier: { base_ejection_time: 1m, interval: 100ms, max_ejection_percent: 100%%, successful_active_health_check_uneject_host: false }
    retry: { attempts: 3, budget: off, on: [connect, reset, 5xx] }
routes:
  - { match: "/v1", to: { upstream: u, subset: { version: v1 } } }
  - { match: "/v2", to: { upstream: u, subset: { version: v2 }, otherwise: any } }
`, strings.Join(list, ", ")))
	first, second := g.loaded(6, "/v1"), g.loaded(6, "/v2")
	eventually(t, "it comes to pass", func() bool { return second.asked.Load() > 200 })
	all[3].behave("500")
	eventually(t, "it comes to pass", func() bool { return slices.Contains(g.flags(all[3].addr), "ejected") })
	all[3].behave("ok") // still ejected
	if n := second.failed.Load(); n > 0 {
		t.Errorf("%d requests failed with one of the subset ejected: %v", n, second.wrong)
	}
	all[2].kill()
	eventually(t, "it comes to pass", func() bool { return slices.Contains(g.flags(all[2].addr), "check") })
	time.Sleep(50 * time.Millisecond) // until requests have ended that had been given the dead one alone
	before := second.failed.Load()    // now nothing of v2 is healthy, and panic has both asked
	time.Sleep(250 * time.Millisecond)
	for range 3 {
		g.reload()
	}
	first.stop(t)
	if n := first.failed.Load(); n > 0 {
		t.Errorf("%d requests to the other subset failed: %v", n, first.wrong)
	}
	second.stop(t)
	if n := second.failed.Load(); n > before {
		t.Errorf("%d requests to the subset failed in panic: %v", n-before, second.wrong)
	}
	all[2].start()
	eventually(t, "it comes to pass", func() bool { return !slices.Contains(g.flags(all[2].addr), "check") })
	if failed := g.loadFor(t, 100*time.Millisecond, "/v2"); failed != 0 {
		t.Errorf("%d requests failed after all", failed)
	}
}

// loadFor is load for a time; it gives how many requests failed.
func (g *running) loadFor(t *testing.T, length time.Duration, path string) int64 {
	t.Helper()
	l := g.loaded(4, path)
	time.Sleep(length)
	l.stop(t)
	return l.failed.Load()
}

// TestBreakerRetriesFallback kills the endpoints of an upstream under load whose breaker has another stand in: clients notice nothing but the
// failures that open it, and are back when it closes.
func TestBreakerRetriesFallback(t *testing.T) {
	all := newProcesses(t, 3)
	g := run(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u:
    endpoints: [%q, %q]
    retry: on
    outlier: { interval: 100ms, base_ejection_time: 300ms }
    breaker: { errors: 50%%, min_requests: 10, window: 1s, consecutive: 5, cooldown: 200ms, growth: 1, probes: 2, fallback: { to: v } }
  v: %q
routes: [{ match: "/*", to: u }]
`, all[0].addr, all[1].addr, all[2].addr))
	l := g.loaded(8, "/x?ms=2")
	time.Sleep(100 * time.Millisecond)
	all[0].kill()
	time.Sleep(100 * time.Millisecond)
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d requests failed with one of two endpoints down: %v", n, l.wrong)
	}
	all[1].kill()
	eventually(t, "it comes to pass", func() bool { return g.breaker().State == "open" })
	time.Sleep(150 * time.Millisecond)
	if n := l.failed.Load(); n > 5+8 { // five in a row, and those who were under way
		t.Errorf("%d requests failed until the breaker was open, and then: %v", n, l.wrong)
	}
	all[0].start()
	eventually(t, "it comes to pass", func() bool { return g.breaker().State == "closed" })
	before := l.failed.Load()
	time.Sleep(100 * time.Millisecond)
	l.stop(t)
	if n := l.failed.Load(); n > before {
		t.Errorf("%d requests failed after it had closed: %v", n-before, l.wrong)
	}
	if b := g.breaker(); b.Fallbacks == 0 || b.Refused != b.Fallbacks {
		t.Errorf("%+v", b)
	}
}

// TestCanaryDies kills a canary's process under load, and its mirror's: the canary is aborted, clients of the stable side notice neither.
func TestCanaryDies(t *testing.T) {
	all := newProcesses(t, 3)
	g := run(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { stable: %q, next: { endpoints: [%q], retry: on, outlier: { interval: 100ms } }, shadow: %q }
routes:
  - { name: r, match: "/*", to: stable, mirror: shadow, canary: { to: next, steps: [20], hold: 1h, window: 5s, min_requests: 10, abort: "errors > stable + 5%%" } }
`, all[0].addr, all[1].addr, all[2].addr))
	l := g.loaded(8, "/x?ms=2")
	eventually(t, "it comes to pass", func() bool { return g.canary().Sides["canary"].Requests > 20 })
	all[2].kill()
	time.Sleep(200 * time.Millisecond)
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d requests failed because of a mirror: %v", n, l.wrong)
	}
	all[1].kill()
	eventually(t, "it comes to pass", func() bool { return g.canary().State == "aborted" })
	g.reload()
	before := l.failed.Load()
	time.Sleep(200 * time.Millisecond)
	l.stop(t)
	if n := l.failed.Load(); n > before+8 { // each client may have been on its way there
		t.Errorf("%d requests failed after the canary was aborted: %v", n-before, l.wrong)
	}
	if s := g.canary().Sides["stable"]; s.Failures > 0 {
		t.Errorf("%d failures of the stable side", s.Failures)
	}
	var m *admin.MirrorStatus
	eventually(t, "it comes to pass", func() bool {
		routes, err := g.admin.Routes()
		if err != nil {
			t.Fatal(err)
		}
		m = routes[0].Mirror
		return m.UnderWay == 0 && m.Sent == m.Answered+m.Failed
	})
	if m.Answered == 0 || m.Failed == 0 {
		t.Errorf("%+v", m)
	}
}

// TestNamesChangeWhileEjected has the name of three endpoints lose the one that is ejected, and get it back: it is as new then, and nothing is
// left of the ejection.
func TestNamesChangeWhileEjected(t *testing.T) {
	all := newProcesses(t, 3)
	record := func(p *process) string {
		host, _, _ := strings.Cut(p.addr, ":")
		return "shop.example. 1 IN A " + host
	}
	z := newZone(t, record(all[0]), record(all[1]), record(all[2]))
	_, port, _ := strings.Cut(all[0].addr, ":")
	g := run(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
resolvers: %q
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u: { endpoints: "shop.example:%s", balance: least_request, retry: { attempts: 3, budget: off, on: [connect, reset, 5xx] }, outlier: { base_ejection_time: 1m, interval: 100ms },
    health: { path: /health, interval: 200ms, timeout: 200ms }, resolve: { min: 1s } }
routes: [{ match: "/*", to: u }]
`, z.at, port))
	eventually(t, "it comes to pass", func() bool { return len(g.upstream("u").Endpoints) == 3 })
	l := g.loaded(8, "/x?ms=2")
	eventually(t, "it comes to pass", func() bool { return l.asked.Load() > 200 })
	all[0].behave("500")
	eventually(t, "it comes to pass", func() bool { return g.ejected(all[0].addr) })
	z.set(record(all[1]), record(all[2]))
	eventually(t, "it comes to pass", func() bool { return len(g.upstream("u").Endpoints) == 2 })
	all[1].kill() // the detector must not count the one that has gone: this one may be ejected
	eventually(t, "it comes to pass", func() bool { return len(g.flags(all[1].addr)) > 0 })
	g.reload()
	all[1].start()
	all[0].behave("ok")
	z.set(record(all[0]), record(all[1]), record(all[2]))
	eventually(t, "it comes to pass", func() bool { return len(g.upstream("u").Endpoints) == 3 && g.flags(all[0].addr) == nil })
	l.stop(t)
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed: %v", n, l.asked.Load(), l.wrong)
	}
}
