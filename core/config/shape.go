package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Canary brings a new version into use by steps: an upstream beside those of `to`, which are the stable side, or other endpoints of one of them.
type Canary struct {
	To          Target        // whose weight says nothing
	Steps       []int         // percent of the exchanges, rising, 1..100; 1..32 of them
	Hold        time.Duration // at least so long at each step, 1s..720h; 10m
	Window      time.Duration // over which Abort is judged, 1s..1h; 1m
	Abort       string        // a condition, see health.Condition; "": only a person aborts
	AbortPos    Pos           // of its first byte
	MinRequests int           // to the canary: before a step ends, and before Abort means anything; 1..1000000000; 100
	Keys        []BalanceKey  // whose exchanges stay on one side; none: each exchange draws
}

// Mirror gets copies of a route's requests, whose answers nobody gets.
type Mirror struct {
	To        string
	Pos       Pos           // of To
	Share     float64       // percent of the requests, 0.001..100; 100
	BodyBytes int64         // requests with a longer body are not mirrored, 0..1MiB; 16KiB
	Timeout   time.Duration // of one copy, with its answer; 1ms..24h; 5s
	AtOnce    int           // copies under way, those that wait for their body too, 1..100000; 100
	Host      string        // preserve, upstream, or shadow: with "-shadow" behind the name; preserve
	Mark      bool          // copies bear X-Sluice-Mirror: 1; true
}

const (
	canaryKeys      = "to steps hold window abort min_requests key"
	mirrorKeys      = "to share body timeout at_once host mark"
	maxCanarySteps  = 32
	maxMirrorBytes  = 1 << 20
	maxAbortBytes   = 256
	maxMirrorAtOnce = 100_000
)

// shape reads one of the keys that say how the exchanges of a route are spread.
func (d *decoder) shape(key string, k, v ast.Node, r *Route, parts *routeParts) bool {
	switch key {
	case "split_by":
		var b Balance
		d.balanceKeyList(key, v, &b)
		r.SplitBy = b.Keys
	case "canary":
		r.Canary = d.canary(key, v)
	case "mirror":
		r.Mirror = d.mirror(key, v)
	default:
		return false
	}
	parts.shapes = append(parts.shapes, written{key, d.at(k)})
	return true
}

func (d *decoder) canary(key string, n ast.Node) *Canary {
	c := &Canary{Hold: 10 * time.Minute, Window: time.Minute, MinRequests: 100}
	hasTo, hasSteps := false, false
	ok := d.mapping(key, n, canaryKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "to":
			hasTo = true
			d.canaryTarget(key, v, &c.To)
		case "steps":
			hasSteps = true
			d.steps(key, v, c)
		case "hold":
			d.durationUpTo(key, v, time.Second, 30*24*time.Hour, &c.Hold)
		case "window":
			d.durationUpTo(key, v, time.Second, time.Hour, &c.Window)
		case "abort":
			var s string
			if !d.text(key, v, &s) {
				break
			}
			if v = d.resolve(v); s == "" || len(s) > maxAbortBytes || hasControl(s) {
				d.problem(v, `write "errors > 1% or p99 > 300ms"`, "%q must be a condition of 1 to %d bytes", key, maxAbortBytes)
				break
			}
			c.Abort, c.AbortPos = s, d.src.inside(d.at(v), s, 0)
		case "min_requests":
			d.integer(key, v, 1, 1_000_000_000, &c.MinRequests)
		case "key":
			var b Balance
			d.balanceKeyList(key, v, &b)
			c.Keys = b.Keys
		default:
			return false
		}
		return true
	})
	if ok && (!hasTo || !hasSteps) {
		d.problem(n, "write { to: UPSTREAM, steps: [5, 25, 100] }", "%q needs both %q and %q", key, "to", "steps")
	}
	return c
}

