package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Breaker is when requests to an upstream, or of a route, are refused at once. Any of the three conditions opens it.
type Breaker struct {
	Errors         float64       // percent of Window's requests that failed, 0.01..100; 50. 0: never by it
	SlowPercentile float64       // of the times of Window's requests that is above SlowOver, 50..99.99; 0: never by it
	SlowOver       time.Duration // 1ms..10m
	Consecutive    int           // failures in a row, 0..10000; 0: never by it

	Window      time.Duration // 1s..10m; 30s
	MinRequests int           // in Window, before errors and times mean anything, 1..1e6; 20

	Cooldown    time.Duration // 10ms..1h; 60s
	Growth      float64       // of the cooldown when it opens again at once, 1..10; 2
	MaxCooldown time.Duration // Cooldown..24h; 10m
	Probes      int           // 1..1000; 3

	Fallback Fallback
}

// Fallback is what answers while a breaker is open: at most one of the two; none: a 503.
type Fallback struct {
	Respond *Respond
	To      *Target
}

const (
	breakerKeys  = "errors slow consecutive window min_requests cooldown growth max_cooldown probes fallback"
	maxFallbacks = 8 // upstreams that stand in for one another in a row
)

// breaker reads on, off, or a map.
func (d *decoder) breaker(key string, k, n ast.Node) *Breaker {
	b := &Breaker{Errors: 50, Window: 30 * time.Second, MinRequests: 20, Cooldown: time.Minute, Growth: 2, MaxCooldown: 10 * time.Minute, Probes: 3}
	if on, short := d.onOrOff(key, n); short {
		if !on {
			return nil
		}
		return b
	}
	ok := d.mapping(key, n, breakerKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "errors":
			d.percentOrOff(key, v, 0.01, &b.Errors)
		case "slow":
			d.slow(key, v, b)
		case "consecutive":
			d.integer(key, v, 0, 10_000, &b.Consecutive)
		case "window":
			d.durationUpTo(key, v, time.Second, 10*time.Minute, &b.Window)
		case "min_requests":
			d.integer(key, v, 1, 1_000_000, &b.MinRequests)
		case "cooldown":
			d.durationUpTo(key, v, 10*time.Millisecond, time.Hour, &b.Cooldown)
		case "growth":
			d.fraction(key, v, 1, 10, &b.Growth)
		case "max_cooldown":
			d.duration(key, v, 10*time.Millisecond, &b.MaxCooldown)
		case "probes":
			d.integer(key, v, 1, 1000, &b.Probes)
		case "fallback":
			d.fallback(key, v, &b.Fallback)
		default:
			return false
		}
		return true
	})
	if ok {
		d.checkBreaker(k, n, b)
	}
	return b
}

// checkBreaker finds settings that contradict each other, and those that are never looked at.
func (d *decoder) checkBreaker(k, n ast.Node, b *Breaker) {
	given := d.givenIn(n)
	if b.Errors == 0 && b.SlowPercentile == 0 {
		if b.Consecutive == 0 {
			d.problem(k, "write breaker: off, or errors: 50%", "nothing opens this breaker")
			return
		}
		for _, key := range []string{"window", "min_requests"} {
			if at, ok := given[key]; ok {
				d.problemAt(at, "", "%q is of no use with %q alone", key, "consecutive")
			}
		}
	}
	if b.MaxCooldown >= b.Cooldown {
		return
	}
	if at, ok := given["max_cooldown"]; ok {
		d.problemAt(at, "", "%q is below %q", "max_cooldown", "cooldown")
		return
	}
	b.MaxCooldown = b.Cooldown
}

// slow reads "p99 > 300ms".
func (d *decoder) slow(key string, n ast.Node, b *Breaker) {
	var text string
	if !d.text(key, n, &text) {
		return
	}
	n = d.resolve(n)
	const hint = "write p99 > 300ms"
	left, right, ok := strings.Cut(text, ">")
	number, isPercentile := strings.CutPrefix(strings.TrimSpace(left), "p")
	percentile, err := strconv.ParseFloat(number, 64)
	if !ok || !isPercentile || err != nil || strings.Trim(number, "0123456789.") != "" {
		d.problem(n, hint, "%q must be a percentile and a time, not %q", key, clip(text))
		return
	}
	over, wrong, ok := parseDuration(strings.TrimSpace(right))
	switch {
	case !ok:
		d.problem(n, wrong, "%q must be a percentile and a time, not %q", key, clip(text))
	case percentile < 50 || percentile > 99.99:
		d.problem(n, hint, "the percentile of %q must be from 50 to 99.99", key)
	case over < time.Millisecond || over > 10*time.Minute:
		d.problem(n, hint, "the time of %q must be from 1ms to 10m", key)
	default:
		b.SlowPercentile, b.SlowOver = percentile, over
	}
}

