package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	routeKeys = "name match priority to passthrough respond redirect split_by canary mirror strip_prefix replace_prefix rewrite host timeout body_bytes log_sample client_cert use breaker timeouts retry hedge request_timeout"

	maxPriority  = 1_000_000
	maxRouteName = 256 // bytes
	maxMatches   = 10_000
	maxTargets   = 1000

	minRouteBytes = 16 // of the shortest text that is a route and no alias
)

// namedRoute is where a route's name stands, until all are known and can be made unique.
type namedRoute struct {
	pos      Pos
	explicit bool
	partial  bool // has problems: conditions may be missing, so it is not compared with other routes
}

// routeParts is what of a route can be judged only when the whole of it has been read.
type routeParts struct {
	actions  []written // to, respond, redirect
	paths    []written // strip_prefix, replace_prefix, rewrite
	hasMatch bool
	host     written
	breaker  written
	redirect ast.Node  // its `to`
	shapes   []written // split_by, canary, mirror
	requests []written // priority, timeout, body_bytes: what is of requests alone
	totals   []written // timeout, and the total of timeouts
	attempts []written // timeouts, retry, request_timeout: what is of upstreams alone
}

// written is a key, and where it stands.
type written struct {
	key string
	pos Pos
}

// reserve makes room for the routes of segments, in one piece and for no more than their text can hold: with 100,000 of them the copies
// of a list that grows, and what it has grown too far, cost more than to read them.
func (l *loader) reserve(segments []segment) {
	n := 0
	for i := range segments {
		if s := &segments[i]; s.of == "routes" {
			n += min(s.items, len(s.text)/minRouteBytes)
		}
	}
	l.cfg.Routes, l.names = slices.Grow(l.cfg.Routes, n), slices.Grow(l.names, n)
}

// routes reads a list of routes.
func (d *decoder) routes(n ast.Node) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType("routes", n, "a list")
		return
	}
	for i := range seq.Values {
		if d.exhausted {
			return
		}
		d.route(item(seq, i))
	}
}

func (d *decoder) route(n ast.Node) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	r := Route{Pos: d.at(n), Host: "preserve"}
	named := namedRoute{pos: r.Pos}
	var parts routeParts
	before := d.errors
	ok := d.mapping("route", n, routeKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "name":
			if d.routeName(key, v, &r.Name) {
				named = namedRoute{pos: d.at(v), explicit: true}
			}
		case "match":
			parts.hasMatch = true
			d.matches(key, v, &r)
		case "priority":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			d.integer(key, v, -maxPriority, maxPriority, &r.Priority)
		case "timeout":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			parts.totals = append(parts.totals, written{key, d.at(k)})
			d.optionalDuration(key, v, &r.Timeout)
		case "timeouts", "retry", "hedge", "request_timeout":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			parts.attempts = append(parts.attempts, written{key, d.at(k)})
			d.attempts(key, v, &r, &parts)
		case "body_bytes":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			r.BodyBytes = new(int64)
			d.size(key, v, 0, maxBodyBytes, r.BodyBytes)
		case "client_cert":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			d.clientCert(key, v, &r)
		case "use":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			d.uses(key, v, &r)
		case "breaker":
			parts.requests = append(parts.requests, written{key, d.at(k)})
			if r.Breaker = d.breaker(key, k, v); r.Breaker != nil {
				parts.breaker = written{key, d.at(k)}
			}
		case "log_sample":
			r.LogSample = new(float64)
			d.fraction(key, v, 0, 1, r.LogSample)
		default:
			return d.action(key, k, v, &r, &parts) || d.shape(key, k, v, &r, &parts) || d.change(key, k, v, &r, &parts)
		}
		return true
	})
	if !ok {
		return
	}
	d.routeWhole(n, &r, &parts)
	named.partial = d.errors > before
	if r.Name == "" && len(r.Matches) > 0 {
		r.Name = clipBytes(r.Matches[0].Text, maxRouteName)
	}
	d.names = append(d.names, named)
	d.cfg.Routes = append(d.cfg.Routes, r)
}

func (d *decoder) routeName(key string, n ast.Node, to *string) bool {
	var s string
	if !d.text(key, n, &s) {
		return false
	}
	if s == "" || len(s) > maxRouteName || hasControl(s) || strings.ContainsRune(s, '\t') {
		d.problem(n, fmt.Sprintf("1 to %d bytes without control characters", maxRouteName), "%q cannot name a route", clip(s))
		return false
	}
	*to = s
	return true
}

