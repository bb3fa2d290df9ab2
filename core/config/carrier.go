package config

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Carrier is where requests carry a credential: the first of the three that has one counts, and of its names any. Each has at most 8.
type Carrier struct {
	Headers   []string
	Scheme    string // before the credential in each of Headers, where Schemed; "": it stands alone
	Schemed   bool   // else a token has Bearer in Authorization, and everything else stands alone
	Cookies   []string
	Arguments []string // of the query
}

const maxCarrierNames = 8

// carrier reads one of the keys that say where a credential is: a name, or a list of them.
func (d *decoder) carrier(key string, n ast.Node, to *Carrier) bool {
	switch key {
	case "header":
		d.carrierNames(key, n, &to.Headers, strings.EqualFold, d.fieldName)
	case "scheme":
		if d.text(key, n, &to.Scheme) && (to.Scheme == "" || d.token(key, n, to.Scheme)) {
			to.Schemed = true
		}
	case "cookie":
		d.carrierNames(key, n, &to.Cookies, sameText, d.cookieName)
	case "query":
		d.carrierNames(key, n, &to.Arguments, sameText, d.argumentName)
	default:
		return false
	}
	return true
}

// carrierNames reads names that may stand there, each once.
func (d *decoder) carrierNames(key string, n ast.Node, to *[]string, same func(a, b string) bool, may func(key string, n ast.Node, s string) bool) {
	var seen []string
	d.list(key, n, func(v ast.Node) {
		var s string
		switch {
		case !d.text(key, v, &s) || !may(key, v, s):
		case slices.ContainsFunc(seen, func(known string) bool { return same(known, s) }):
			d.problem(v, "", "%q has %q twice", key, clip(s))
		case len(seen) == maxCarrierNames:
			d.problem(v, "", "%q has more than %d names", key, maxCarrierNames)
		default:
			seen = append(seen, s)
		}
	})
	*to = seen
}

func sameText(a, b string) bool { return a == b }

func (d *decoder) cookieName(key string, n ast.Node, s string) bool {
	if !d.argumentName(key, n, s) {
		return false
	}
	if strings.ContainsAny(s, "=;, \t\"") {
		d.problem(n, "", "no cookie has the name %q", clip(s))
		return false
	}
	return true
}

func (d *decoder) argumentName(key string, n ast.Node, s string) bool {
	if s == "" || len(s) > maxNameRunes || hasControl(s) {
		d.problem(n, "", "%q must have from 1 to %d bytes", key, maxNameRunes)
		return false
	}
	return true
}

// settle puts the credential into a header where nothing says where it is, or only what is before it there.
func (c *Carrier) settle(header string) {
	if len(c.Headers)+len(c.Cookies)+len(c.Arguments) == 0 || c.Schemed && len(c.Headers) == 0 {
		c.Headers = []string{header}
	}
}

// text writes what carrier reads, each with a comma.
func (c *Carrier) text() string {
	var b strings.Builder
	for _, at := range []struct {
		key   string
		names []string
	}{{"header", c.Headers}, {"cookie", c.Cookies}, {"query", c.Arguments}} {
		if len(at.names) > 0 {
			b.WriteString(at.key + ": " + quoteList(at.names) + ", ")
		}
	}
	if c.Schemed {
		b.WriteString("scheme: " + quote(c.Scheme) + ", ")
	}
	return b.String()
}
