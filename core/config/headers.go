package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Headers changes the fields of a route's requests and answers.
type Headers struct{ Request, Response HeaderChanges }

// HeaderChanges are made in this order. Values may hold variables, such as {client_ip}; {{ stands for a brace.
type HeaderChanges struct {
	Remove  []string
	Set     []Header // in the place of whatever has the name
	Add     []Header // beside it
	Default []Header // unless something has the name
}

// headerVariables are what values may refer to.
const headerVariables = "client_ip client_country peer_ip request_id host method path query scheme listener route server_name"

func (d *decoder) headers(key string, n ast.Node, p *Policy) {
	p.Headers = &Headers{}
	seen := false
	ok := d.mapping(key, n, "request response", func(key string, _, v ast.Node) bool {
		seen = true
		switch key {
		case "request":
			d.headerChanges(key, v, &p.Headers.Request)
		case "response":
			d.headerChanges(key, v, &p.Headers.Response)
		default:
			return false
		}
		return true
	})
	if ok && !seen {
		d.problem(n, "add request: or response:", "%q changes nothing", key)
	}
}

func (d *decoder) headerChanges(key string, n ast.Node, c *HeaderChanges) {
	d.mapping(key, n, "remove set add default", func(key string, _, v ast.Node) bool {
		switch key {
		case "remove":
			d.words(key, v, &c.Remove, func(v ast.Node, s string) bool { return d.fieldName(key, v, s) })
		case "set":
			d.headerLines(key, v, &c.Set)
		case "add":
			d.headerLines(key, v, &c.Add)
		case "default":
			d.headerLines(key, v, &c.Default)
		default:
			return false
		}
		return true
	})
}

// headerLines reads a map of names and values.
func (d *decoder) headerLines(key string, n ast.Node, to *[]Header) {
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		if !d.fieldName(key, k, name) {
			return true
		}
		h := Header{Name: name}
		if !d.secret(name, v, maxHeaderBytes, &h.Value) {
			return true
		}
		value := h.Value.Reveal()
		switch {
		case !credentialField(name):
		case strings.Contains(value, "{"):
			h.Value.private = true
		default:
			d.confidential(v, name, &h.Value)
		}
		switch {
		case hasControl(value) || strings.Trim(value, " \t") != value:
			d.problem(v, "", "the value of header %q holds control characters or outer spaces", name)
		case len(*to) == maxHeaders:
			d.problem(v, "", "%q has more than %d headers", key, maxHeaders)
		case d.headerVariables(v, value):
			*to = append(*to, h)
		}
		return true
	})
}

// headerVariables refuses what looks like a variable and is none.
func (d *decoder) headerVariables(n ast.Node, value string) bool {
	for rest := strings.ReplaceAll(value, "{{", ""); ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			return true
		}
		name, after, closed := strings.Cut(after, "}")
		known := false
		for v := range strings.FieldsSeq(headerVariables) {
			known = known || v == name
		}
		if !closed || !known {
			d.problem(n, fmt.Sprintf("one of %s, in braces; {{ stands for a brace", headerVariables), "%q is no variable", "{"+clip(name))
			return false
		}
		rest = after
	}
}
