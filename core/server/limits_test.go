package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-gateway/sluice/core"
)

// limitGate is a gateway with a policy on all its requests.
func limitGate(t testing.TB, upstream string, loops int, policy string) *gate {
	t.Helper()
	text := strings.Replace(h2Config(upstream, "[h1, h2c]"), "loops: 2", fmt.Sprintf("loops: %d", loops), 1)
	return newGate(t, strings.Replace(text, `to: a }`, `to: a, use: p }`, 1)+"policies: { p: { "+policy+" } }\n")
}

func newH1Client(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// TestLimitOverBothProtocols gets the same answers over HTTP/1.1 and HTTP/2, with the same fields.
func TestLimitOverBothProtocols(t *testing.T) {
	var answers []string
	for _, client := range []*http.Client{newH1Client(t), newH2Client(t)} {
		g := limitGate(t, newManyUpstream(t).addr, 2, `rate_limit: { limit: [2/h, 3/day], key: [ip, host, "query:a", "cookie:s"], legacy_headers: true }`)
		text := ""
		for _, path := range []string{"/small?a=1", "/small?b&a=%31", "/small?a=1", "/small?a=2", "/small", "/small"} {
			req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Cookie"] = []string{"x=1; s=a"}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			text += fmt.Sprint(path, " ", res.StatusCode, " ", string(body), err, "\n")
			for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining"} {
				text += fmt.Sprint("  ", name, ": ", res.Header.Values(name), "\n")
			}
		}
		answers = append(answers, text)
	}
	if answers[0] != answers[1] {
		t.Errorf("over HTTP/1.1:\n%s\nover HTTP/2:\n%s", answers[0], answers[1])
	}
	for _, want := range []string{"/small?a=1 429 ", "/small?a=2 200 ", "/small 200 ", `RateLimit: ["p-h";r=0;t=3600]`, `Retry-After: [1800]`} {
		if !strings.Contains(answers[0], want) {
			t.Errorf("no %q in\n%s", want, answers[0])
		}
	}
}

