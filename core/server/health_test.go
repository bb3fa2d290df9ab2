package server

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/vacant"
)

// mortal is an endpoint that can be killed, with all its connections, and comes back on its address.
type mortal struct {
	t      *testing.T
	addr   string
	server *http.Server
	done   chan struct{}

	status atomic.Int64 // of checks
	checks atomic.Int64
	seen   atomic.Int64  // requests that are none
	wait   chan struct{} // checks wait for it; nil: not
}

func newMortals(t *testing.T, n int) (all []*mortal) {
	t.Helper()
	for range n {
		m := &mortal{t: t, addr: vacant.Address(t)}
		m.status.Store(http.StatusOK)
		m.rise()
		t.Cleanup(m.kill)
		all = append(all, m)
	}
	return all
}

func (m *mortal) rise() {
	m.t.Helper()
	var ln net.Listener
	eventually(m.t, "the port is free", func() (ok bool) {
		var err error
		if ln, err = net.Listen("tcp", m.addr); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			m.t.Fatal(err)
		}
		return err == nil
	})
	m.server = &http.Server{Handler: m}
	server, done := m.server, make(chan struct{})
	m.done = done
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
}

func (m *mortal) kill() {
	_ = m.server.Close()
	<-m.done
}

func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/healthz" {
		m.seen.Add(1)
		_, _ = io.WriteString(w, m.addr)
		return
	}
	m.checks.Add(1)
	if m.wait != nil {
		select {
		case <-m.wait:
		case <-r.Context().Done():
		}
	}
	w.WriteHeader(int(m.status.Load()))
}

