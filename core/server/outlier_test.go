package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// hostile is an endpoint that resets every connection once it has a request, or says nothing.
func hostile(t *testing.T, stalls bool) (addr string) {
	t.Helper()
	over := make(chan struct{})
	addr = serveConns(t, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			return
		}
		if stalls {
			<-over
		}
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	t.Cleanup(func() { close(over) })
	return addr
}

// ejecting is a configuration whose upstream u has these endpoints and finds outliers among them.
func ejecting(outlier string, all []*named) string {
	return strings.Replace(balanced("{ round_robin: {}, panic: 0% }, timeouts: { header: 100ms }, outlier: "+outlier, all), "loops: 2", "loops: 2\nlog: { format: json }", 1)
}

// flags are those of the endpoint of that address.
func (g *running) flags(address string) []string {
	g.t.Helper()
	all, err := g.admin.Upstreams()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, u := range all {
		for _, e := range u.Endpoints {
			if e.Address == address {
				return e.Flags
			}
		}
	}
	g.t.Fatalf("there is no endpoint %s", address)
	return nil
}

func (g *running) ejected(address string) bool { return slices.Contains(g.flags(address), "ejected") }

// failures makes n requests, one after another, and counts those that did not succeed.
func (g *running) failures(n int) (failed int) {
	g.t.Helper()
	c := newHTTPClient(g.t)
	for range n {
		if _, err := askNamed(c, g.addr, "/x"); err != nil {
			failed++
		}
	}
	return failed
}

// TestOutlierEjected shows that an endpoint which fails five requests in a row, whichever way, gets no more, and comes back.
func TestOutlierEjected(t *testing.T) {
	more := ""
	f := func(how string, change func(all []*named), mend func(all []*named)) {
		t.Helper()
		all := newNamed(t, 3)
		change(all)
		g := run(t, ejecting("{ base_ejection_time: 300ms, interval: 100ms }"+more, all))
		defer g.stop()
		if failed := g.failures(15); failed != 5 {
			t.Errorf("%s: %d of 15 requests failed, want 5", how, failed)
		}
		eventually(t, "it is ejected", func() bool { return g.ejected(all[0].addr) })
		began := time.Now()
		if failed := g.failures(30); failed != 0 && time.Since(began) < 250*time.Millisecond {
			t.Errorf("%s: %d requests failed while it was ejected", how, failed)
		}
		mend(all)
		eventually(t, "it is back", func() bool { return !g.ejected(all[0].addr) })
		log := g.log.String()
		if n := strings.Count(log, `"msg":"endpoint ejected"`); n < 1 || !strings.Contains(log, `"cause":"consecutive_5xx","for":"300ms","ejected":1,"of":3}`) {
			t.Errorf("%s: %d ejections are logged:\n%s", how, n, log)
		}
		if !strings.Contains(log, `"msg":"endpoint is back"`) {
			t.Errorf("%s: that it is back is not logged:\n%s", how, log)
		}
	}
	nothing := func([]*named) {}
	f("500", func(all []*named) { all[0].status.Store(500) }, func(all []*named) { all[0].status.Store(200) })
	f("503", func(all []*named) { all[0].status.Store(503) }, func(all []*named) { all[0].status.Store(200) })
	f("reset", func(all []*named) { all[0].addr = hostile(t, false) }, nothing)
	f("stall", func(all []*named) { all[0].addr = hostile(t, true) }, nothing)
	more = ", protocol: h2c"
	f("500 over HTTP/2", func(all []*named) { all[0].status.Store(500) }, func(all []*named) { all[0].status.Store(200) })
}

// TestOutlierLast shows that the last endpoint is never ejected, however it fails, and that one which an operator has taken out is
// not taken for one that serves.
func TestOutlierLast(t *testing.T) {
	all := newNamed(t, 3)
	g := run(t, ejecting("{ base_ejection_time: 1m, max_ejection_percent: 100% }", all))
	for _, u := range all {
		u.status.Store(500)
	}
	g.failures(200)
	ejected := func() (n int) {
		for _, u := range all {
			if g.ejected(u.addr) {
				n++
			}
		}
		return n
	}
	eventually(t, "two are ejected", func() bool { return ejected() == 2 })
	g.failures(50)
	if n := ejected(); n != 2 {
		t.Errorf("%d of 3 are ejected, want 2", n)
	}
	if log := g.log.String(); strings.Count(log, "no more may be") != 1 {
		t.Errorf("that the last one fails is logged %d times, want once:\n%s", strings.Count(log, "no more may be"), log)
	}
}