// TestLimitOfGRPC refuses a call as gRPC does, with the fields of a limit.
func TestLimitOfGRPC(t *testing.T) {
	g := limitGate(t, newCallee(t), 2, `rate_limit: { limit: 1/h, key: global, body: "no text for gRPC", headers: { X-Plan: free } }`)
	client := newH2Client(t)
	body, err := proto.Marshal(&testpb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		req, err := http.NewRequest("POST", "http://"+g.addr+"/grpc.testing.TestService/EmptyCall", strings.NewReader(string(webFrame(0, body))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if n == 0 {
			continue // the upstream speaks HTTP/1.1 here: what it answers is not of interest
		}
		h := res.Header
		if err != nil || res.StatusCode != 200 || len(text) > 0 || h.Get("Grpc-Status") != "8" || h.Get("Grpc-Message") != "rate_limited" ||
			h.Get("X-Plan") != "free" || h.Get("Retry-After") != "3600" || h.Get("RateLimit") != `"p";r=0;t=3600` {
			t.Errorf("%s %v %q, %v", res.Status, h, text, err)
		}
	}
}

// TestLimitBound has many clients on many loops ask for more than there is. What is admitted is never above the bound, and at
// least 97 % of it, whether the limit is leased or asked directly.
func TestLimitBound(t *testing.T) {
	const loops, clients, each, limit = 8, 24, 250, 2000
	for name, policy := range map[string]string{
		"leased":    fmt.Sprintf(`rate_limit: { limit: %d/h, key: global }`, limit),
		"direct":    fmt.Sprintf(`rate_limit: { limit: %d/h, key: ip }`, limit),
		"windows":   fmt.Sprintf(`rate_limit: { algorithm: sliding_window, limit: [%d/h, 100000/day], key: route }`, limit),
		"hierarchy": fmt.Sprintf(`rate_limit: { limits: [{ scope: global, limit: %d/h }, { limit: 4000/h }, { scope: header:x, limit: 1000/h }] }`, limit),
	} {
		t.Run(name, func(t *testing.T) {
			g := limitGate(t, newManyUpstream(t).addr, loops, policy)
			var admitted, others atomic.Int64
			var done sync.WaitGroup
			for n := range clients {
				done.Go(func() {
					client := newH1Client(t)
					for range each {
						req, _ := http.NewRequest("GET", "http://"+g.addr+"/small", nil)
						req.Header.Set("X", fmt.Sprint(n%4))
						res, err := client.Do(req)
						if err != nil {
							t.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
						switch res.StatusCode {
						case 200:
							admitted.Add(1)
						case 429:
						default:
							others.Add(1)
						}
					}
				})
			}
			done.Wait()
			// What comes back while the test runs, 1 % for leases, and one for each loop in a hierarchy.
			if n := admitted.Load(); n > limit*102/100 || n < limit*97/100 || others.Load() > 0 {
				t.Errorf("%d of %d were admitted, the limit is %d; %d had other answers", n, clients*each, limit, others.Load())
			}
		})
	}
}

// TestLeakyBucketDelays paces requests that come at once, refuses those that would wait too long, and lets go of those whose client
// leaves.
func TestLeakyBucketDelays(t *testing.T) {
	g := limitGate(t, newManyUpstream(t).addr, 2, `rate_limit: { algorithm: leaky_bucket, limit: 10/s, max_wait: 450ms, key: header:x }`)
	for name, client := range map[string]*http.Client{"h1": newH1Client(t), "h2c": newH2Client(t)} {
		var done sync.WaitGroup
		var admitted atomic.Int64
		start := time.Now()
		for range 8 {
			done.Go(func() {
				req, _ := http.NewRequest("GET", "http://"+g.addr+"/small", nil)
				req.Header.Set("X", name)
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
				if res.StatusCode == 200 {
					admitted.Add(1)
				} else if res.StatusCode != 429 {
					t.Errorf("%s: %s", name, res.Status)
				}
			})
		}
		done.Wait()
		if took, n := time.Since(start), admitted.Load(); took < 380*time.Millisecond || n < 5 || n > 8 {
			t.Errorf("%s: %d were admitted in %v, want 5 in 400 ms or more", name, n, took)
		}
	}
	g = limitGate(t, newManyUpstream(t).addr, 1, `rate_limit: { algorithm: leaky_bucket, limit: 1/min, max_wait: 1m, key: header:x }`)
	for name, client := range map[string]*http.Client{"h1": newH1Client(t), "h2c": newH2Client(t)} {
		ask := func(ctx context.Context) error {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+"/small", nil)
			req.Header.Set("X", name)
			res, err := client.Do(req)
			if err == nil {
				_ = res.Body.Close()
			}
			return err
		}
		if err := ask(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- ask(ctx) }()
		eventually(t, "one waits", func() bool { return g.active() == 1 })
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		eventually(t, "nobody waits any more", func() bool { return g.active() == 0 })
	}
}

// TestConcurrencyIsRenewed keeps requests in flight for longer than two terms, in which nobody else is admitted.
func TestConcurrencyIsRenewed(t *testing.T) {
	u := newManyUpstream(t)
	g := limitGate(t, u.addr, 2, `concurrency: { limit: 1, hold: 1s, key: global }`)
	client := newH2Client(t)
	ended := make(chan error, 1)
	go func() {
		_, _, err := exchange(client, "GET", "http://"+g.addr+"/hold", nil)
		ended <- err
	}()
	eventually(t, "one is in flight", func() bool { return g.active() == 1 })
	for start := time.Now(); time.Since(start) < 2500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if res, _, err := exchange(client, "GET", "http://"+g.addr+"/small", nil); err != nil || res.StatusCode != 429 {
			t.Fatalf("after %v: %v, %v", time.Since(start), res, err)
		}
	}
	u.let <- struct{}{}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually(t, "one is admitted again", func() bool {
		res, _, err := exchange(client, "GET", "http://"+g.addr+"/small", nil)
		return err == nil && res.StatusCode == 200
	})
}

// panics is a policy with a mistake.
type panics struct{}

func (panics) OnRequest(*core.Exchange) core.Verdict { panic("a mistake in a policy") }

// TestConcurrencyAfterPanics shows that an exchange that ends in a panic gives its place back.
func TestConcurrencyAfterPanics(t *testing.T) {
	g := limitGate(t, newManyUpstream(t).addr, 1, `concurrency: { limit: 2, key: global }`)
	healthy := g.gateway.Snapshot()
	broken, route := *healthy, *healthy.Routes[0]
	route.Chain = append(append(core.Chain{}, route.Chain...), core.Step{Name: "broken", Request: panics{}})
	broken.Router = fixedRouter{&route}
	log := g.options.Stderr.(*journal)
	g.gateway.Switch(&broken)
	for range 5 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, get)
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "HTTP/1.1 500 Internal Server Error\r\n" {
			t.Errorf("a panic was answered with %q, %v", line, err)
		}
		_ = c.Close()
	}
	g.gateway.Switch(healthy)
	eventually(t, "the panics are logged, once", func() bool { return strings.Count(log.String(), "panic=\"a mistake in a policy") == 1 })
	log.mu.Lock()
	log.text.Reset() // these were wanted
	log.mu.Unlock()
	if n, ok := g.state.Load().compiled.Limiters[0].Flight.InFlight(nil, g.registry.Wall()); n > 0 || !ok {
		t.Errorf("%d are in flight", n)
	}
}

