package compile

import (
	"reflect"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/health"
)

// TestDefaultsAreThoseOfHealth: the grammar may not import the mechanisms, and writes their defaults down again; what is not said in a
// configuration is nevertheless what health, and its tests and simulations, go by.
func TestDefaultsAreThoseOfHealth(t *testing.T) {
	cfg, problems := config.Parse("sluice.yaml", []byte(`
listeners: { a: { bind: "127.0.0.1:0" } }
upstreams: { u: { endpoints: ["127.0.0.1:1"], breaker: on, concurrency: adaptive, outlier: on }, v: { endpoints: ["127.0.0.1:2"] } }
routes: [{ name: r, match: "*", to: u, canary: { to: v, steps: [5, 50] } }]
`), config.Env{})
	if problems.Refused() {
		t.Fatalf("refused:\n%s", problems)
	}
	u := &cfg.Upstreams[0]
	k := cfg.Routes[0].Canary
	canary := health.DefaultCanary()
	canary.Steps = []int{5, 50}
	f := func(got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("a configuration that says nothing comes to\n%+v, want\n%+v", got, want)
		}
	}
	f(outlierSpec(u.Outlier), health.DefaultOutlier())
	f(breakerSpec(u.Breaker), health.DefaultBreaker())
	f(concurrencySpec(u.Adaptive), health.DefaultConcurrency())
	f(health.BudgetSpec{Percent: u.RetryBudget.Percent, Floor: u.RetryBudget.Floor}, health.DefaultBudget())
	f(health.CanarySpec{Steps: k.Steps, Hold: k.Hold, Abort: k.Abort, Window: k.Window, MinRequests: k.MinRequests}, canary)
}
