package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	maxRespondBytes = 1 << 20
	maxHeaderBytes  = 8 << 10
	maxHeaders      = 100
)

// action reads one of the keys that say what a route does, of which a route has exactly one.
func (d *decoder) action(key string, k, v ast.Node, r *Route, parts *routeParts) bool {
	switch key {
	case "to":
		d.targets(key, v, r)
	case "passthrough":
		r.Passthrough = true
		d.targets(key, v, r)
	case "respond":
		if _, word := d.resolve(v).(*ast.StringNode); word {
			d.publish(key, v, r)
		} else {
			d.respond(key, v, r)
		}
	case "redirect":
		d.redirect(key, v, r, parts)
	default:
		return false
	}
	parts.actions = append(parts.actions, written{key, d.at(k)})
	return true
}

// targets reads an upstream's name, a map of names to weights, or a map that says more of one upstream, or a list of such.
func (d *decoder) targets(key string, n ast.Node, r *Route) {
	n = d.resolve(n)
	refused := false
	one := func(v ast.Node) {
		t, ok := d.target(key, v, "")
		if refused = refused || !ok; ok {
			d.addTarget(v, t, r)
		}
	}
	switch list := n.(type) {
	case nil:
		return
	case *ast.MappingNode, *ast.MappingValueNode:
		if d.isTarget(n) {
			one(n)
		} else {
			d.weights(key, n, r)
		}
	case *ast.SequenceNode:
		refused = len(list.Values) == 0
		d.list(key, n, one)
	default:
		var name string
		if d.text(key, n, &name) {
			if i, known := d.upstreams[name]; known {
				name = d.cfg.Upstreams[i].Name // one text for all routes to it
			}
			r.To = []Target{{Upstream: name, Weight: 1, Pos: d.at(n)}}
		}
		return
	}
	sum := 0
	for i := range r.To {
		sum += r.To[i].Weight
	}
	if sum == 0 && !refused {
		d.problem(n, "", "%q gives no upstream a weight above 0", key)
	}
}

// weights reads a map of names to weights, or to more than that.
func (d *decoder) weights(key string, n ast.Node, r *Route) {
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		t := Target{Upstream: name, Weight: 1}
		switch v := d.resolve(v).(type) {
		case nil:
		case *ast.MappingNode, *ast.MappingValueNode:
			t, _ = d.target(name, v, name)
		default:
			d.integer(name, v, 0, 1000, &t.Weight)
		}
		t.Pos = d.at(k)
		d.addTarget(k, t, r)
		return true
	})
}

// publish reads what a route answers with that the gateway has: the keys by which its tokens are verified.
func (d *decoder) publish(key string, n ast.Node, r *Route) {
	word := ""
	if d.word(key, n, "jwks", &word); word != "" {
		d.published = append(d.published, d.at(n))
	}
	r.Respond = &Respond{Status: 200, Keys: true}
}

func (d *decoder) respond(key string, n ast.Node, r *Route) {
	a := &Respond{Status: 200}
	d.mapping(key, n, "status body headers", func(key string, _, v ast.Node) bool {
		switch key {
		case "status":
			d.integer(key, v, 200, 599, &a.Status)
		case "body":
			d.secret(key, v, maxRespondBytes, &a.Body)
		case "headers":
			d.answerHeaders(key, v, a, "date")
		default:
			return false
		}
		return true
	})
	if (a.Status == 204 || a.Status == 205 || a.Status == 304) && a.Body.Reveal() != "" {
		d.problem(n, "", "a response with status %d has no body", a.Status)
	}
	r.Respond = a
}

// answerHeaders reads the headers of an answer that is made here. Names in own, separated by spaces, are the gateway's.
func (d *decoder) answerHeaders(key string, n ast.Node, a *Respond, own string) {
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		if slices.Contains(strings.Fields(own), strings.ToLower(name)) {
			d.problem(k, "", "the gateway writes header %q by itself", name)
		} else if d.fieldName(key, k, name) {
			d.list(name, v, func(v ast.Node) { d.header(name, v, a) })
		}
		return true
	})
}

func (d *decoder) header(name string, n ast.Node, a *Respond) {
	h := Header{Name: name}
	if !d.secret(name, n, maxHeaderBytes, &h.Value) {
		return
	}
	value := h.Value.Reveal()
	switch {
	case hasControl(value) || strings.Trim(value, " \t") != value:
		d.problem(n, "", "the value of header %q holds control characters or outer spaces", name)
	case len(a.Headers) == maxHeaders:
		d.problem(n, "", "a response has at most %d headers", maxHeaders)
	default:
		a.Headers = append(a.Headers, h)
	}
}

