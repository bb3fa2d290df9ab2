package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Adaptive is how many requests an upstream may have under way at once, found by how long they take: an upstream's `concurrency:`. The
// settings are those of Envoy's adaptive concurrency filter, whose names stand behind them.
type Adaptive struct {
	MaxLimit        int           // max_limit (max_concurrency_limit): up to 1000000, not below min_concurrency; 1000
	MinConcurrency  int           // min_concurrency: 1..100000; 3
	UpdateInterval  time.Duration // update_interval (concurrency_update_interval): 10ms..10m; 100ms
	Percentile      float64       // percentile (sample_aggregate_percentile): 1..99.99; 50
	MeasureInterval time.Duration // measure_interval (min_rtt_calc_params.interval): 1s..24h; 60s
	MeasureJitter   float64       // measure_jitter (jitter): 0%..100%; 15%
	MeasureRequests int           // measure_requests (request_count): 1..100000; 50
	Buffer          float64       // buffer: 0%..1000%; 25%
}

const adaptiveKeys = "max_limit min_concurrency update_interval percentile measure_interval measure_jitter measure_requests buffer"

// adaptive reads adaptive, off, or a map.
func (d *decoder) adaptive(key string, n ast.Node) *Adaptive {
	a := &Adaptive{MaxLimit: 1000, MinConcurrency: 3, UpdateInterval: 100 * time.Millisecond, Percentile: 50,
		MeasureInterval: time.Minute, MeasureJitter: 15, MeasureRequests: 50, Buffer: 25}
	switch n = d.resolve(n); {
	case n == nil:
		return nil
	case !isMap(n):
		word := "off"
		if d.word(key, n, "adaptive off", &word); word == "off" {
			return nil
		}
		return a
	}
	d.mapping(key, n, adaptiveKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "max_limit":
			d.integer(key, v, 1, 1_000_000, &a.MaxLimit)
		case "min_concurrency":
			d.integer(key, v, 1, 100_000, &a.MinConcurrency)
		case "update_interval":
			d.durationUpTo(key, v, 10*time.Millisecond, 10*time.Minute, &a.UpdateInterval)
		case "percentile":
			d.fraction(key, v, 1, 99.99, &a.Percentile)
		case "measure_interval":
			d.durationUpTo(key, v, time.Second, 24*time.Hour, &a.MeasureInterval)
		case "measure_jitter":
			d.percent(key, v, 0, 100, &a.MeasureJitter)
		case "measure_requests":
			d.integer(key, v, 1, 100_000, &a.MeasureRequests)
		case "buffer":
			d.percent(key, v, 0, 1000, &a.Buffer)
		default:
			return false
		}
		return true
	})
	if a.MaxLimit < a.MinConcurrency {
		d.problem(n, "", "%q is below %q, which is %d", "max_limit", "min_concurrency", a.MinConcurrency)
	}
	return a
}

func (w *dumper) adaptive(a *Adaptive) {
	if a == nil {
		return
	}
	w.block("concurrency:", func() {
		w.line("max_limit: %d", a.MaxLimit)
		w.line("min_concurrency: %d", a.MinConcurrency)
		w.line("update_interval: %s", formatDuration(a.UpdateInterval))
		w.line("percentile: %s", formatShare(a.Percentile))
		w.line("measure_interval: %s", formatDuration(a.MeasureInterval))
		w.line("measure_jitter: %s%%", formatShare(a.MeasureJitter))
		w.line("measure_requests: %d", a.MeasureRequests)
		w.line("buffer: %s%%", formatShare(a.Buffer))
	})
}