// TestOutlierLastThatServes shows that endpoints which an operator has taken out are not counted on when the last one is looked for.
func TestOutlierLastThatServes(t *testing.T) {
	all := newNamed(t, 3)
	g := run(t, ejecting("{ base_ejection_time: 1m, max_ejection_percent: 100% }", all))
	for i, what := range []string{"disable", "drain"} {
		if _, err := g.admin.SetEndpoints(admin.SetEndpoints{Upstream: "u", Change: what, Endpoints: []string{all[i].addr}}); err != nil {
			t.Fatal(err)
		}
	}
	all[2].status.Store(500)
	g.failures(30)
	g.logged("no more may be")
	if g.ejected(all[2].addr) {
		t.Error("the only endpoint that serves is ejected")
	}
}

// TestOutlierIgnoresClients shows that nothing that a client does ejects an endpoint: leaving, and answers below 500.
func TestOutlierIgnoresClients(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, ejecting("{ consecutive_5xx: 1 }", all))
	for range 10 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
		eventually(t, "one is in flight", func() bool { return g.inFlight() == 1 })
		_ = c.Close()
		eventually(t, "nothing is in flight", func() bool { return g.inFlight() == 0 })
	}
	all[0].status.Store(404)
	all[1].status.Store(429)
	g.failures(10)
	for _, u := range all {
		if f := g.flags(u.addr); f != nil {
			t.Errorf("%s has %v", u.addr, f)
		}
	}
}

// TestOutlierReload shows that an ejection survives reloads under load, also with other settings, and ends when nobody looks for outliers
// any more.
func TestOutlierReload(t *testing.T) {
	all := newNamed(t, 3)
	config := ejecting("{ base_ejection_time: 1m }", all)
	g := run(t, config)
	all[0].status.Store(500)
	g.failures(15)
	eventually(t, "it is ejected", func() bool { return g.ejected(all[0].addr) })
	all[0].status.Store(200)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := newHTTPClient(t)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if name, err := askNamed(c, g.addr, "/x"); err != nil || name == all[0].name {
					t.Errorf("%s answered, %v", name, err)
					return
				}
			}
		})
	}
	for i := range 6 {
		g.write(ejecting(fmt.Sprintf("{ base_ejection_time: %dm }", 1+i/2), all))
		g.reload()
	}
	close(stop)
	wg.Wait()
	g.write(ejecting("off", all))
	g.reload()
	if g.ejected(all[0].addr) {
		t.Error("it is ejected although nobody looks for outliers")
	}
	g.write(config)
	g.reload()
	if g.ejected(all[0].addr) || g.failures(9) != 0 {
		t.Error("it is not as new")
	}
	if got := counts(all)[0]; got < 5 {
		t.Errorf("it had %d requests", got)
	}
}

// TestOutlierKeptConnections shows that an endpoint which closes what it takes for idle, while a request is on its way, is not ejected for it.
func TestOutlierKeptConnections(t *testing.T) {
	closes := serveConns(t, func(c net.Conn) {
		for range 2 { // the second request is met with the end
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				return
			}
			_, _ = io.WriteString(c, answerOf("x"))
		}
		_, _ = c.Read(make([]byte, 4096))
	})
	all := newNamed(t, 1)
	all = append(all, &named{addr: closes})
	g := run(t, ejecting("{ consecutive_5xx: 1, max_ejection_percent: 100% }, pool: { idle_per_loop: 1 }", all))
	defer g.stop()
	if failed := g.failures(50); failed != 0 {
		t.Errorf("%d requests failed", failed)
	}
	if f := g.flags(all[1].addr); f != nil {
		t.Errorf("it has %v", f)
	}
	metrics, err := g.admin.Metrics()
	if err != nil || !strings.Contains(string(metrics), `reason="upstream_closed"`) {
		t.Error("no kept connection was closed")
	}
}

// statusOf is the status and a field of the answer to a GET.
func statusOf(t *testing.T, c *http.Client, address, path, field string) (int, string, string) {
	t.Helper()
	res, err := c.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get(field), string(body)
}
