package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Health is how the endpoints of an upstream are checked. Exactly one of HTTP, TCP and GRPC is set.
type Health struct {
	Pos               Pos
	HTTP              *HTTPCheck
	TCP               *TCPCheck
	GRPC              *GRPCCheck
	Interval          time.Duration // between probes of a healthy endpoint, 10ms..1h; 10s
	UnhealthyInterval time.Duration // of an unhealthy one, 10ms..1h; Interval
	StartInterval     time.Duration // until the first state is certain, 10ms..1h; 1s, at most Interval
	Jitter            int           // percent of the interval by which a probe may be late, 0..50; 10
	Timeout           time.Duration // of one probe as a whole, 1ms..Interval; 1s, at most Interval
	Healthy           int           // passes in a row that bring an endpoint back, 1..100; 2
	Unhealthy         int           // failures in a row that take it out, 1..100; 3
	Initial           string        // healthy, or unhealthy: an endpoint gets nothing before its first pass; healthy
	Port              int           // instead of the endpoint's; 0: that
	TLS               string        // inherit (as the upstream's requests), off, on (likewise, but not without), or own; inherit
	OwnTLS            *UpstreamTLS  // if TLS is own, or on, for an upstream without; else nil
	AtOnce            int           // probes of the upstream under way, 1..10000; 100
}

// HTTPCheck is passed by an answer with one of the statuses whose body, or the first 64 KiB of it, has a match of Body. It is asked
// by HTTP/2 where the upstream's protocol is that. Redirects are not followed.
type HTTPCheck struct {
	Method   string // GET
	Path     string // with a query, if any
	Host     string // "": the endpoint's name
	Headers  []Header
	Statuses []StatusRange  // 200 to 299
	Body     *regexp.Regexp // unanchored, RE2; nil: whatever
}

// StatusRange is from Low to High, both included.
type StatusRange struct{ Low, High int }

// TCPCheck is passed by an endpoint that takes a connection and Send, and in whose first 64 KiB Expect stands. Each may be "".
type TCPCheck struct{ Send, Expect string }

// GRPCCheck asks grpc.health.v1.Health for Service and is passed by SERVING. "" is the server as a whole.
type GRPCCheck struct{ Service string }

const (
	healthKeys     = "http path tcp grpc interval unhealthy_interval start_interval jitter timeout unhealthy healthy initial port tls at_once"
	minInterval    = 10 * time.Millisecond
	maxInterval    = time.Hour
	maxTCPBytes    = 4 << 10 // of what is sent, and of what is expected
	maxStatuses    = 32
	maxAtOnce      = 10_000
	maxThreshold   = 100
	healthHint     = "write health: /path, or one of http:, tcp: and grpc:"
	startInterval  = time.Second
	defaultTimeout = time.Second
)

func defaultHealth(pos Pos) *Health {
	return &Health{Pos: pos, Interval: 10 * time.Second, Jitter: 10, Healthy: 2, Unhealthy: 3, Initial: "healthy", TLS: "inherit", AtOnce: 100}
}

func defaultHTTPCheck() *HTTPCheck {
	return &HTTPCheck{Method: "GET", Statuses: []StatusRange{{200, 299}}}
}

// health reads a path, or a map.
func (d *decoder) health(key string, n ast.Node, u *Upstream) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	h := defaultHealth(d.at(n))
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		if !d.healthMap(key, n, h, u) {
			return
		}
	case *ast.StringNode:
		h.HTTP = defaultHTTPCheck()
		d.checkPath(key, n, &h.HTTP.Path)
	default:
		d.wrongType(key, n, "a path or a map")
		return
	}
	h.complete()
	u.Health = h
}

// complete gives what was not written and goes by something that was.
func (h *Health) complete() {
	if h.UnhealthyInterval == 0 {
		h.UnhealthyInterval = h.Interval
	}
	if h.StartInterval == 0 {
		h.StartInterval = min(startInterval, h.Interval)
	}
	if h.Timeout == 0 {
		h.Timeout = min(defaultTimeout, h.Interval, h.UnhealthyInterval)
	}
}