// steps reads shares in percent, each larger than the one before.
func (d *decoder) steps(key string, n ast.Node, c *Canary) {
	d.list(key, n, func(v ast.Node) {
		step := 0
		d.integer(key, v, 1, 100, &step)
		last := 0
		if len(c.Steps) > 0 {
			last = c.Steps[len(c.Steps)-1]
		}
		switch {
		case step == 0: // was reported
		case step <= last:
			d.problem(v, "", "%q must rise, and %d does not come after %d", key, step, last)
		case len(c.Steps) == maxCanarySteps:
			d.problem(v, "", "a canary has at most %d steps", maxCanarySteps)
		default:
			c.Steps = append(c.Steps, step)
		}
	})
}

// mirror reads an upstream's name, or a map.
func (d *decoder) mirror(key string, n ast.Node) *Mirror {
	m := &Mirror{Share: 100, BodyBytes: 16 << 10, Timeout: 5 * time.Second, AtOnce: 100, Host: "preserve", Mark: true}
	switch n = d.resolve(n); {
	case n == nil:
		return m
	case !isMap(n):
		d.shapeTarget(key, n, &m.To, &m.Pos)
		return m
	}
	hasTo := false
	ok := d.mapping(key, n, mirrorKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "to":
			hasTo = true
			d.shapeTarget(key, v, &m.To, &m.Pos)
		case "share":
			d.percent(key, v, 0.001, 100, &m.Share)
		case "body":
			d.size(key, v, 0, maxMirrorBytes, &m.BodyBytes)
		case "timeout":
			d.duration(key, v, time.Millisecond, &m.Timeout)
		case "at_once":
			d.integer(key, v, 1, maxMirrorAtOnce, &m.AtOnce)
		case "host":
			d.word(key, v, "preserve upstream shadow", &m.Host)
		case "mark":
			d.boolean(key, v, &m.Mark)
		default:
			return false
		}
		return true
	})
	if ok && !hasTo {
		d.problem(n, "write { to: UPSTREAM }", "%q has no %q", key, "to")
	}
	return m
}

// canaryTarget reads an upstream's name, or a map with a subset of it.
func (d *decoder) canaryTarget(key string, n ast.Node, to *Target) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	if !isMap(n) {
		to.Weight = 1
		d.shapeTarget(key, n, &to.Upstream, &to.Pos)
		return
	}
	values, _ := d.pairs(key, n)
	for _, pair := range values {
		if word, ok := pair.Key.(*ast.StringNode); ok && word.Value == "weight" {
			d.problem(word, "", "%q has no meaning here: its steps say how much a canary gets", "weight")
			return
		}
	}
	*to, _ = d.target(key, n, "")
}

func (d *decoder) shapeTarget(key string, n ast.Node, to *string, at *Pos) {
	if d.text(key, n, to) {
		*at = d.at(d.resolve(n))
	}
}

// shaped checks how the exchanges of a route are spread against what else the route does.
func (d *decoder) shaped(r *Route, parts *routeParts) {
	action := ""
	if len(parts.actions) == 1 {
		action = parts.actions[0].key
	}
	for _, w := range parts.shapes {
		switch {
		case action == "":
		case action == "passthrough" && w.key != "split_by":
			d.problemAt(w.pos, "", "%q has no meaning beside %q: there are no requests", w.key, action)
		case action != "to" && action != "passthrough":
			d.problemAt(w.pos, "", "%q has no meaning beside %q: nothing is sent to an upstream", w.key, action)
		case w.key == "split_by" && len(r.To) < 2:
			d.problemAt(w.pos, "write to: { a: 90, b: 10 }", "%q has no meaning here: there is one upstream", w.key)
		}
	}
	keys := r.SplitBy
	if r.Passthrough {
		for i := range keys {
			if keys[i].From != "client_ip" {
				d.problemAt(keys[i].Pos, "write client_ip", "connections that are passed through do not show this")
			}
		}
		return
	}
	if r.Canary != nil {
		keys = append(keys[:len(keys):len(keys)], r.Canary.Keys...)
	}
	names := map[string]int{}
	for i := range r.Matches {
		countParameters(r.Matches[i].Path, names)
	}
	for i := range keys {
		if k := &keys[i]; k.From == "param" && names[k.Name] < max(1, len(r.Matches)) {
			d.problemAt(k.Pos, "", "{%s} is not a parameter of every match of this route", clip(k.Name))
		}
	}
}

