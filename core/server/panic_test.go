package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// panicsLate is a policy with a mistake that shows when an answer is there.
type panicsLate struct{}

func (panicsLate) OnResponse(*core.Exchange) { panic("a mistake in a policy") }

// panicsAside is one with a mistake in what it does beside the loop.
type panicsAside struct{}

func (panicsAside) OnRequestBlocking(*core.Exchange) core.Verdict { panic("a mistake in a policy") }

// TestPanicIsAnswered shows that a request which meets a mistake of the gateway is answered with 500 over either protocol, counted by its
// route, and that everybody else is served: other streams of its connection, too.
func TestPanicIsAnswered(t *testing.T) {
	g := limitGate(t, newManyUpstream(t).addr, 1, `concurrency: { limit: 100, key: global }`)
	log := g.options.Stderr.(*journal)
	healthy := g.gateway.Snapshot()
	breaks := func(step core.Step) {
		broken, route := *healthy, *healthy.Routes[0]
		step.Name = "broken"
		route.Chain = append(append(core.Chain{}, route.Chain...), step)
		broken.Router = fixedRouter{&route}
		g.gateway.Switch(&broken)
	}
	h1, h2 := newH1Client(t), newH2Client(t)
	f := func(client *http.Client, method, path, body string, status int, text string) {
		t.Helper()
		res, got, err := exchange(client, method, "http://"+g.addr+path, strings.NewReader(body))
		if err != nil || res.StatusCode != status || text != "" && got != text {
			t.Errorf("%s of %d bytes: %v, %q, %v", method, len(body), res, got, err)
		}
	}
	const internal = `{"error":"internal","status":500}` + "\n"
	panics500 := 0
	for _, step := range []core.Step{{Request: panics{}}, {Response: panicsLate{}}, {Blocking: panicsAside{}}} {
		breaks(step)
		for _, client := range []*http.Client{h1, h2} {
			f(client, "GET", "/small", "", 500, internal)
			f(client, "HEAD", "/small", "", 500, "")
			f(client, "POST", "/small", strings.Repeat("x", 100_000), 500, internal)
			panics500 += 3
		}
		g.gateway.Switch(healthy)
		f(h1, "GET", "/small", "", 200, "")
		f(h2, "GET", "/small", "", 200, "")
	}
	eventually(t, "all are counted", func() bool {
		var metrics strings.Builder
		err := g.observer.WriteMetrics(&metrics)
		return err == nil && strings.Contains(metrics.String(), fmt.Sprintf("sluice_panics_total{loop=\"0\"} %d\n", panics500)) &&
			strings.Contains(metrics.String(), fmt.Sprintf("sluice_requests_total{listener=\"http\",code=\"5xx\"} %d\n", panics500))
	})
	text := log.String()
	if n := strings.Count(text, "please report it with its stack"); n != 1 || !strings.Contains(text, "panics.OnRequest") {
		t.Errorf("%d times in the log:\n%s", n, text)
	}
	if n, ok := g.state.Load().compiled.Limiters[0].Flight.InFlight(nil, g.registry.Wall()); n > 0 || !ok || g.active() > 0 {
		t.Errorf("%d are in flight, %d under way", n, g.active())
	}
	log.mu.Lock()
	log.text.Reset() // these were wanted
	log.mu.Unlock()
}
