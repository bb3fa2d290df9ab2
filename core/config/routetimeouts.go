package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// RouteTimeouts are a route's own in the place of its upstreams'; 0: theirs. The total is the route's Timeout.
type RouteTimeouts struct {
	Header time.Duration
	Idle   time.Duration
	PerTry time.Duration

	perTryAt Pos
}

// attempts reads one of a route's keys that say how upstreams are asked.
func (d *decoder) attempts(key string, v ast.Node, r *Route, parts *routeParts) {
	switch key {
	case "timeouts":
		d.routeTimeouts(key, v, r, parts)
	case "retry":
		r.Retry = &Retry{}
		*r.Retry = writtenRetry()
		d.retry(key, v, r.Retry, nil)
	case "hedge":
		r.Hedge = &Hedge{}
		d.hedge(key, v, r.Hedge)
	case "request_timeout":
		d.word(key, v, "header ignore", &r.RequestTimeout)
	}
}

// routeTimeouts reads the timeouts of a route.
func (d *decoder) routeTimeouts(key string, n ast.Node, r *Route, parts *routeParts) {
	t := &RouteTimeouts{}
	d.mapping(key, n, "header idle per_try total", func(key string, k, v ast.Node) bool {
		switch key {
		case "header":
			d.duration(key, v, time.Millisecond, &t.Header)
		case "idle":
			d.duration(key, v, time.Millisecond, &t.Idle)
		case "per_try":
			t.perTryAt = d.at(v)
			d.duration(key, v, time.Millisecond, &t.PerTry)
		case "total":
			parts.totals = append(parts.totals, written{key, d.at(k)})
			d.duration(key, v, time.Millisecond, &r.Timeout)
		default:
			return false
		}
		return true
	})
	if *t != (RouteTimeouts{}) {
		r.Timeouts = t
	}
}

// own are the route's timeouts in the place of its upstreams'.
func (r *Route) own() (t RouteTimeouts) {
	if r.Timeouts != nil {
		t = *r.Timeouts
	}
	return t
}

// checkPerTry finds attempts that may take longer than the whole.
func (l *loader) checkPerTry() {
	for i := range l.cfg.Upstreams {
		u := &l.cfg.Upstreams[i]
		if u.Retry.PerTry > 0 && u.Timeouts.PerTry > 0 {
			l.problemAt(u.Retry.perTryAt, "", "upstream %q has a %q already, at %s", u.Name, "per_try", u.Timeouts.perTryAt)
			continue
		}
		l.perTryFits(u.Retry.PerTry, u.Retry.perTryAt, u.Timeouts.Total, u.Pos)
		l.perTryFits(u.Timeouts.PerTry, u.Timeouts.perTryAt, u.Timeouts.Total, u.Pos)
	}
	for i := range l.cfg.Routes {
		l.checkRoutePerTry(&l.cfg.Routes[i])
	}
}

func (l *loader) checkRoutePerTry(r *Route) {
	own := r.own()
	if r.Retry != nil && r.Retry.PerTry > 0 && own.PerTry > 0 {
		l.problemAt(r.Retry.perTryAt, "", "route %q has a %q already, at %s", clip(r.Name), "per_try", own.perTryAt)
		return
	}
	for _, t := range r.To {
		i, ok := l.upstreams[t.Upstream]
		if !ok {
			continue
		}
		u := &l.cfg.Upstreams[i]
		total := r.Timeout
		if total == 0 {
			total = u.Timeouts.Total
		}
		switch {
		case own.PerTry > 0:
			l.perTryFits(own.PerTry, own.perTryAt, total, r.Pos)
		case r.Retry != nil && r.Retry.PerTry > 0:
			l.perTryFits(r.Retry.PerTry, r.Retry.perTryAt, total, r.Pos)
		case r.Timeout > 0 && r.Retry == nil && u.Retry.PerTry > r.Timeout, r.Timeout > 0 && u.Timeouts.PerTry > r.Timeout:
			l.warnAt(r.Pos, "", "the time of route %q is over before an attempt at upstream %q may have ended by its %q", clip(r.Name), u.Name, "per_try")
		}
	}
}

// perTryFits refuses a perTry, written at pos, that is longer than total; 0: no limit.
func (l *loader) perTryFits(perTry time.Duration, pos Pos, total time.Duration, otherwise Pos) {
	if total == 0 || perTry <= total {
		return
	}
	if pos.Line == 0 {
		pos = otherwise
	}
	l.problemAt(pos, "", "%q is longer than the whole may take, %s", "per_try", formatDuration(total))
}

// attempts writes how a route's upstreams are asked.
func (w *dumper) attempts(r *Route) {
	var list []string
	own := r.own()
	for _, t := range []struct {
		key   string
		value time.Duration
	}{{"header", own.Header}, {"idle", own.Idle}, {"per_try", own.PerTry}} {
		if t.value > 0 {
			list = append(list, t.key+": "+formatDuration(t.value))
		}
	}
	if len(list) > 0 {
		w.line("timeouts: { %s }", strings.Join(list, ", "))
	}
	if r.Retry != nil {
		w.line("retry: %s", r.Retry.text(nil))
	}
	if r.Hedge != nil {
		w.line("hedge: %s", r.Hedge.text())
	}
	if r.RequestTimeout != "" {
		w.line("request_timeout: %s", r.RequestTimeout)
	}
}
