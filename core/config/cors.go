package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// CORS says which pages of other origins may use a route. A preflight request has the method OPTIONS, which the route's matches
// must take.
type CORS struct {
	Origins     []string // such as https://shop.example, https://*.shop.example or *; at least one
	Methods     []string // of requests, besides GET, HEAD and POST
	Headers     []string // of requests; * for all that are asked for
	Expose      []string // of answers
	Credentials bool     // false; not beside the origin *
	MaxAge      time.Duration
}

const (
	corsKeys      = "origins methods headers expose credentials max_age"
	maxCORSList   = 1000
	maxCORSMaxAge = 24 * time.Hour
)

func (d *decoder) cors(key string, n ast.Node, p *Policy) {
	c := &CORS{MaxAge: 10 * time.Minute}
	p.CORS = c
	var credentials ast.Node
	ok := d.mapping(key, n, corsKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "origins":
			d.words(key, v, &c.Origins, d.origin)
		case "methods":
			d.words(key, v, &c.Methods, d.corsMethod)
		case "headers":
			d.words(key, v, &c.Headers, func(v ast.Node, s string) bool { return s == "*" || d.corsField(v, s) })
		case "expose":
			d.words(key, v, &c.Expose, d.corsField)
		case "credentials":
			credentials = v
			d.boolean(key, v, &c.Credentials)
		case "max_age":
			d.durationUpTo(key, v, 0, maxCORSMaxAge, &c.MaxAge)
		default:
			return false
		}
		return true
	})
	if ok && len(c.Origins) == 0 {
		d.problem(n, `add origins: ["https://shop.example"]`, "%q allows nobody", key)
	}
	for _, o := range c.Origins {
		if o == "*" && c.Credentials {
			d.problem(credentials, "name the origins", "every page of the world could act as whoever is logged in: %q cannot stand beside origin %q", "credentials", "*")
		}
	}
}

// words reads a list of words, each of which must pass check.
func (d *decoder) words(key string, n ast.Node, to *[]string, check func(v ast.Node, s string) bool) {
	d.list(key, n, func(v ast.Node) {
		var s string
		if !d.text(key, v, &s) || !check(v, s) {
			return
		}
		if len(*to) == maxCORSList {
			d.problem(v, "", "%q has more than %d entries", key, maxCORSList)
			return
		}
		*to = append(*to, s)
	})
}

// origin checks an origin as browsers write it (RFC 6454, 6.2).
func (d *decoder) origin(v ast.Node, s string) bool {
	if s == "*" {
		return true
	}
	scheme, rest, ok := strings.Cut(s, "://")
	host, port, hasPort := cutPort(rest)
	_, portOK := parsePort(port, 1)
	host = strings.TrimPrefix(host, "*.")
	defaultPort := scheme == "http" && port == "80" || scheme == "https" && port == "443"
	if !ok || scheme != "http" && scheme != "https" || hostProblem(host) != "" || hasPort && (!portOK || defaultPort) || s != strings.ToLower(s) {
		d.problem(v, `such as "https://shop.example", "https://*.shop.example" or "*"; in lower case, a port only if it is not the scheme's`,
			"%q is no origin", clip(s))
		return false
	}
	return true
}

func (d *decoder) corsMethod(v ast.Node, s string) bool {
	if !isToken(s) || s != strings.ToUpper(s) {
		d.problem(v, "", "%q is no method", clip(s))
		return false
	}
	return true
}

func (d *decoder) corsField(v ast.Node, s string) bool {
	if !isToken(s) {
		d.problem(v, "", "%q is no field name", clip(s))
		return false
	}
	return true
}

// checkCORS refuses a route that never sees a preflight request.
func (l *loader) checkCORS(r *Route, at Pos) {
	for i := range r.Matches {
		m := &r.Matches[i]
		sees := len(m.Methods) == 0
		for _, method := range m.Methods {
			sees = sees || method == "OPTIONS"
		}
		if !sees {
			l.problemAt(at, "add OPTIONS to the methods of the match", "%q needs requests of the method OPTIONS, which the match at %s does not take", "cors", m.Pos)
		}
	}
}