// checkedConfig has an upstream u of these endpoints with a check. Nothing is sent to one that is out, even if all are.
func checkedConfig(health string, all []*mortal) string {
	var list []string
	for _, m := range all {
		list = append(list, fmt.Sprintf("%q", m.addr))
	}
	return fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { u: { endpoints: [%s], balance: { round_robin: {}, panic: 0%% }, health: { path: /healthz, %s } } }
routes: [{ match: "/*", to: u }]
`, strings.Join(list, ", "), health)
}

// healthOf is what the API says of endpoint i of the first upstream.
func (g *running) healthOf(i int) admin.HealthStatus {
	g.t.Helper()
	all, err := g.admin.Upstreams()
	if err != nil || all[0].Endpoints[i].Health == nil {
		g.t.Fatalf("%+v, %v", all, err)
	}
	return *all[0].Endpoints[i].Health
}

// ask makes n requests, one after the other, and tells how many failed.
func (g *running) ask(n int) (failed int) {
	c := newHTTPClient(g.t)
	for range n {
		if _, err := askNamed(c, g.addr, "/x"); err != nil {
			failed++
		}
	}
	return failed
}

const quick = "interval: 100ms, timeout: 50ms, unhealthy: 2, healthy: 2, jitter: 0%"

// TestHealthCheck shows that an endpoint which dies, or says that it is sick, gets no requests after as many intervals as
// it may fail, and gets some again when it is back; and what is told of it.
func TestHealthCheck(t *testing.T) {
	all := newMortals(t, 3)
	g := run(t, checkedConfig(quick, all))
	eventually(t, "all are settled", func() bool { return g.healthOf(0).Settled && g.healthOf(1).Settled && g.healthOf(2).Settled })
	if failed := g.ask(30); failed > 0 || all[0].seen.Load() < 5 {
		t.Fatalf("%d requests failed, %d came to the first", failed, all[0].seen.Load())
	}
	out := func(what, reason string) {
		t.Helper()
		start := time.Now()
		eventually(t, "it is unhealthy", func() bool { return g.healthOf(0).State == "unhealthy" })
		took := time.Since(start)
		t.Logf("%s: out after %s", what, took.Round(time.Millisecond))
		if h := g.healthOf(0); h.Reason != reason || h.Asked.IsZero() || time.Since(h.Since) > time.Minute {
			t.Errorf("%s: told as %+v", what, h)
		}
		if took > 2*time.Second { // 250 ms, on a machine that has the time
			t.Errorf("%s: it took %s", what, took)
		}
		before := all[0].seen.Load()
		if failed := g.ask(30); failed > 0 || all[0].seen.Load() != before {
			t.Errorf("%s: %d requests failed, %d came to it", what, failed, all[0].seen.Load()-before)
		}
	}
	back := func() {
		t.Helper()
		eventually(t, "it is healthy", func() bool { return g.healthOf(0).State == "healthy" })
		before := all[0].seen.Load()
		if failed := g.ask(30); failed > 0 || all[0].seen.Load() == before {
			t.Errorf("back: %d requests failed, %d came to it", failed, all[0].seen.Load()-before)
		}
	}
	all[0].kill()
	out("killed", "connect: refused")
	all[0].rise()
	back()
	all[0].status.Store(http.StatusInternalServerError)
	out("sick", "status 500")
	for range 3 { // told once, not with every probe
		seen := all[0].checks.Load()
		eventually(t, "it is checked again", func() bool { return all[0].checks.Load() > seen })
	}
	if n := strings.Count(g.log.String(), `msg="endpoint is unhealthy"`); n != 2 || !strings.Contains(g.log.String(), `reason="status 500"`) {
		t.Errorf("told %d times:\n%s", n, g.log)
	}
	text, err := g.admin.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf(`sluice_health_check_healthy{upstream="u",endpoint=%q} 0`, all[0].addr),
		fmt.Sprintf(`sluice_health_check_healthy{upstream="u",endpoint=%q} 1`, all[1].addr),
		fmt.Sprintf(`sluice_upstream_flag{upstream="u",endpoint=%q,flag="check"} 1`, all[0].addr),
		`sluice_health_check_changes_total{upstream="u",to="unhealthy"} 2`,
		`sluice_health_check_changes_total{upstream="u",to="healthy"} 1`,
		`sluice_health_check_probes_total{upstream="u",result="success"}`,
		`sluice_health_check_probes_total{upstream="u",result="failure"}`,
		`sluice_health_check_probes_total{upstream="u",result="network_failure"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

// TestHealthAllDown shows that requests are refused at once while all endpoints are out, and that one interval after one is back
// they are not.
func TestHealthAllDown(t *testing.T) {
	all := newMortals(t, 3)
	const interval = 200 * time.Millisecond
	g := run(t, checkedConfig("interval: 200ms, unhealthy: 2, healthy: 1, jitter: 0%", all))
	for _, m := range all {
		m.kill()
	}
	unhealthy := func() (n int) {
		for i := range all {
			if g.healthOf(i).State == "unhealthy" {
				n++
			}
		}
		return n
	}
	eventually(t, "all are unhealthy", func() bool { return unhealthy() == 3 })
	c := newHTTPClient(t)
	var took []time.Duration
	for range 100 {
		start := time.Now()
		if _, err := askNamed(c, g.addr, "/x"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "no_endpoint") {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("refused in %s, at most %s", took[50], took[99])
	all[1].rise()
	start := time.Now()
	eventually(t, "it serves again", func() bool { return g.ask(1) == 0 })
	t.Logf("recovered in %s of an interval of %s", time.Since(start).Round(time.Millisecond), interval)
	if d := time.Since(start); d > 10*interval { // on a machine that has the time, one
		t.Errorf("recovered in %s", d)
	}
}

// TestHealthReload shows that what checks know of an address outlives reloads, whatever these change of the check, and is gone
// when they take it away; an endpoint that served before it was checked is not taken out for want of a result.
func TestHealthReload(t *testing.T) {
	all := newMortals(t, 2)
	g := run(t, checkedConfig(quick, all))
	all[0].status.Store(http.StatusServiceUnavailable)
	eventually(t, "it is unhealthy", func() bool { return g.healthOf(0).State == "unhealthy" })
	since := g.healthOf(0).Since
	served := func(when string, want bool) {
		t.Helper()
		before := all[0].seen.Load()
		if failed := g.ask(20); failed > 0 || (all[0].seen.Load() != before) != want {
			t.Errorf("%s: %d requests failed, %d came to it, want some: %t", when, failed, all[0].seen.Load()-before, want)
		}
	}
	for when, health := range map[string]string{
		"the same":          quick,
		"other times":       "interval: 1h, start_interval: 1h, unhealthy: 5",
		"another question":  "interval: 1h, start_interval: 1h, port: 1",
		"initially healthy": "interval: 1h, start_interval: 1h, initial: healthy, port: 1",
	} {
		g.write(checkedConfig(health, all))
		g.reload()
		served(when, false)
		if d := g.healthOf(0).Since.Sub(since).Abs(); d > 10*time.Millisecond {
			t.Errorf("%s: unhealthy since %s, off by %s", when, since, d)
		}
	}
	unchecked := strings.Replace(checkedConfig("", all), ", health: { path: /healthz,  }", "", 1)
	g.write(unchecked)
	g.reload()
	served("no check", true)
	if status, err := g.admin.Upstreams(); err != nil || status[0].Endpoints[0].Health != nil || status[0].Endpoints[0].Flags != nil {
		t.Errorf("without a check: %+v, %v", status, err)
	}
	g.write(checkedConfig("interval: 1h, start_interval: 1h, initial: unhealthy", all))
	g.reload()
	served("a check that comes to what serves", true)
	if g.admin.Ready() != nil {
		t.Error("not ready after a reload")
	}
}

// TestHealthAtRunTime shows that endpoints which are added at run time are asked, after which they get requests, that one which
// is drained is asked too, and one that is disabled is not.
func TestHealthAtRunTime(t *testing.T) {
	all := newMortals(t, 3)
	g := run(t, checkedConfig(quick+", initial: unhealthy", all[:1]))
	change := func(what string, m *mortal) {
		t.Helper()
		if _, err := g.admin.SetEndpoints(admin.SetEndpoints{Upstream: "u", Change: what, Endpoints: []string{m.addr}}); err != nil {
			t.Fatal(err)
		}
	}
	all[1].wait = make(chan struct{})
	change("add", all[1])
	eventually(t, "it is checked", func() bool { return all[1].checks.Load() > 0 })
	if failed := g.ask(20); failed > 0 || all[1].seen.Load() > 0 {
		t.Errorf("%d requests failed, %d came to an endpoint that nobody knows", failed, all[1].seen.Load())
	}
	close(all[1].wait)
	eventually(t, "it is healthy", func() bool { return g.healthOf(1).State == "healthy" })
	eventually(t, "all are asked again", func() bool { return g.ask(5) == 0 && all[1].seen.Load() > 0 })

	change("drain", all[1])
	seen := all[1].checks.Load()
	eventually(t, "it is checked on", func() bool { return all[1].checks.Load() > seen+1 })
	change("disable", all[1])
	eventually(t, "checks are off", func() bool { return g.healthOf(1).State == "off" })
	seen, others := all[1].checks.Load(), all[0].checks.Load()
	eventually(t, "the others are checked on", func() bool { return all[0].checks.Load() > others+5 })
	if n := all[1].checks.Load() - seen; n > 1 { // one may have been under way
		t.Errorf("%d probes of an endpoint that is disabled", n)
	}
	change("enable", all[1])
	eventually(t, "it is checked again", func() bool { return all[1].checks.Load() > seen+2 })
	change("remove", all[1])
	change("add", all[2])
	eventually(t, "it is healthy, and the third is checked", func() bool { return g.healthOf(1).State == "healthy" && all[2].checks.Load() > 0 })
}

// TestHealthReady shows that a gateway is ready when the endpoints that wait for their first check have had it, whatever it
// said, and that none gets a request before.
func TestHealthReady(t *testing.T) {
	all := newMortals(t, 2)
	all[0].wait = make(chan struct{})
	all[1].status.Store(http.StatusServiceUnavailable)
	g := newGate(t, checkedConfig("start_interval: 20ms, timeout: 5s, initial: unhealthy", all))
	if err := g.ready(); err == nil || !strings.Contains(err.Error(), `endpoints of upstream "u" wait for their first check`) {
		t.Errorf("ready: %v", err)
	}
	if _, err := askNamed(newHTTPClient(t), g.addr, "/x"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a request before the first check: %v", err)
	}
	if s := g.upstreamStatus()[0].Endpoints[0]; s.Health.State != "unchecked" || !slices.Equal(s.Flags, []string{"unchecked"}) {
		t.Errorf("told as %+v", s)
	}
	close(all[0].wait)
	eventually(t, "it is ready", func() bool { return g.ready() == nil })
	if _, err := askNamed(newHTTPClient(t), g.addr, "/x"); err != nil {
		t.Error(err)
	}
	if got := g.upstreamStatus()[0].Endpoints[1]; got.Health.State != "unhealthy" || !slices.Equal(got.Flags, []string{"check"}) {
		t.Errorf("told as %+v", got)
	}
	if text := g.options.Stderr.(*journal).String(); strings.Count(text, "endpoint is unhealthy") != 1 || strings.Count(text, "endpoint is healthy") != 1 {
		t.Errorf("told otherwise than once each:\n%s", text)
	}
}

// TestHealthKinds shows each question through the whole gateway: of an endpoint that passes, and of the same when it does not.
func TestHealthKinds(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	secure := startSecureUpstream(t, a, true, "up.test")
	plain := newNamed(t, 1)[0]
	rpc, states := grpc.NewServer(), grpchealth.NewServer()
	healthpb.RegisterHealthServer(rpc, states)
	states.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	serve := func(f func(ln net.Listener)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			f(ln)
		}()
		t.Cleanup(func() {
			_ = ln.Close()
			<-done
		})
		return ln.Addr().String()
	}
	two := &http.Server{Handler: plain, Protocols: &http.Protocols{}} // speaks nothing else
	two.Protocols.SetUnencryptedHTTP2(true)
	twoAt := serve(func(ln net.Listener) { _ = two.Serve(ln) })
	t.Cleanup(func() { _ = two.Close() })
	rpcAt := serve(func(ln net.Listener) { _ = rpc.Serve(ln) })
	t.Cleanup(rpc.Stop)
	var silent atomic.Bool
	redis := serve(func(ln net.Listener) {
		var all sync.WaitGroup
		defer all.Wait()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close() //nolint:errcheck // the test looks at what was read
				b := make([]byte, 6)
				if _, err := io.ReadFull(c, b); err == nil && string(b) == "PING\r\n" && !silent.Load() {
					_, _ = io.WriteString(c, "+PONG\r\n")
				}
			})
		}
	})
	_, plainPort, _ := net.SplitHostPort(plain.addr)
	tls := fmt.Sprintf("tls: { ca: %s, server_name: up.test }", filepath.Join(folder, "ca.pem"))
	at := secure.Listener.Addr().String()
	upstreams := []string{
		fmt.Sprintf(`http: { endpoints: [%q], health: { path: /, TIMES } }`, plain.addr),
		fmt.Sprintf(`h2c: { endpoints: [%q], protocol: h2c, health: { path: /, TIMES } }`, twoAt),
		fmt.Sprintf(`port: { endpoints: ["127.0.0.1:1"], health: { path: /, port: %s, TIMES } }`, plainPort),
		fmt.Sprintf(`grpc: { endpoints: [%q], protocol: h2c, health: { grpc: { service: shop }, TIMES } }`, rpcAt),
		fmt.Sprintf(`tcp: { endpoints: [%q], health: { tcp: { send: "PING\r\n", expect: "hex:2b504f4e47" }, TIMES } }`, redis),
		fmt.Sprintf(`tls: { endpoints: [%q], %s, health: { path: /, TIMES } }`, at, tls),
		fmt.Sprintf(`h2: { endpoints: [%q], %s, protocol: h2, health: { path: /, TIMES } }`, at, tls),
		fmt.Sprintf(`on: { endpoints: [%q], %s, health: { path: /, tls: true, TIMES } }`, at, tls),
		fmt.Sprintf(`own: { endpoints: [%q], health: { path: /, %s, TIMES } }`, at, tls),
		fmt.Sprintf(`off: { endpoints: [%q], tls: true, health: { path: /, tls: false, TIMES } }`, plain.addr),
		fmt.Sprintf(`untrusted: { endpoints: [%q], tls: true, health: { tcp: {}, TIMES } }`, at),
	}
	names := make([]string, len(upstreams))
	for i, u := range upstreams {
		name, _, _ := strings.Cut(u, ":")
		names[i] = name + ": 1"
		upstreams[i] = strings.Replace(u, "TIMES", "interval: 300ms, start_interval: 50ms, unhealthy: 1, healthy: 1, initial: unhealthy", 1)
	}
	g := run(t, fmt.Sprintf("loops: 1\naccess_log: { to: off }\nlisteners: { http: { bind: \"127.0.0.1:0\" } }\nupstreams:\n  %s\nroutes: [{ match: \"*\", to: { %s } }]\n",
		strings.Join(upstreams, "\n  "), strings.Join(names, ", ")))
	told := func() map[string]string {
		all, err := g.admin.Upstreams()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, u := range all {
			h := u.Endpoints[0].Health
			found[u.Name] = h.State + " " + h.Reason
		}
		return found
	}
	await := func(name, want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(patience); !strings.HasPrefix(got, want); got = told()[name] {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q, want %q", name, got, want)
			}
		}
	}
	for name := range told() {
		if name == "untrusted" {
			await(name, "unhealthy tls: ")
		} else {
			await(name, "healthy ")
		}
	}
	plain.status.Store(418)
	states.SetServingStatus("shop", healthpb.HealthCheckResponse_NOT_SERVING)
	silent.Store(true)
	secure.Close()
	for name, want := range map[string]string{"http": "status 418", "h2c": "status 418", "port": "status 418", "off": "status 418", "grpc": "NOT_SERVING",
		"tcp": "the answer has not what is expected", "tls": "connect: refused", "h2": "connect: refused", "on": "connect: refused", "own": "connect: refused"} {
		await(name, "unhealthy "+want)
	}
}
