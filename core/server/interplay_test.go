package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/admin"
)

// TestRetryBudgetReload shows that a reload puts another budget in force.
func TestRetryBudgetReload(t *testing.T) {
	all := newNamed(t, 2)
	config := func(budget string) string {
		return balanced("round_robin, retry: { on: 503, attempts: 2, budget: "+budget+" }", all)
	}
	for _, u := range all {
		u.status.Store(503)
	}
	g := run(t, config("{ percent: 100%, floor: 10 }"))
	for _, c := range []struct {
		budget string
		want   int64
	}{{"", 20}, {"{ percent: 0%, floor: 0 }", 10}, {"off", 20}, {"{ percent: 0%, floor: 0 }", 10}, {"{ percent: 0%, floor: 1 }", 20}} {
		if c.budget != "" {
			g.write(config(c.budget))
			g.reload()
		}
		before := counts(all)
		if failed := g.failures(10); failed != 10 {
			t.Errorf("%s: %d of 10 requests failed", c.budget, failed)
		}
		after := counts(all)
		if n := after[0] + after[1] - before[0] - before[1]; int64(n) != c.want {
			t.Errorf("budget %s: %d attempts for 10 requests, want %d", c.budget, n, c.want)
		}
	}
}

// TestCanaryBehindBreaker shows that a canary is aborted whose breaker has the stable side answer for it: what that answers is not the
// canary's success.
func TestCanaryBehindBreaker(t *testing.T) {
	all := newNamed(t, 2)
	config := shaped(all, `to: endpoint0, canary: { to: endpoint1, steps: [50], hold: 1h, window: 10s, min_requests: 60, abort: "errors > 50%" }`)
	config = strings.Replace(config, fmt.Sprintf("endpoint1: %q", all[1].addr),
		fmt.Sprintf("endpoint1: { endpoints: [%q], breaker: { errors: off, consecutive: 3, cooldown: 1m, fallback: { to: endpoint0 } } }", all[1].addr), 1)
	g := run(t, config)
	all[1].status.Store(500)
	c := newHTTPClient(t)
	k := g.drive(c, "it is judged", func(k admin.CanaryStatus) bool {
		return k.State == "aborted" || k.Sides["canary"].Requests > k.Sides["canary"].Failures
	})
	if k.State != "aborted" || all[1].seen.Load() != 3 {
		t.Errorf("%+v, after %d requests that its endpoint got", k, all[1].seen.Load())
	}
	if s := k.Sides["stable"]; s.Failures != 0 {
		t.Errorf("the stable side has %d failures", s.Failures)
	}
}