// secret reads a string, or follows a reference: env:NAME, file:/path, cred:NAME or vault:MOUNT/PATH#KEY.
func (d *decoder) secret(key string, n ast.Node, maxBytes int, to *Secret) bool {
	var s string
	n = d.resolve(n)
	if n == nil || !d.text(key, n, &s) {
		return false
	}
	v := Literal(s)
	if isReference(s) {
		value, ok := d.follow(n, s)
		if !ok {
			return false
		}
		v = Referenced(value)
	}
	if len(v.Reveal()) > maxBytes {
		d.problem(n, "", "%q is longer than %s", key, formatSize(int64(maxBytes)))
		return false
	}
	*to = v
	return true
}

// redirect reads where to, or a map.
func (d *decoder) redirect(key string, n ast.Node, r *Route, parts *routeParts) {
	a := &Redirect{Status: 302}
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		if d.text(key, n, &a.To) {
			parts.redirect = n
			r.Redirect = a
		}
		return
	}
	hasTo := false
	ok := d.mapping(key, n, "to status", func(key string, _, v ast.Node) bool {
		switch key {
		case "to":
			hasTo = true
			if v = d.resolve(v); v != nil && d.text(key, v, &a.To) {
				parts.redirect = v
			}
		case "status":
			d.integer(key, v, 301, 308, &a.Status)
			if a.Status > 303 && a.Status < 307 {
				d.problem(v, "", "%q must be 301, 302, 303, 307 or 308", key)
			}
		default:
			return false
		}
		return true
	})
	if ok && !hasTo {
		d.problem(n, "", "%q has no %q", key, "to")
	}
	r.Redirect = a
}