// fallback reads what answers while a breaker is open.
func (d *decoder) fallback(key string, n ast.Node, f *Fallback) {
	first := ""
	ok := d.mapping(key, n, "respond to", func(key string, k, v ast.Node) bool {
		switch key {
		case "respond", "to":
			if first != "" {
				d.problem(k, "", "a fallback does %q already; it cannot %q too", first, key)
				return true
			}
			first = key
		default:
			return false
		}
		if key == "to" {
			var name string
			if d.text(key, v, &name) {
				f.To = &Target{Upstream: name, Weight: 1, Pos: d.at(d.resolve(v))}
			}
			return true
		}
		var r Route
		d.respond(key, v, &r)
		f.Respond = r.Respond
		return true
	})
	if ok && first == "" {
		d.problem(n, "write respond: { status: 503 } or to: UPSTREAM", "%q does nothing", key)
	}
}

// fallbacks are those that lead to an upstream.
func (l *loader) fallbacks() (all []*Fallback) {
	add := func(b *Breaker) {
		if b != nil && b.Fallback.To != nil {
			all = append(all, &b.Fallback)
		}
	}
	for i := range l.cfg.Upstreams {
		add(l.cfg.Upstreams[i].Breaker)
	}
	for i := range l.cfg.Routes {
		add(l.cfg.Routes[i].Breaker)
	}
	return all
}

// checkFallbacks finds fallbacks that lead nowhere, in a circle, or to what has failed already.
func (l *loader) checkFallbacks() {
	for _, f := range l.fallbacks() {
		if _, ok := l.upstreams[f.To.Upstream]; !ok {
			l.problemAt(f.To.Pos, l.hint(f.To.Upstream, maps.Keys(l.upstreams)), "there is no upstream %q", clip(f.To.Upstream))
		}
	}
	for i := range l.cfg.Upstreams {
		l.checkFallbackChain(&l.cfg.Upstreams[i])
	}
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		if r.Breaker == nil || r.Breaker.Fallback.To == nil {
			continue
		}
		if to := r.Breaker.Fallback.To; len(r.To) == 1 && r.To[0].Upstream == to.Upstream {
			l.problemAt(to.Pos, "", "this is the upstream that the route has failed with")
		}
	}
}

// checkFallbackChain follows the fallbacks of an upstream. A circle is told of once, at its first upstream that was written.
func (l *loader) checkFallbackChain(u *Upstream) {
	chain := []string{u.Name}
	for at := u; at.Breaker != nil && at.Breaker.Fallback.To != nil; {
		to := at.Breaker.Fallback.To
		i, ok := l.upstreams[to.Upstream]
		if !ok {
			return
		}
		if to.Upstream == u.Name {
			if i == slices.Min(l.indices(chain)) {
				l.problemAt(u.Breaker.Fallback.To.Pos, "", "fallbacks go in a circle: %s", strings.Join(append(chain, u.Name), ", "))
			}
			return
		}
		if slices.Contains(chain, to.Upstream) {
			return // a circle that u is not part of
		}
		if chain = append(chain, to.Upstream); len(chain) > maxFallbacks+1 {
			l.problemAt(u.Breaker.Fallback.To.Pos, "", "more than %d fallbacks follow one another", maxFallbacks)
			return
		}
		at = &l.cfg.Upstreams[i]
	}
}

func (l *loader) indices(names []string) (out []int) {
	for _, name := range names {
		out = append(out, l.upstreams[name])
	}
	return out
}

func (w *dumper) breaker(b *Breaker) {
	if b == nil {
		return
	}
	w.block("breaker:", func() {
		if b.Errors == 0 {
			w.line("errors: off")
		} else {
			w.line("errors: %s%%", formatShare(b.Errors))
		}
		if b.SlowPercentile != 0 {
			w.line("slow: p%s > %s", formatShare(b.SlowPercentile), formatDuration(b.SlowOver))
		}
		w.line("consecutive: %d", b.Consecutive)
		if b.Errors != 0 || b.SlowPercentile != 0 {
			w.line("window: %s", formatDuration(b.Window))
			w.line("min_requests: %d", b.MinRequests)
		}
		w.line("cooldown: %s", formatDuration(b.Cooldown))
		w.line("growth: %s", formatShare(b.Growth))
		w.line("max_cooldown: %s", formatDuration(b.MaxCooldown))
		w.line("probes: %d", b.Probes)
		switch f := &b.Fallback; {
		case f.Respond != nil:
			w.block("fallback:", func() { w.block("respond:", func() { w.respond(f.Respond) }) })
		case f.To != nil:
			w.line("fallback: { to: %s }", quote(f.To.Upstream))
		}
	})
}