// matches reads one match, or a list of which any may hold.
func (d *decoder) matches(key string, n ast.Node, r *Route) {
	d.list(key, n, func(v ast.Node) {
		if len(r.Matches) == maxMatches {
			d.problem(v, "", "a route has at most %d matches", maxMatches)
			return
		}
		if m, ok := d.match(v); ok {
			r.Matches = append(r.Matches, m)
		}
	})
}

// routeWhole checks what takes more than one key of the route.
func (d *decoder) routeWhole(n ast.Node, r *Route, parts *routeParts) {
	if !parts.hasMatch {
		d.problem(n, `"*" matches every request`, "the route has no %q", "match")
	}
	if len(parts.actions) == 0 {
		d.problem(n, "add to: UPSTREAM, respond: or redirect:", "the route does nothing")
	}
	for _, action := range parts.actions[min(1, len(parts.actions)):] {
		d.problemAt(action.pos, "", "the route does %q already; it cannot %q too", parts.actions[0].key, action.key)
	}
	for _, path := range parts.paths[min(1, len(parts.paths)):] {
		d.problemAt(path.pos, "", "the route has %q already; %q cannot stand beside it", parts.paths[0].key, path.key)
	}
	for _, total := range parts.totals[min(1, len(parts.totals)):] {
		d.problemAt(total.pos, "", "the whole time of the route is given twice; first at %s", parts.totals[0].pos)
	}
	if len(parts.actions) == 1 && parts.actions[0].key != "to" {
		changes := append(parts.paths, parts.host)
		if !r.Passthrough { // of which it is said for all that is of requests
			changes = append(append(changes, parts.breaker), parts.attempts...)
		}
		for _, change := range changes {
			if change.key != "" {
				d.problemAt(change.pos, "", "%q has no meaning beside %q: nothing is sent to an upstream", change.key, parts.actions[0].key)
			}
		}
	}
	if r.Passthrough {
		d.passes(r, parts)
	}
	d.shaped(r, parts)
	if len(parts.paths) == 1 && len(r.Matches) > 0 {
		d.prefixMatches(r, parts.paths[0])
	}
	if parts.redirect != nil && r.Redirect != nil {
		d.redirectTemplate(parts.redirect, r)
	}
}

// prefixMatches refuses a prefix to strip or replace that the path of no match can start with.
func (d *decoder) prefixMatches(r *Route, key written) {
	prefix := r.StripPrefix
	if r.ReplacePrefix != nil {
		prefix = r.ReplacePrefix.Prefix
	}
	if prefix == "" {
		return
	}
	for i := range r.Matches {
		if canStartWith(r.Matches[i].Path, prefix) {
			return
		}
	}
	d.problemAt(key.pos, "", "no path that this route matches starts with %q", clip(prefix))
}

// canStartWith tells whether a path that matches p can be prefix, or go on with a slash after it.
func canStartWith(p Path, prefix string) bool {
	if p.Kind == PathAny || p.Kind == PathRegex {
		return true
	}
	path := p.Value
	for prefix != "" {
		if path == "" {
			return p.Kind == PathPrefix
		}
		var want, have string
		want, prefix = cutSegment(prefix)
		have, path = cutSegment(path)
		if _, any := parameter(have); !any && have != want {
			return false
		}
	}
	return true
}

// cutSegment cuts "/a/b" into "a" and "/b".
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// nameRoutes makes the names unique. A name that was written stays as it is; one taken from a match gets a number.
func (l *loader) nameRoutes() {
	taken := make(map[string]int, len(l.cfg.Routes)) // index of the first
	for i, named := range l.names {
		if !named.explicit {
			continue
		}
		name := l.cfg.Routes[i].Name
		if first, twice := taken[name]; twice {
			l.problemAt(named.pos, "", "route %q is given twice; first at %s", clip(name), l.names[first].pos)
			continue
		}
		taken[name] = i
	}
	next := map[string]int{}
	for i, named := range l.names {
		if named.explicit {
			continue
		}
		r := &l.cfg.Routes[i]
		base := r.Name
		for number := max(2, next[base]); ; number++ {
			if _, twice := taken[r.Name]; !twice {
				break
			}
			r.Name = fmt.Sprintf("%s (%d)", base, number)
			next[base] = number + 1
		}
		taken[r.Name] = i
	}
}

// clipBytes shortens text to at most n bytes without cutting a character.
func clipBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