// redirectTemplate checks a Location: an absolute path or URL, in which every {name} is known.
func (d *decoder) redirectTemplate(n ast.Node, r *Route) {
	to := r.Redirect.To
	absolute := strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") || strings.HasPrefix(to, "https://") || strings.HasPrefix(to, "http://") ||
		strings.HasPrefix(to, "{scheme}://") || strings.HasPrefix(to, "{path}")
	if !absolute || len(to) > maxPathBytes {
		d.problem(n, `write "https://{host}{path}"`, "%q is neither a path nor a URL", clip(to))
		return
	}
	names := map[string]int{}
	for i := range r.Matches {
		countParameters(r.Matches[i].Path, names)
	}
	for at := 0; at < len(to); at++ {
		pos := func() Pos { return d.src.inside(d.at(n), to, at) }
		switch c := to[at]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`|}", c) >= 0:
			d.problemAt(pos(), "write this character percent-encoded", "a Location cannot hold %q", []rune(to[at:])[0])
			return
		case c == '{':
			end := strings.IndexByte(to[at:], '}')
			if end < 0 {
				d.problemAt(pos(), "", "{ has no }")
				return
			}
			name := to[at+1 : at+end]
			if known := name == "scheme" || name == "host" || name == "path" || name == "query"; !known && names[name] < max(1, len(r.Matches)) {
				hint := d.nearest(name, "scheme host path query "+strings.Join(slices.Sorted(maps.Keys(names)), " "))
				d.problemAt(pos(), hint, "{%s} is not a parameter of every match of this route", clip(name))
				return
			}
			at += end
		}
	}
}

// countParameters adds one for each {name} segment of the path.
func countParameters(p Path, names map[string]int) {
	if p.Kind != PathExact && p.Kind != PathPrefix || !strings.Contains(p.Value, "{") {
		return
	}
	for segment := range strings.SplitSeq(p.Value, "/") {
		if name, ok := parameter(segment); ok {
			names[name]++
		}
	}
}

// change reads one of the keys that change the request for the upstream.
func (d *decoder) change(key string, k, v ast.Node, r *Route, parts *routeParts) bool {
	at := written{key, d.at(k)}
	switch key {
	case "strip_prefix":
		parts.paths = append(parts.paths, at)
		d.prefix(key, v, &r.StripPrefix)
	case "replace_prefix":
		parts.paths = append(parts.paths, at)
		d.replacePrefix(key, v, r)
	case "rewrite":
		parts.paths = append(parts.paths, at)
		d.rewrite(key, v, r)
	case "host":
		parts.host = at
		d.upstreamHost(key, v, &r.Host)
	default:
		return false
	}
	return true
}

// prefix reads a literal path that whole segments are compared with.
func (d *decoder) prefix(key string, n ast.Node, to *string) bool {
	var s string
	if !d.text(key, n, &s) {
		return false
	}
	if strings.HasPrefix(s, "/") && strings.HasSuffix(s, "/") {
		hint := ""
		if trimmed := strings.TrimRight(s, "/"); trimmed != "" {
			hint = fmt.Sprintf("write %q", clip(trimmed))
		}
		d.problem(n, hint, "%q is a path that does not end in a slash", key)
		return false
	}
	if strings.ContainsAny(s, "{}") {
		d.problem(n, "", "%q is a path without parameters", key)
		return false
	}
	if wrong, hint, offset := pathProblem(s, PathExact); wrong != "" {
		d.problemAt(d.src.inside(d.at(n), s, offset), hint, "%s", wrong)
		return false
	}
	*to = s
	return true
}

func (d *decoder) replacePrefix(key string, n ast.Node, r *Route) {
	a := &ReplacePrefix{}
	hasPrefix, hasWith := false, false
	ok := d.mapping(key, n, "prefix with", func(key string, _, v ast.Node) bool {
		switch key {
		case "prefix":
			hasPrefix = true
			d.prefix(key, v, &a.Prefix)
		case "with":
			hasWith = true
			var s string
			if d.text(key, v, &s) && s != "" && s != "/" {
				d.prefix(key, v, &a.With)
			}
		default:
			return false
		}
		return true
	})
	if ok && (!hasPrefix || !hasWith) {
		d.problem(n, "", "%q needs both %q and %q", key, "prefix", "with")
	}
	r.ReplacePrefix = a
}

func (d *decoder) rewrite(key string, n ast.Node, r *Route) {
	a := &Rewrite{}
	var to ast.Node
	hasPattern := false
	ok := d.mapping(key, n, "pattern to", func(key string, _, v ast.Node) bool {
		switch key {
		case "pattern":
			hasPattern = true
			var s string
			if d.text(key, v, &s) {
				a.Pattern = d.pattern(d.resolve(v), s, 0)
			}
		case "to":
			to = v
			d.text(key, v, &a.To)
		default:
			return false
		}
		return true
	})
	if ok && (to == nil || !hasPattern) {
		d.problem(n, "", "%q needs both %q and %q", key, "pattern", "to")
	}
	if a.Pattern != nil && to != nil {
		d.rewriteTemplate(d.resolve(to), a)
	}
	r.Rewrite = a
}

// rewriteTemplate refuses a reference to a group that the pattern does not have: regexp would put nothing in its place.
func (d *decoder) rewriteTemplate(n ast.Node, a *Rewrite) {
	if n == nil {
		return
	}
	if len(a.To) > maxPathBytes || strings.Trim(a.To, " ") != a.To || hasControl(a.To) {
		d.problem(n, "", "%q cannot become a path", clip(a.To))
		return
	}
	rest, at := a.To, 0
	for {
		i := strings.IndexByte(rest, '$')
		if i < 0 {
			return
		}
		at += i
		rest = rest[i+1:]
		if strings.HasPrefix(rest, "$") {
			rest, at = rest[1:], at+2
			continue
		}
		name, braced := strings.CutPrefix(rest, "{")
		end := 0
		for end < len(name) && isWordByte(name[end]) {
			end++
		}
		closed := !braced || strings.HasPrefix(name[end:], "}")
		name = name[:end]
		if !closed || !braced && !isDigits(name) || !hasGroup(a.Pattern, name) {
			d.problemAt(d.src.inside(d.at(n), a.To, at), "write ${name}, $1, ${1}x, or $$ for a dollar sign",
				"the pattern has no group %q", clip(name))
			return
		}
		at++
	}
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func hasGroup(re *regexp.Regexp, name string) bool {
	if isDigits(name) && len(name) < 6 {
		n := 0
		for _, c := range name {
			n = n*10 + int(c-'0')
		}
		return n <= re.NumSubexp()
	}
	return name != "" && re.SubexpIndex(name) >= 0
}

func (d *decoder) upstreamHost(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	host := strings.ToLower(s)
	name, port, hasPort := cutPort(host)
	if _, ok := parsePort(port, 1); hasPort && !ok {
		d.problem(n, "a port is a number from 1 to 65535", "%q is no host", clip(s))
		return
	}
	if hint := hostProblem(name); hint != "" {
		d.problem(n, hint, "%q is no host", clip(s))
		return
	}
	*to = host
}
