package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func faultConfig(u *named, fault string) string {
	return fmt.Sprintf(`
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { u: { endpoints: [%q], protocol: h2c } }
policies: { chaos: { fault: %s } }
routes: [{ match: "/*", use: chaos, to: u }]
`, u.addr, fault)
}

// TestFaultAbort shows that a share of the requests is aborted, before it comes to the upstream, and only of those that are meant.
func TestFaultAbort(t *testing.T) {
	u := newNamed(t, 1)[0]
	g := run(t, faultConfig(u, "{ abort: { status: 418, percent: 30% }, when: { header: X-Chaos } }"))
	c := newHTTPClient(t)
	aborted := 0
	for range 500 {
		if _, err := askNamed(c, g.addr, "/", "X-Chaos", "1"); err != nil {
			if !strings.Contains(err.Error(), `{"error":"fault_injected","status":418}`) {
				t.Fatal(err)
			}
			aborted++
		}
	}
	if aborted < 100 || aborted > 200 { // a deviation is 10
		t.Errorf("%d of 500 at 30 %%", aborted)
	}
	if n := int(u.seen.Load()); n != 500-aborted {
		t.Errorf("%d requests came to the upstream beside %d that were aborted", n, aborted)
	}
	if n := g.metric(`sluice_faults_total{policy="chaos",kind="abort"}`); n != fmt.Sprint(aborted) {
		t.Errorf("%s are counted of %d", n, aborted)
	}
	for range 100 {
		if _, err := askNamed(c, g.addr, "/"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaultReset shows that a reset leaves the client without an answer, over HTTP/1.1 and HTTP/2, where other streams go on.
func TestFaultReset(t *testing.T) {
	u := newNamed(t, 1)[0]
	g := run(t, faultConfig(u, "{ abort: { reset: true }, when: { header: X-Chaos } }"))
	if _, err := askNamed(newHTTPClient(t), g.addr, "/", "X-Chaos", "1"); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("HTTP/1.1: %v", err)
	}
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: patience}
	for range 3 {
		if _, err := askNamed(c, g.addr, "/", "X-Chaos", "1"); err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
			t.Errorf("HTTP/2: %v", err)
		}
		if _, err := askNamed(c, g.addr, "/"); err != nil {
			t.Error(err)
		}
	}
}

// TestFaultGRPC shows what a gRPC call is told, and anybody else.
func TestFaultGRPC(t *testing.T) {
	u := newNamed(t, 1)[0]
	g := run(t, faultConfig(u, "{ abort: { grpc_status: 5 } }"))
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	for _, kind := range []string{"application/grpc", "text/plain"} {
		q, _ := http.NewRequest("POST", "http://"+g.addr+"/a.B/C", strings.NewReader("\x00\x00\x00\x00\x00"))
		q.Header.Set("Content-Type", kind)
		q.Header.Set("Te", "trailers")
		res, err := transport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		want := "200 5"
		if kind == "text/plain" {
			want = "404 "
		}
		if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Grpc-Status")+res.Trailer.Get("Grpc-Status")); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
}

// TestFaultDelay shows that requests are delayed and then go on, that others do not wait meanwhile, that no more wait than may, and that
// a client who leaves does not wait on.
func TestFaultDelay(t *testing.T) {
	u := newNamed(t, 1)[0]
	g := run(t, faultConfig(u, "{ delay: { duration: 300ms }, at_once: 2, when: { header: X-Chaos } }"))
	c := newHTTPClient(t)
	start := time.Now()
	if _, err := askNamed(c, g.addr, "/", "X-Chaos", "1"); err != nil || time.Since(start) < 300*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	g.write(faultConfig(u, "{ delay: 1h, at_once: 2, when: { header: X-Chaos } }"))
	g.reload()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	gone := make(chan error, 2)
	for range 2 {
		go func() {
			q, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+"/", nil)
			q.Header.Set("X-Chaos", "1")
			_, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
			gone <- err
		}()
	}
	eventually(t, "two are delayed", func() bool { return g.metric(`sluice_faults_total{policy="chaos",kind="delay"}`) == "3" })
	within(t, 250*time.Millisecond, "a request beside", func() {
		if _, err := askNamed(c, g.addr, "/", "X-Chaos", "1"); err != nil {
			t.Error(err)
		}
	})
	if n := g.metric(`sluice_faults_total{policy="chaos",kind="spared"}`); n != "1" {
		t.Errorf("%s were spared", n)
	}
	leave()
	<-gone
	<-gone
	eventually(t, "nobody waits on", func() bool {
		n := 0
		for _, l := range g.status().Loops {
			n += l.Exchanges
		}
		return n == 0
	})
	if n := u.seen.Load(); n != 2 {
		t.Errorf("%d requests came to the upstream", n)
	}
}
