package config

import (
	"fmt"
	"maps"
	"slices"
)

// passes checks a route whose clients' TLS is not ended here: of them only the server name is known.
func (d *decoder) passes(r *Route, parts *routeParts) {
	for _, w := range parts.requests {
		d.problemAt(w.pos, "", "%q has no meaning beside %q: there are no requests", w.key, "passthrough")
	}
	for i := range r.Matches {
		m := &r.Matches[i]
		if what := m.needsRequest(); what != "" {
			d.problemAt(m.Pos, `write "db.example.com", "*.example.com" or "*"`,
				"this match has a %s, and of TLS that is passed through only the server name is known", what)
		}
	}
}

// needsRequest names a condition that only a request can meet; "": there is none.
func (m *Match) needsRequest() string {
	further := m.further()
	switch {
	case len(m.Methods) > 0:
		return "method"
	case m.Path.Kind != PathAny:
		return "path"
	case len(further.Headers) > 0:
		return "header"
	case len(further.Query) > 0:
		return "query argument"
	case len(further.Cookies) > 0:
		return "cookie"
	case len(further.ContentTypes) > 0:
		return "content type"
	case len(further.Clients) > 0:
		return "client"
	}
	return ""
}

// Passes says whether connections of the listener meet m: it names the listener, or none.
func (m *Match) Passes(l *Listener) bool {
	if l.TLS == nil {
		return false
	}
	for _, name := range m.Listeners() {
		if name == l.Name {
			return true
		}
	}
	return len(m.Listeners()) == 0
}

// passesOnly says whether the listener ends no TLS, and so has no requests.
func (l *Listener) passesOnly() bool { return l.TLS != nil && l.TLS.Passthrough }

// checkPassthrough finds what is passed through nowhere, to two places, or to where it cannot go; and requests that are expected
// from listeners that have none.
func (l *loader) checkPassthrough(partial bool) {
	passing := make([]bool, len(l.cfg.Listeners))
	first := map[string]Pos{} // by listener and name
	policies := l.policyNames()
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		if !r.Passthrough {
			l.checkRequests(r)
			continue
		}
		for j := range r.Matches {
			l.checkPassed(&r.Matches[j], passing, first)
			for k := range l.cfg.Listeners {
				ln := &l.cfg.Listeners[k]
				if at, ok := policies[ln.Name+"\x00"+r.Matches[j].Host.String()]; ok && r.Matches[j].Passes(ln) {
					l.problemAt(at, "drop it", "this policy names %q, whose TLS is passed through by route %q", r.Matches[j].Host, clip(r.Name))
				}
			}
		}
		l.checkPassedStandIns(r)
		for _, t := range r.To {
			u, ok := l.upstreams[t.Upstream]
			switch {
			case !ok:
			case l.cfg.Upstreams[u].TLS != nil:
				l.problemAt(t.Pos, "drop tls from the upstream, or give it another name without",
					"upstream %q is spoken to in TLS, and what is passed through is encrypted already", t.Upstream)
			case l.cfg.Upstreams[u].Protocol != "h1":
				l.problemAt(t.Pos, "drop protocol from the upstream",
					"upstream %q is spoken to in HTTP/2, and nobody here speaks in what is passed through", t.Upstream)
			}
		}
	}
	for i := range l.cfg.Listeners {
		if ln := &l.cfg.Listeners[i]; ln.passesOnly() && !passing[i] && !partial {
			l.problemAt(ln.TLS.Pos, "add a route: { match: db.example.com, passthrough: UPSTREAM }",
				"listener %q passes TLS through, and no route says where to", ln.Name)
		}
	}
}

// checkPassedStandIns finds upstreams that stand in, while a breaker is open, for those of a route whose TLS is passed through, and cannot.
func (l *loader) checkPassedStandIns(r *Route) {
	own := map[int]bool{}
	for _, t := range r.To {
		if i, ok := l.upstreams[t.Upstream]; ok {
			own[i] = true
		}
	}
	for _, i := range slices.Sorted(maps.Keys(l.answering(r))) {
		if u := &l.cfg.Upstreams[i]; !own[i] && (u.TLS != nil || u.Protocol != "h1") {
			l.problemAt(r.To[0].Pos, "give the breaker another fallback",
				"upstream %q, which stands in here while a breaker is open, is not spoken to in plain HTTP/1.1, and what is passed through is encrypted already", u.Name)
		}
	}
}

// policyNames are where the policies stand that name a server name, by listener and name.
func (l *loader) policyNames() map[string]Pos {
	names := map[string]Pos{}
	for i := range l.cfg.Listeners {
		ln := &l.cfg.Listeners[i]
		if ln.TLS == nil {
			continue
		}
		for j := range ln.TLS.Policies {
			p := &ln.TLS.Policies[j]
			for _, h := range p.Names {
				names[ln.Name+"\x00"+h.String()] = p.Pos
			}
		}
	}
	return names
}

// checkPassed looks at one match of what is passed through.
func (l *loader) checkPassed(m *Match, passing []bool, first map[string]Pos) {
	for _, name := range m.Listeners() {
		if i, ok := l.listeners[name]; ok && l.cfg.Listeners[i].TLS == nil {
			l.problemAt(m.Pos, fmt.Sprintf("add tls: passthrough to listener %q", name), "listener %q has no %q to pass through", name, "tls")
		}
	}
	found := len(m.Listeners()) > 0
	for i := range l.cfg.Listeners {
		ln := &l.cfg.Listeners[i]
		if !m.Passes(ln) {
			continue
		}
		found, passing[i] = true, true
		if m.Host.Name == "" && !ln.passesOnly() {
			l.problemAt(m.Pos, "name the listener that ends none: { host: \"*\", listener: NAME }",
				"every server name of listener %q is passed through, which leaves nothing to its certificates", ln.Name)
			return
		}
		key := ln.Name + "\x00" + m.Host.String()
		if at, twice := first[key]; twice {
			l.problemAt(m.Pos, "", "server name %q of listener %q is passed through already; first at %s", m.Host, ln.Name, at)
			return
		}
		first[key] = m.Pos
	}
	if !found {
		l.problemAt(m.Pos, "add tls: passthrough to a listener", "no listener has %q to pass through", "tls")
	}
}

// checkRequests refuses matches of requests from a listener that has none.
func (l *loader) checkRequests(r *Route) {
	for j := range r.Matches {
		for _, name := range r.Matches[j].Listeners() {
			if i, ok := l.listeners[name]; ok && l.cfg.Listeners[i].passesOnly() {
				l.problemAt(r.Matches[j].Pos, "write passthrough: UPSTREAM", "listener %q passes TLS through, and so has no requests", name)
			}
		}
	}
}
