package compile

import (
	"reflect"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// TestSpecsAgree holds the defaults of the grammar against those of the mechanisms.
func TestSpecsAgree(t *testing.T) {
	u := onlyUpstream(t, `{ endpoints: ["127.0.0.1:1"], outlier: on, breaker: on, concurrency: adaptive }`)
	if got, want := outlierSpec(u.Outlier), health.DefaultOutlier(); got != want {
		t.Errorf("outlier: %+v, want %+v", got, want)
	}
	if got, want := breakerSpec(u.Breaker), health.DefaultBreaker(); got != want {
		t.Errorf("breaker: %+v, want %+v", got, want)
	}
	if got, want := concurrencySpec(u.Adaptive), health.DefaultConcurrency(); got != want {
		t.Errorf("concurrency: %+v, want %+v", got, want)
	}
	if health.Causes != len(u.Outlier.Enforcing) {
		t.Errorf("%d causes, of which the grammar knows %d", health.Causes, len(u.Outlier.Enforcing))
	}
}

// TestSpecsAtTheirBounds shows that what the grammar lets through at its bounds is what the mechanisms take.
func TestSpecsAtTheirBounds(t *testing.T) {
	for _, text := range []string{
		`outlier: { consecutive_5xx: 0, consecutive_gateway_failure: 10000, interval: 100ms, base_ejection_time: 100ms, max_ejection_time: 100ms, max_ejection_percent: 0%, success_rate_minimum_hosts: 1, success_rate_request_volume: 1, success_rate_stdev_factor: 0, failure_percentage_threshold: 1%, failure_percentage_minimum_hosts: 1, failure_percentage_request_volume: 1 }`,
		`outlier: { consecutive_5xx: 10000, interval: 1h, base_ejection_time: 24h, max_ejection_time_jitter: 1h, max_ejection_percent: 100%, success_rate_minimum_hosts: 100000, success_rate_request_volume: 1000000000, success_rate_stdev_factor: 100000, failure_percentage_threshold: 100%, failure_percentage_minimum_hosts: 100000, failure_percentage_request_volume: 1000000000 }`,
		`breaker: { errors: 0.01%, slow: p50 > 1ms, window: 1s, min_requests: 1, cooldown: 10ms, growth: 1, max_cooldown: 10ms, probes: 1 }`,
		`breaker: { errors: 100%, slow: p99.99 > 10m, consecutive: 10000, window: 10m, min_requests: 1000000, cooldown: 1h, growth: 10, max_cooldown: 24h, probes: 1000 }`,
		`concurrency: { max_limit: 1, min_concurrency: 1, update_interval: 10ms, percentile: 1, measure_interval: 1s, measure_jitter: 0%, measure_requests: 1, buffer: 0% }`,
		`concurrency: { max_limit: 1000000, min_concurrency: 100000, update_interval: 10m, percentile: 99.99, measure_interval: 24h, measure_jitter: 100%, measure_requests: 100000, buffer: 1000% }`,
	} {
		u := onlyUpstream(t, `{ endpoints: ["127.0.0.1:1"], `+text+` }`)
		var err error
		switch {
		case u.Outlier != nil:
			s := outlierSpec(u.Outlier)
			err = s.Validate()
		case u.Breaker != nil:
			s := breakerSpec(u.Breaker)
			err = s.Validate()
		case u.Adaptive != nil:
			s := concurrencySpec(u.Adaptive)
			err = s.Validate()
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func onlyUpstream(t *testing.T, text string) *config.Upstream {
	t.Helper()
	cfg, problems := config.Parse("sluice.yaml", []byte(`
listeners: { a: { bind: "127.0.0.1:0" } }
upstreams: { u: `+text+` }
routes: [{ match: "*", to: u }]
`), config.Env{})
	if problems.Refused() {
		t.Fatalf("refused:\n%s", problems)
	}
	return &cfg.Upstreams[0]
}

const carriedConfig = `upstreams:
  u: { endpoints: ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], outlier: on, breaker: on }
  v: { endpoints: ["127.0.0.1:1"] }
routes: [{ name: r, match: "*", to: { u: 1, v: 1 }, breaker: { errors: off, consecutive: 1, fallback: { to: v } } }]
`

// TestCheckBringsBack shows that an active check which passes ends an ejection.
func TestCheckBringsBack(t *testing.T) {
	b := newBench(t)
	c := b.apply(carriedConfig)
	d := c.found["u"]
	e := d.upstream.Endpoints()[0]
	d.changeIf(t.Context(), func() bool {
		w := d.outliers.watched[e.Load]
		return d.act(d.outliers.detector.Triggered(w.watch.Tally, health.Trigger5xx, d.upstream.Clock()))
	})
	if e.Load.Flags() != lb.Ejected || len(c.Ejections()["u"]) != 1 {
		t.Fatalf("flags %v, %v", e.Load.Flags(), c.Ejections())
	}
	d.changeIf(t.Context(), func() bool { return d.passed(e.Load) })
	if e.Load.Flags() != 0 {
		t.Errorf("flags %v after a check has passed", e.Load.Flags())
	}
	if d.upstream.Shares()[e] == 0 {
		t.Error("it has no share")
	}
}

// TestCarriedOver shows that ejections and open breakers reach another process, which refuses what cannot be.
func TestCarriedOver(t *testing.T) {
	old := newBench(t)
	c, err := old.compile(carriedConfig)
	if err != nil {
		t.Fatal(err)
	}
	ejections := Ejections{
		"u":     {"127.0.0.1:2": {Ejected: true, Cause: health.CauseSuccessRate, Age: 2 * time.Second, Multiplier: 3}, "127.0.0.1:9": {Multiplier: 1}},
		"v":     {"127.0.0.1:1": {Ejected: true, Multiplier: 1}},
		"other": {"x": {Multiplier: 1}},
	}
	breakers := Breakers{
		Upstreams: map[string]health.BreakerRecord{"u": {State: health.Open, Level: 1, Left: time.Minute}, "none": {State: health.Open}},
		Routes:    map[string]health.BreakerRecord{"r": {State: health.Open, Left: time.Second}},
	}
	if err := c.RestoreEjections(ejections); err != nil {
		t.Error(err)
	}
	now := c.found["u"].upstream.Clock()
	if err := c.RestoreBreakers(breakers, now); err != nil {
		t.Error(err)
	}
	old.registry.Apply(c)
	u := c.found["u"].upstream
	if e := u.Endpoints()[1]; e.Load.Flags() != lb.Ejected || u.Shares()[e] != 0 {
		t.Errorf("flags %v, share %v", e.Load.Flags(), u.Shares()[e])
	}
	if e := c.found["v"].upstream.Endpoints()[0]; e.Load.Flags() != 0 {
		t.Error("an endpoint of which nobody asks is ejected")
	}
	got := c.Ejections()["u"]["127.0.0.1:2"]
	if got.Age < 2*time.Second || got.Age > 10*time.Second || got.Multiplier != 3 || got.Cause != health.CauseSuccessRate {
		t.Errorf("goes on as %+v", got)
	}
	if again := c.Breakers(now); !reflect.DeepEqual(again.Routes, breakers.Routes) || again.Upstreams["u"] != breakers.Upstreams["u"] {
		t.Errorf("breakers go on as %+v", again)
	}
	for name, one := range map[string]health.EjectionRecord{
		"negative":    {Age: -1, Multiplier: 1},
		"no time":     {Ejected: true},
		"many times":  {Multiplier: 1 << 30},
		"no cause":    {Multiplier: 1, Cause: 99},
		"long jitter": {Multiplier: 1, Jitter: 1 << 62},
	} {
		if err := c.RestoreEjections(Ejections{"u": {"127.0.0.1:1": one}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, one := range map[string]health.BreakerRecord{
		"half-open": {State: health.HalfOpen}, "no state": {State: 7}, "level": {Level: 99}, "negative": {State: health.Open, Left: -1},
	} {
		if err := c.RestoreBreakers(Breakers{Upstreams: map[string]health.BreakerRecord{"u": one}}, now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