type fixedRouter struct{ route *core.Route }

func (r fixedRouter) Match(*core.Exchange) *core.Route { return r.route }

// TestLeasesGiveBack shows that what a loop has taken ahead of need comes back when nobody needs it, and at once when the rates change.
func TestLeasesGiveBack(t *testing.T) {
	const config = plainConfig + "policies: { p: { rate_limit: { limit: LIMIT/day, key: global } } }\n"
	u := newManyUpstream(t)
	text := strings.ReplaceAll(strings.Replace(config, `to: a }`, `to: a, use: p }`, 1), "UPSTREAM", u.addr)
	g := run(t, strings.ReplaceAll(text, "LIMIT", "100000"))
	client := newH1Client(t)
	remaining := func() uint32 {
		t.Helper()
		all, err := g.admin.Limit("p", nil)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0].Remaining
	}
	ask := func() {
		t.Helper()
		if res, _, err := exchange(client, "GET", "http://"+g.addr+"/small", nil); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
	}
	ask()
	if n := remaining(); n > 100000-500 {
		t.Errorf("%d remain: nothing is leased", n)
	}
	eventually(t, "the loop gives back", func() bool { return remaining() >= 100000-1 })
	ask()
	g.write(strings.ReplaceAll(text, "LIMIT", "200000"))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	if n := remaining(); n < 200000-2*2-1 {
		t.Errorf("%d remain: what was leased is lost", n)
	}
	ask()
}

// TestLimitReloadsUnderLoad raises the rate again and again while requests go on: nothing of what is used is lost, so what is
// admitted over all configurations is never above the last limit.
func TestLimitReloadsUnderLoad(t *testing.T) {
	const low, step, reloads = 600, 10, 12
	u := newManyUpstream(t)
	text := strings.ReplaceAll(strings.Replace(plainConfig, `to: a }`, `use: [p, q], to: a }`, 1), "UPSTREAM", u.addr)
	config := func(n int) string {
		levels := fmt.Sprintf("{ scope: global, limit: %d/h }, { scope: key, limit: [5000/h, 90000/day] }", low+n*step)
		if n%3 == 0 {
			levels += ", { scope: route, limit: 100000/h }"
		}
		return text + fmt.Sprintf("policies: { p: { rate_limit: { limits: [%s] } }, q: { concurrency: { limit: %d } } }\n", levels, 100+n)
	}
	g := run(t, config(0))
	var admitted atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 6 {
		clients.Go(func() {
			client := newH1Client(t)
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, _, err := exchange(client, "GET", "http://"+g.addr+"/small", nil)
				switch {
				case err != nil:
					t.Error(err)
					return
				case res.StatusCode == 200:
					admitted.Add(1)
				case res.StatusCode != 429:
					t.Error(res.Status)
				}
			}
		})
	}
	for n := range reloads {
		g.write(config(n + 1))
		if err := g.admin.Reload(true); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all is used up", func() bool {
		all, err := g.admin.Limits()
		return err == nil && len(all) == 2 && all[0].Levels[0].Refused > 0 && admitted.Load() >= low+(reloads-1)*step
	})
	close(stop)
	clients.Wait()
	if n, last := admitted.Load(), int64(low+reloads*step); n > last*102/100 {
		t.Errorf("%d were admitted, the limit was %d at most", n, last)
	}
	eventually(t, "nothing is in flight", func() bool {
		all, err := g.admin.Limit("q", []string{"127.0.0.1"})
		return err == nil && all[0].Remaining == 100+reloads
	})
}