func (d *decoder) healthMap(key string, n ast.Node, h *Health, u *Upstream) bool {
	kind := ""
	var timeout ast.Node
	ok := d.mapping(key, n, healthKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "http", "path", "tcp", "grpc":
			if kind != "" {
				d.problem(k, "", "a check asks one question, and %q is another beside %q", key, kind)
				return true
			}
			kind = key
			d.question(key, v, h)
		case "interval":
			d.durationUpTo(key, v, minInterval, maxInterval, &h.Interval)
		case "unhealthy_interval":
			d.durationUpTo(key, v, minInterval, maxInterval, &h.UnhealthyInterval)
		case "start_interval":
			d.durationUpTo(key, v, minInterval, maxInterval, &h.StartInterval)
		case "timeout":
			timeout = v
			d.durationUpTo(key, v, time.Millisecond, maxInterval, &h.Timeout)
		case "jitter":
			d.jitter(key, v, &h.Jitter)
		case "unhealthy":
			d.integer(key, v, 1, maxThreshold, &h.Unhealthy)
		case "healthy":
			d.integer(key, v, 1, maxThreshold, &h.Healthy)
		case "initial":
			d.word(key, v, "healthy unhealthy", &h.Initial)
		case "port":
			d.integer(key, v, 1, 65535, &h.Port)
		case "tls":
			d.checkTLS(key, v, h)
		case "at_once":
			d.integer(key, v, 1, maxAtOnce, &h.AtOnce)
		default:
			return false
		}
		return true
	})
	if ok && kind == "" {
		d.problem(n, healthHint, "%q does not say what is asked", key)
	}
	if timeout != nil && h.Timeout > 0 {
		for _, other := range []struct {
			name  string
			every time.Duration
		}{{"interval", h.Interval}, {"unhealthy_interval", h.UnhealthyInterval}} {
			if other.every > 0 && h.Timeout > other.every {
				d.problem(timeout, "", "a %q of %s is longer than the %q of %s", "timeout", formatDuration(h.Timeout), other.name, formatDuration(other.every))
				break
			}
		}
	}
	return ok
}

// question reads what is asked.
func (d *decoder) question(key string, v ast.Node, h *Health) {
	switch key {
	case "path":
		h.HTTP = defaultHTTPCheck()
		d.checkPath(key, v, &h.HTTP.Path)
	case "http":
		h.HTTP = d.httpCheck(key, v)
	case "tcp":
		h.TCP = &TCPCheck{}
		d.mapping(key, v, "send expect", func(key string, _, v ast.Node) bool {
			switch key {
			case "send":
				d.wireBytes(key, v, &h.TCP.Send)
			case "expect":
				d.wireBytes(key, v, &h.TCP.Expect)
			default:
				return false
			}
			return true
		})
	case "grpc":
		h.GRPC = &GRPCCheck{}
		d.mapping(key, v, "service", func(key string, _, v ast.Node) bool {
			if key != "service" {
				return false
			}
			if d.text(key, v, &h.GRPC.Service) && (len(h.GRPC.Service) > maxNameRunes || !isGraphic(h.GRPC.Service)) {
				d.problem(v, "", "%q is no name of a service", clip(h.GRPC.Service))
			}
			return true
		})
	}
}

// httpCheck reads a path, or a map.
func (d *decoder) httpCheck(key string, n ast.Node) *HTTPCheck {
	c := defaultHTTPCheck()
	switch n = d.resolve(n); {
	case n == nil:
		return c
	case !isMap(n):
		d.checkPath(key, n, &c.Path)
		return c
	}
	var body, path ast.Node
	ok := d.mapping(key, n, "method path host headers statuses body", func(key string, _, v ast.Node) bool {
		switch key {
		case "method":
			d.checkMethod(key, v, &c.Method)
		case "path":
			path = v
			d.checkPath(key, v, &c.Path)
		case "host":
			d.upstreamHost(key, v, &c.Host)
		case "headers":
			var a Respond
			d.answerHeaders(key, v, &a, "")
			for i := range a.Headers {
				if h := &a.Headers[i]; credentialField(h.Name) {
					d.confidential(v, h.Name, &h.Value)
				}
			}
			c.Headers = a.Headers
		case "statuses":
			c.Statuses = nil
			d.list(key, v, func(v ast.Node) { d.statusRange(key, v, c) })
		case "body":
			body = v
			var text string
			if d.text(key, v, &text) {
				c.Body = d.pattern(v, text, 0)
			}
		default:
			return false
		}
		return true
	})
	if ok && path == nil {
		d.problem(n, "add path: /healthz", "%q has no %q", key, "path")
	}
	if body != nil && c.Method == "HEAD" {
		d.problem(body, "", "an answer to %q has no body", "HEAD")
	}
	return c
}

func (d *decoder) checkMethod(key string, n ast.Node, to *string) {
	var s string
	switch {
	case !d.text(key, n, &s):
	case !isToken(s) || s == "CONNECT" || s != strings.ToUpper(s):
		d.problem(n, "", "a check cannot be made by method %q", clip(s))
	default:
		*to = s
	}
}

func (d *decoder) checkPath(key string, n ast.Node, to *string) {
	var s string
	switch {
	case !d.text(key, n, &s):
	case !strings.HasPrefix(s, "/") || len(s) > maxPathBytes || !isGraphic(s) || strings.ContainsAny(s, `#"<>\^`+"`{|}"):
		d.problem(n, "write a path as /healthz, with %20 for a space", "%q is no path of a request", clip(s))
	default:
		*to = s
	}
}

