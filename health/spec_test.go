package health

import (
	"errors"
	"math"
	"testing"
	"time"
)

// Each setting is refused just outside of its range, under its own name, and taken at its ends.
func TestSpecRanges(t *testing.T) {
	refused := func(setting string, err error) {
		t.Helper()
		var e *SpecError
		if !errors.As(err, &e) || e.Setting != setting {
			t.Errorf("%s: got %v", setting, err)
		}
	}
	taken := func(setting string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: got %v", setting, err)
		}
	}
	ms, day := time.Millisecond, 24*time.Hour

	check := func(setting string, at func(s *CheckSpec) *time.Duration, least, most time.Duration, zero bool) {
		t.Helper()
		f := func(d time.Duration) error { s := DefaultCheck(); *at(&s) = d; return s.Validate() }
		span(t, setting, f, least, most, zero)
	}
	check("interval", func(s *CheckSpec) *time.Duration { return &s.Interval }, 10*ms, time.Hour, false)
	check("unhealthy_interval", func(s *CheckSpec) *time.Duration { return &s.UnhealthyInterval }, 10*ms, time.Hour, true)
	check("start_interval", func(s *CheckSpec) *time.Duration { return &s.StartInterval }, 10*ms, time.Hour, true)
	checkInt := func(setting string, at func(s *CheckSpec) *int, least, most int) {
		t.Helper()
		span(t, setting, func(n int) error { s := DefaultCheck(); *at(&s) = n; return s.Validate() }, least, most, false)
	}
	checkInt("jitter", func(s *CheckSpec) *int { return &s.JitterPercent }, 0, 50)
	checkInt("healthy", func(s *CheckSpec) *int { return &s.Healthy }, 1, 100)
	checkInt("unhealthy", func(s *CheckSpec) *int { return &s.Unhealthy }, 1, 100)

	outlier := func(setting string, at func(s *OutlierSpec) *time.Duration, least, most time.Duration) {
		t.Helper()
		span(t, setting, func(d time.Duration) error {
			s := DefaultOutlier()
			s.MaxEjectionTime = day
			*at(&s) = d
			return s.Validate()
		}, least, most, false)
	}
	outlier("interval", func(s *OutlierSpec) *time.Duration { return &s.Interval }, 100*ms, time.Hour)
	outlier("base_ejection_time", func(s *OutlierSpec) *time.Duration { return &s.BaseEjectionTime }, 100*ms, day)
	outlier("max_ejection_time", func(s *OutlierSpec) *time.Duration { return &s.MaxEjectionTime }, 30*time.Second, day)
	outlier("max_ejection_time_jitter", func(s *OutlierSpec) *time.Duration { return &s.MaxEjectionTimeJitter }, 0, time.Hour)
	outlierInt := func(setting string, at func(s *OutlierSpec) *int, least, most int) {
		t.Helper()
		span(t, setting, func(n int) error { s := DefaultOutlier(); *at(&s) = n; return s.Validate() }, least, most, false)
	}
	outlierInt("consecutive_5xx", func(s *OutlierSpec) *int { return &s.Consecutive5xx }, 0, 10_000)
	outlierInt("consecutive_gateway_failure", func(s *OutlierSpec) *int { return &s.ConsecutiveGatewayFailure }, 0, 10_000)
	outlierInt("consecutive_local_origin_failure", func(s *OutlierSpec) *int { return &s.ConsecutiveLocalOrigin }, 0, 10_000)
	outlierInt("max_ejection_percent", func(s *OutlierSpec) *int { return &s.MaxEjectionPercent }, 0, 100)
	outlierInt("success_rate_minimum_hosts", func(s *OutlierSpec) *int { return &s.SuccessRateMinHosts }, 1, 100_000)
	outlierInt("success_rate_request_volume", func(s *OutlierSpec) *int { return &s.SuccessRateVolume }, 1, 1e9)
	outlierInt("success_rate_stdev_factor", func(s *OutlierSpec) *int { return &s.SuccessRateStdev }, 0, 100_000)
	outlierInt("failure_percentage_threshold", func(s *OutlierSpec) *int { return &s.FailurePercentThreshold }, 1, 100)
	outlierInt("failure_percentage_minimum_hosts", func(s *OutlierSpec) *int { return &s.FailurePercentMinHosts }, 1, 100_000)
	outlierInt("failure_percentage_request_volume", func(s *OutlierSpec) *int { return &s.FailurePercentVolume }, 1, 1e9)
	for c := range Cause(Causes) {
		outlierInt("enforcing_"+c.String(), func(s *OutlierSpec) *int { return &s.Enforcing[c] }, 0, 100)
	}

	breaker := func(setting string, at func(s *BreakerSpec) *time.Duration, least, most time.Duration) {
		t.Helper()
		span(t, setting, func(d time.Duration) error {
			s := DefaultBreaker()
			s.SlowPercentile, s.SlowOver, s.MaxCooldown = 99, time.Second, day
			*at(&s) = d
			return s.Validate()
		}, least, most, false)
	}
	breaker("latency.over", func(s *BreakerSpec) *time.Duration { return &s.SlowOver }, ms, 10*time.Minute)
	breaker("window", func(s *BreakerSpec) *time.Duration { return &s.Window }, time.Second, 10*time.Minute)
	breaker("cooldown", func(s *BreakerSpec) *time.Duration { return &s.Cooldown }, 10*ms, time.Hour)
	breaker("max_cooldown", func(s *BreakerSpec) *time.Duration { return &s.MaxCooldown }, time.Minute, day)
	breakerInt := func(setting string, at func(s *BreakerSpec) *int, least, most int) {
		t.Helper()
		span(t, setting, func(n int) error { s := DefaultBreaker(); *at(&s) = n; return s.Validate() }, least, most, false)
	}
	breakerInt("consecutive", func(s *BreakerSpec) *int { return &s.Consecutive }, 0, 10_000)
	breakerInt("min_requests", func(s *BreakerSpec) *int { return &s.MinRequests }, 1, 1_000_000)
	breakerInt("probes", func(s *BreakerSpec) *int { return &s.Probes }, 1, 1000)
	breakerNumber := func(setting string, with ...float64) error {
		s := DefaultBreaker()
		s.ErrorPercent, s.SlowPercentile, s.Growth, s.SlowOver = with[0], with[1], with[2], time.Second
		return s.Validate()
	}
	refused("errors", breakerNumber("", 0, 0, 2)) // by nothing at all
	taken("errors", breakerNumber("", 0, 99.99, 1))
	taken("errors", breakerNumber("", 100, 50, 10))
	for _, f := range []float64{-1, 0.009, 100.1, math.NaN(), math.Inf(1)} {
		refused("errors", breakerNumber("", f, 0, 2))
	}
	for _, f := range []float64{49.9, 99.995, math.NaN()} {
		refused("latency.percentile", breakerNumber("", 50, f, 2))
	}
	for _, f := range []float64{0.9, 10.1, math.NaN()} {
		refused("growth", breakerNumber("", 50, 0, f))
	}

	for _, f := range []float64{-0.1, 100.1, math.NaN()} {
		s := BudgetSpec{Percent: f}
		refused("percent", s.Validate())
	}
	span(t, "floor", func(n int) error { s := BudgetSpec{Floor: n}; return s.Validate() }, 0, 100_000, false)

	concurrency := func(setting string, change func(s *ConcurrencySpec)) error {
		s := DefaultConcurrency()
		change(&s)
		return s.Validate()
	}
	taken("defaults", concurrency("", func(*ConcurrencySpec) {}))
	refused("min_concurrency", concurrency("", func(s *ConcurrencySpec) { s.MinConcurrency = 0 }))
	refused("max_limit", concurrency("", func(s *ConcurrencySpec) { s.MaxLimit = 2 }))
	refused("update_interval", concurrency("", func(s *ConcurrencySpec) { s.UpdateInterval = 9 * ms }))
	refused("percentile", concurrency("", func(s *ConcurrencySpec) { s.Percentile = 100 }))
	refused("measure_interval", concurrency("", func(s *ConcurrencySpec) { s.MeasureInterval = 999 * ms }))
	refused("measure_jitter", concurrency("", func(s *ConcurrencySpec) { s.MeasureJitter = 101 }))
	refused("measure_requests", concurrency("", func(s *ConcurrencySpec) { s.MeasureRequests = 0 }))
	refused("buffer", concurrency("", func(s *ConcurrencySpec) { s.Buffer = -1 }))

	canary := func(change func(s *CanarySpec)) error {
		s := DefaultCanary()
		s.Steps = []int{5, 100}
		change(&s)
		return s.Validate()
	}
	taken("steps", canary(func(s *CanarySpec) {}))
	for _, steps := range [][]int{nil, {0}, {101}, {5, 5}, {25, 5}, make([]int, 33)} {
		refused("steps", canary(func(s *CanarySpec) { s.Steps = steps }))
	}
	span(t, "hold", func(d time.Duration) error { return canary(func(s *CanarySpec) { s.Hold = d }) }, time.Second, 30*day, false)
	span(t, "window", func(d time.Duration) error { return canary(func(s *CanarySpec) { s.Window = d }) }, time.Second, time.Hour, false)
	span(t, "min_requests", func(n int) error { return canary(func(s *CanarySpec) { s.MinRequests = n }) }, 1, 1e9, false)
	refused("abort", canary(func(s *CanarySpec) { s.Abort = "errors > 1" }))

	_, err := NewSchedule(0, dice(0))
	refused("at_once", err)
	_, err = NewSchedule(10_001, dice(0))
	refused("at_once", err)
}