// beside are the names of a route's upstreams that do not stand in `to`.
func (r *Route) beside() (names []string) {
	if r.Canary != nil {
		names = append(names, r.Canary.To.Upstream)
	}
	if r.Mirror != nil {
		names = append(names, r.Mirror.To)
	}
	return names
}

// upstreams are those that may answer a route's requests.
func (r *Route) upstreams() []Target {
	if r.Canary == nil {
		return r.To
	}
	return append(r.To[:len(r.To):len(r.To)], r.Canary.To)
}

// checkShapes finds canaries and mirrors that are what stands beside them.
func (l *loader) checkShapes() {
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		if m := r.Mirror; m != nil {
			l.checkApart(m.To, m.Pos, "mirrors to %q, which answers its requests", r.upstreams())
		}
		if c := r.Canary; c != nil {
			l.checkCanary(r, &c.To)
		}
	}
}

// checkCanary finds canaries that are nowhere, and that are their route's stable side.
func (l *loader) checkCanary(r *Route, to *Target) {
	l.checkApart(to.Upstream, to.Pos, "", nil)
	at, ok := l.upstreams[to.Upstream]
	if !ok {
		return
	}
	u := &l.cfg.Upstreams[at]
	fixed := len(u.Files) == 0 // what a file will hold is not known
	if fixed && to.Subset != nil && !slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.has(to.Subset) }) {
		l.problemAt(to.Pos, "", "this canary is nowhere: no endpoint of upstream %q has the labels %s", u.Name, labelText(to.Subset))
		return
	}
	for i := range r.To {
		t := &r.To[i]
		switch {
		case t.Upstream != to.Upstream:
		case maps.Equal(t.Subset, to.Subset):
			l.problemAt(to.Pos, "", "the route has %q as its canary and as its stable side", to.Name())
			return
		case fixed && !slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.has(t.Subset) != e.has(to.Subset) }):
			l.problemAt(to.Pos, "", "the canary %s has the same endpoints as the stable side %s", to.Name(), t.Name())
			return
		}
	}
}

// checkApart refuses a name that is among targets, or of no upstream.
func (l *loader) checkApart(name string, at Pos, what string, targets []Target) {
	if name == "" {
		return // was reported
	}
	if _, ok := l.upstreams[name]; !ok {
		l.problemAt(at, l.hint(name, maps.Keys(l.upstreams)), "there is no upstream %q", clip(name))
		return
	}
	for _, t := range targets {
		if t.Upstream == name {
			l.problemAt(at, "", "the route "+what, name)
			return
		}
	}
}

// KeyTexts is a list of keys as it is written.
func KeyTexts(keys []BalanceKey) string {
	texts := make([]string, len(keys))
	for i := range keys {
		texts[i] = keys[i].text()
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func (w *dumper) shape(r *Route) {
	if len(r.SplitBy) > 0 {
		w.line("split_by: %s", KeyTexts(r.SplitBy))
	}
	if c := r.Canary; c != nil {
		w.block("canary:", func() {
			if c.To.Subset == nil {
				w.line("to: %s", quote(c.To.Upstream))
			} else {
				w.line("to: { upstream: %s, subset: %s, otherwise: %s }", quote(c.To.Upstream), labelText(c.To.Subset), c.To.otherwise())
			}
			w.line("steps: [%s]", strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Steps), " ", ", "), "[]"))
			w.line("hold: %s", formatDuration(c.Hold))
			w.line("window: %s", formatDuration(c.Window))
			if c.Abort != "" {
				w.line("abort: %s", quote(c.Abort))
			}
			w.line("min_requests: %d", c.MinRequests)
			if len(c.Keys) > 0 {
				w.line("key: %s", KeyTexts(c.Keys))
			}
		})
	}
	if m := r.Mirror; m != nil {
		w.line("mirror: { to: %s, share: %s%%, body: %s, timeout: %s, at_once: %d, host: %s, mark: %t }", quote(m.To), formatShare(m.Share),
			formatSize(m.BodyBytes), formatDuration(m.Timeout), m.AtOnce, m.Host, m.Mark)
	}
}