// statusRange reads 200, 2xx or 200-399.
func (d *decoder) statusRange(key string, n ast.Node, c *HTTPCheck) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	low, high, isRange := strings.Cut(s, "-")
	if digit, wild := strings.CutSuffix(s, "xx"); wild && !isRange {
		low, high, isRange = digit+"00", digit+"99", true
	}
	if !isRange {
		high = low
	}
	r := StatusRange{}
	r.Low, _ = strconv.Atoi(low)
	r.High, _ = strconv.Atoi(high)
	switch {
	case len(low) != 3 || len(high) != 3 || !isDigits(low+high) || r.Low < 200 || r.High > 599 || r.Low > r.High:
		d.problem(n, "write a status as 200, 2xx or 200-399, from 200 to 599", "%q is no status of an answer", clip(s))
	case len(c.Statuses) == maxStatuses:
		d.problem(n, "", "%q has more than %d entries", key, maxStatuses)
	default:
		c.Statuses = append(c.Statuses, r)
	}
}

func (r StatusRange) text() string {
	switch {
	case r.Low == r.High:
		return strconv.Itoa(r.Low)
	case r.Low%100 == 0 && r.High == r.Low+99:
		return strconv.Itoa(r.Low/100) + "xx"
	}
	return fmt.Sprintf("%d-%d", r.Low, r.High)
}

func (d *decoder) jitter(key string, n ast.Node, to *int) {
	v := float64(*to)
	d.percent(key, n, 0, 50, &v)
	if v != float64(int(v)) {
		d.problem(n, "", "%q must be whole percent", key)
		return
	}
	*to = int(v)
}

// checkTLS reads true, false, inherit, or a map as that of the upstream's.
func (d *decoder) checkTLS(key string, n ast.Node, h *Health) {
	n = d.resolve(n)
	if s, is := n.(*ast.StringNode); n == nil || is && s.Value == "inherit" {
		return
	} else if is {
		d.problem(n, "", "%q must be true, false, inherit or a map, not %q", key, clip(s.Value))
		return
	}
	h.TLS, h.OwnTLS = "own", d.upstreamTLS(key, n)
	if _, word := n.(*ast.BoolNode); word && h.OwnTLS != nil {
		h.TLS = "on"
	} else if h.OwnTLS == nil {
		h.TLS = "off"
	}
}

// checkHealth finds what of a check is in vain, or cannot be.
func (l *loader) checkHealth(u *Upstream) {
	h := u.Health
	if h == nil {
		return
	}
	for i := range u.Endpoints {
		if e := &u.Endpoints[i]; h.Port != 0 && strings.HasPrefix(e.Address, "unix:") {
			l.problemAt(h.Pos, "", "the check's %q is of no use with endpoint %q", "port", clip(e.Address))
			return
		}
	}
}

func (w *dumper) health(h *Health) {
	switch {
	case h.HTTP != nil:
		w.block("http:", func() { w.httpCheck(h.HTTP) })
	case h.TCP != nil:
		var list []string
		if h.TCP.Send != "" {
			send := wireText(h.TCP.Send)
			if !w.clear && credentialText(send) {
				send = redacted
			}
			list = append(list, "send: "+quote(send))
		}
		if h.TCP.Expect != "" {
			list = append(list, "expect: "+quote(wireText(h.TCP.Expect)))
		}
		w.line("tcp: { %s }", strings.Join(list, ", "))
	case h.GRPC != nil:
		w.line("grpc: { service: %s }", quote(h.GRPC.Service))
	}
	w.line("interval: %s", formatDuration(h.Interval))
	w.line("unhealthy_interval: %s", formatDuration(h.UnhealthyInterval))
	w.line("start_interval: %s", formatDuration(h.StartInterval))
	w.line("jitter: %d%%", h.Jitter)
	w.line("timeout: %s", formatDuration(h.Timeout))
	w.line("unhealthy: %d", h.Unhealthy)
	w.line("healthy: %d", h.Healthy)
	w.line("initial: %s", h.Initial)
	if h.Port != 0 {
		w.line("port: %d", h.Port)
	}
	switch h.TLS {
	case "own":
		w.block("tls:", func() { w.upstreamTLS(h.OwnTLS) })
	case "inherit":
		w.line("tls: inherit")
	default:
		w.line("tls: %t", h.TLS == "on")
	}
	w.line("at_once: %d", h.AtOnce)
}

func (w *dumper) httpCheck(c *HTTPCheck) {
	w.line("method: %s", quote(c.Method))
	w.line("path: %s", w.url(c.Path))
	if c.Host != "" {
		w.line("host: %s", quote(c.Host))
	}
	w.headers(c.Headers)
	list := make([]string, len(c.Statuses))
	for i, r := range c.Statuses {
		list[i] = r.text()
	}
	w.line("statuses: %s", quoteList(list))
	if c.Body != nil {
		w.line("body: %s", quote(c.Body.String()))
	}
}