// span tries a setting at the ends of its range and beside them, and at zero.
func span[T int | time.Duration](t *testing.T, setting string, f func(T) error, least, most T, zero bool) {
	t.Helper()
	for _, v := range []T{least, most} {
		if err := f(v); err != nil {
			t.Errorf("%s %v: %v", setting, v, err)
		}
	}
	for _, v := range []T{least - 1, most + 1, -1} {
		var e *SpecError
		if err := f(v); !errors.As(err, &e) || e.Setting != setting {
			t.Errorf("%s %v: got %v", setting, v, err)
		}
	}
	if err := f(0); (err == nil) != (zero || least <= 0) {
		t.Errorf("%s 0: got %v", setting, err)
	}
}

// What cannot be validated cannot be made.
func TestNewValidates(t *testing.T) {
	_, check := NewCheck(CheckSpec{}, 0)
	_, detector := NewDetector(OutlierSpec{}, dice(0))
	_, breaker := NewBreaker(BreakerSpec{})
	_, budget := NewBudget(BudgetSpec{Percent: -1}, 1)
	_, concurrency := NewConcurrency(ConcurrencySpec{}, dice(0), 0)
	_, canary := NewCanary(CanarySpec{}, 0)
	for i, err := range []error{check, detector, breaker, budget, concurrency, canary, (&Check{}).Reconfigure(CheckSpec{})} {
		if e := new(SpecError); !errors.As(err, &e) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}
