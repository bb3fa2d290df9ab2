package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// shaped is a configuration with one upstream for each endpoint, endpoint0 and so on, and a route r that is spread as more says.
func shaped(all []*named, more string) string {
	var upstreams []string
	for _, u := range all {
		upstreams = append(upstreams, fmt.Sprintf("%s: %q", u.name, u.addr))
	}
	return fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c], real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] } } }
upstreams: { %s, spare: "127.0.0.1:9" }
routes: [{ name: r, match: "/*", %s }, { match: /spare, to: spare }]
`, strings.Join(upstreams, ", "), more)
}

// owners gives the upstream of each of n users.
func (g *running) owners(c *http.Client, n int) (list []string) {
	g.t.Helper()
	for i := range n {
		name, err := askNamed(c, g.addr, "/x", "X-User", fmt.Sprint("user", i))
		if err != nil {
			g.t.Fatal(err)
		}
		list = append(list, name)
	}
	return list
}

func sharesOf(owners []string, name string) (n int) {
	for _, o := range owners {
		if o == name {
			n++
		}
	}
	return n
}

// TestSplitBy shows that a key keeps its upstream, that shares are those of the weights, and that a change of weights at run time
// moves only the keys that must move. It is kept over reloads until the configuration changes the split.
func TestSplitBy(t *testing.T) {
	all := newNamed(t, 2)
	config := shaped(all, "to: { endpoint0: 90, endpoint1: 10 }, split_by: header:X-User")
	g := run(t, config)
	c := newHTTPClient(t)
	const users = 1000
	first := g.owners(c, users)
	if n := sharesOf(first, "endpoint1"); n < 60 || n > 140 { // a deviation is 9.5
		t.Errorf("%d of %d users are at 10 %%", n, users)
	}
	for i, name := range g.owners(c, users) {
		if first[i] != name {
			t.Fatalf("user%d was at %s and is at %s", i, first[i], name)
		}
	}
	weigh := func(weights map[string]int) admin.RouteStatus {
		t.Helper()
		r, err := g.admin.SetWeights(admin.SetWeights{Route: "r", Weights: weights})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := weigh(map[string]int{"endpoint1": 30})
	if r.Action != "to endpoint0: 90, endpoint1: 30" || len(r.Overrides) != 1 || r.Targets[1] != (admin.TargetStatus{Upstream: "endpoint1", Weight: 30, Configured: 10}) {
		t.Errorf("%+v", r)
	}
	second := g.owners(c, users)
	if n := sharesOf(second, "endpoint1"); n < 190 || n > 310 {
		t.Errorf("%d of %d users are at 25 %%", n, users)
	}
	for i := range first {
		if first[i] == "endpoint1" && second[i] != "endpoint1" {
			t.Fatalf("user%d has left the upstream that has got more", i)
		}
	}
	g.reload()
	for i, name := range g.owners(c, users) {
		if second[i] != name {
			t.Fatalf("the reload has moved user%d", i)
		}
	}
	weigh(map[string]int{"endpoint0": 0})
	if n := sharesOf(g.owners(c, 50), "endpoint1"); n != 50 {
		t.Errorf("%d of 50 at the only upstream", n)
	}
	if r := weigh(nil); len(r.Overrides) != 0 || sharesOf(g.owners(c, users), "endpoint1") != sharesOf(first, "endpoint1") {
		t.Errorf("the configured weights are not back: %+v", r)
	}
	weigh(map[string]int{"endpoint0": 0})
	g.write(strings.Replace(config, "endpoint0: 90", "endpoint0: 91", 1))
	g.reload()
	if n := sharesOf(g.owners(c, users), "endpoint1"); n > 140 {
		t.Errorf("%d of %d users are still where the configuration before had been changed to", n, users)
	}
	for _, bad := range []admin.SetWeights{
		{Route: "x", Weights: map[string]int{"endpoint0": 1}}, {Route: "r", Weights: map[string]int{"spare": 1}},
		{Route: "r", Weights: map[string]int{"endpoint0": 1001}}, {Route: "r", Weights: map[string]int{"endpoint0": 0, "endpoint1": 0}},
		{Route: "/spare"},
	} {
		if _, err := g.admin.SetWeights(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// TestSplitInTurn shows that a split without keys is exact, also after its weights have changed.
func TestSplitInTurn(t *testing.T) {
	all := newNamed(t, 3)
	g := run(t, shaped(all, "to: { endpoint0: 3, endpoint1: 1, endpoint2: 0 }"))
	c := newHTTPClient(t) // one connection: one loop
	if n := sharesOf(g.owners(c, 400), "endpoint0"); n != 300 {
		t.Errorf("%d of 400 at 3 of 4", n)
	}
	if _, err := g.admin.SetWeights(admin.SetWeights{Route: "r", Weights: map[string]int{"endpoint2": 4}}); err != nil {
		t.Fatal(err)
	}
	if n := sharesOf(g.owners(c, 400), "endpoint2"); n != 200 {
		t.Errorf("%d of 400 at 4 of 8", n)
	}
}

// canary gives the one of route r.
func (g *running) canary() admin.CanaryStatus {
	g.t.Helper()
	all, err := g.admin.Canaries()
	if err != nil || len(all) != 1 {
		g.t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

// drive makes requests until the canary is as wanted.
func (g *running) drive(c *http.Client, what string, ok func(k admin.CanaryStatus) bool) admin.CanaryStatus {
	g.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		k := g.canary()
		if ok(k) {
			return k
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("it never came to pass that %s: %+v", what, k)
		}
		for i := range 20 {
			_, _ = askNamed(c, g.addr, "/x", "X-User", fmt.Sprint("user", i))
		}
	}
}

const canaryOf = "to: endpoint0, canary: { to: endpoint1, steps: [30, 60], hold: 1s, window: 1s, min_requests: 20%s }"

// TestCanarySteps shows a canary that does well: it goes from step to step, over a reload, until it has all. Those that stay with
// one side by their key are never taken back from the canary meanwhile.
func TestCanarySteps(t *testing.T) {
	all := newNamed(t, 2)
	config := shaped(all, fmt.Sprintf(canaryOf, `, key: header:X-User, abort: "errors > 20% or p99 > 5s"`))
	g := run(t, config)
	c := newHTTPClient(t)
	const users = 400
	first := g.owners(c, users)
	if n := sharesOf(first, "endpoint1"); n < 70 || n > 170 {
		t.Errorf("%d of %d users at 30 %%", n, users)
	}
	g.drive(c, "the second step has begun", func(k admin.CanaryStatus) bool { return k.Percent == 60 })
	g.write(strings.Replace(config, "min_requests: 20", "min_requests: 1000000", 1)) // its step is kept, and does not end
	g.reload()
	if k := g.canary(); k.State != "progressing" || k.Step != 2 || k.Percent != 60 || k.Changes["begun"] != 1 || k.Changes["forward"] != 1 {
		t.Errorf("after a reload: %+v", k)
	}
	second := g.owners(c, users)
	if n := sharesOf(second, "endpoint1"); n < 180 || n > 300 {
		t.Errorf("%d of %d users at 60 %%", n, users)
	}
	for i := range first {
		if first[i] == "endpoint1" && second[i] != "endpoint1" {
			t.Fatalf("user%d was taken back from the canary", i)
		}
	}
	g.write(config)
	g.reload()
	k := g.drive(c, "it is promoted", func(k admin.CanaryStatus) bool { return k.State == "promoted" })
	if n := sharesOf(g.owners(c, 50), "endpoint1"); n != 50 || !strings.Contains(k.Why, "held 60%") {
		t.Errorf("%d of 50 after %+v", n, k)
	}
	if log := g.log.String(); !strings.Contains(log, "change=forward") || !strings.Contains(log, "change=promoted") {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
	metrics, err := g.admin.Metrics()
	if err != nil || !strings.Contains(string(metrics), `sluice_canary_changes_total{route="r",upstream="endpoint1",change="promoted"} 1`) ||
		!strings.Contains(string(metrics), `sluice_canary_percent{route="r",upstream="endpoint1"} 100`) {
		t.Errorf("%v\n%s", err, metrics)
	}
}

// TestCanaryAborts shows canaries that do worse than they may: by errors, by being slow, and by not being there. The next exchange is
// the stable side's, and a reload does not begin anew.
func TestCanaryAborts(t *testing.T) {
	for _, bad := range []struct {
		name, abort, why string
		spoil            func(u *named)
	}{
		{"errors", "errors > stable + 5%", "errors", func(u *named) { u.status.Store(500) }},
		{"latency", "p99 > 30ms", "p99", func(u *named) { u.delay.Store(int64(60 * time.Millisecond)) }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			all := newNamed(t, 2)
			config := shaped(all, fmt.Sprintf(canaryOf, `, abort: "`+bad.abort+`"`))
			g := run(t, config)
			defer g.stop()
			c := newHTTPClient(t)
			bad.spoil(all[1])
			k := g.drive(c, "it is aborted", func(k admin.CanaryStatus) bool { return k.State == "aborted" })
			if k.Percent != 0 || !strings.Contains(k.Why, bad.why) || !strings.Contains(k.Why, "at 30%") {
				t.Errorf("%+v", k)
			}
			if n := sharesOf(g.owners(c, 50), "endpoint0"); n != 50 {
				t.Errorf("%d of 50 at the stable side", n)
			}
			g.reload()
			if k := g.canary(); k.State != "aborted" {
				t.Errorf("after a reload: %+v", k)
			}
			g.write(strings.Replace(config, "steps: [30, 60]", "steps: [40, 60]", 1))
			g.reload()
			if k := g.canary(); k.State != "progressing" || k.Percent != 40 {
				t.Errorf("with other steps: %+v", k)
			}
		})
	}
}

// TestCanaryUnreachable shows that what cannot be reached counts as failed.
func TestCanaryUnreachable(t *testing.T) {
	all := newNamed(t, 1)
	g := run(t, shaped(all, `to: endpoint0, canary: { to: spare, steps: [50], hold: 1m, window: 1s, min_requests: 5, abort: "errors >= 100%" }`))
	c := newHTTPClient(t)
	k := g.drive(c, "it is aborted", func(k admin.CanaryStatus) bool { return k.State == "aborted" })
	if s := k.Sides["canary"]; s.Failures < 5 || s.Failures != s.Requests || k.Sides["stable"].Failures != 0 {
		t.Errorf("%+v", k)
	}
}

// TestCanaryByHand shows what an operator may do, by the command.
func TestCanaryByHand(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, shaped(all, strings.Replace(fmt.Sprintf(canaryOf, ""), "hold: 1s", "hold: 1h", 1)))
	ctl := func(want int, words ...string) string {
		t.Helper()
		var out, failed strings.Builder
		if code := admin.Ctl(append([]string{"--admin", g.admin.Address}, words...), &out, &failed); code != want {
			t.Errorf("%v: %d, want %d: %s", words, code, want, failed.String())
		}
		return out.String() + failed.String()
	}
	ctl(0, "canary", "r", "pause")
	if k := g.canary(); k.State != "paused" || k.Percent != 30 || k.Why != "by hand: pause" {
		t.Errorf("%+v", k)
	}
	if said := ctl(1, "canary", "r", "pause"); !strings.Contains(said, "it is paused") {
		t.Error(said)
	}
	ctl(0, "canary", "r", "resume")
	if said := ctl(0, "canary", "r", "forward"); !strings.Contains(said, "60%") || !strings.Contains(said, "2 of 2") {
		t.Error(said)
	}
	ctl(0, "canary", "r", "promote")
	if n := sharesOf(g.owners(newHTTPClient(t), 20), "endpoint1"); n != 20 {
		t.Errorf("%d of 20 at what was promoted", n)
	}
	ctl(0, "canary", "r", "abort")
	if n := sharesOf(g.owners(newHTTPClient(t), 20), "endpoint0"); n != 20 {
		t.Errorf("%d of 20 at what is left", n)
	}
	if said := ctl(1, "canary", "r", "promote"); !strings.Contains(said, "it is aborted") {
		t.Error(said)
	}
	ctl(1, "canary", "/spare", "abort")
	ctl(2, "canary", "r", "stop")
	ctl(2, "canary", "r")
	if said := ctl(0, "canaries"); !strings.Contains(said, "aborted") || !strings.Contains(said, "by hand: abort") {
		t.Error(said)
	}
}
