package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	matchKeys       = "listener method methods host path header headers query cookie cookies content_type client"
	maxMethods      = 32
	maxConditions   = 64 // of one kind in one match
	maxPathBytes    = 4096
	maxPathSegments = 64
	maxPathParams   = 16
)

// match reads one match: the short form "[METHOD ]host/path", or a map.
func (d *decoder) match(n ast.Node) (m Match, ok bool) {
	n = d.resolve(n)
	if n == nil {
		return m, false
	}
	m.Pos = d.at(n)
	before := d.errors
	if isMap(n) {
		d.matchMap(n, &m)
		m.Text = m.short()
	} else {
		if _, ok := n.(*ast.StringNode); !ok {
			d.wrongType("match", n, "a string or a map")
			return m, false
		}
		d.text("match", n, &m.Text)
		d.matchShort(n, &m)
	}
	return m, d.errors == before
}

func (d *decoder) matchShort(n ast.Node, m *Match) {
	s, at := m.Text, 0
	if word, rest, found := strings.Cut(s, " "); found && isMethods(word) {
		m.Methods = d.methodList(n, s, word)
		at = len(s) - len(strings.TrimLeft(rest, " "))
	}
	if at == len(s) {
		d.problem(n, `write "example.com/*", or "*" for every request`, "a match needs a host or a path")
		return
	}
	end := at + strings.IndexAny(s[at:], "/~")
	if end < at {
		end = len(s)
	}
	if end > at {
		d.host(n, s, at, end, &m.Host)
	}
	if end < len(s) {
		d.path(n, s, end, &m.Path)
	}
}

func (d *decoder) matchMap(n ast.Node, m *Match) {
	given := map[string]bool{}
	var further Conditions
	d.mapping("match", n, matchKeys, func(key string, k, v ast.Node) bool {
		singular := strings.TrimSuffix(key, "s")
		if given[singular] {
			d.problem(k, "", "%q and %q are the same; give one of them", singular, singular+"s")
			return true
		}
		given[singular] = singular == "method" || singular == "header" || singular == "cookie"
		var s string
		switch key {
		case "listener":
			d.list(key, v, func(v ast.Node) {
				if d.text(key, v, &s) {
					further.Listeners = append(further.Listeners, s)
					d.matched = append(d.matched, reference{name: s, pos: d.at(v)})
				}
			})
		case "method", "methods":
			d.list(key, v, func(v ast.Node) {
				if d.text(key, v, &s) {
					m.Methods = append(m.Methods, d.methodList(v, s, s)...)
				}
			})
		case "host":
			if d.text(key, v, &s) {
				d.host(v, s, 0, len(s), &m.Host)
			}
		case "path":
			if d.text(key, v, &s) {
				d.path(v, s, 0, &m.Path)
			}
		case "header", "headers":
			further.Headers = d.conditions(key, v)
		case "query":
			further.Query = d.conditions(key, v)
		case "cookie", "cookies":
			further.Cookies = d.conditions(key, v)
		case "content_type":
			d.list(key, v, func(v ast.Node) { d.mediaType(key, v, &further) })
		case "client":
			d.prefixes(key, v, &further.Clients)
		default:
			return false
		}
		return true
	})
	if further.count() > 0 {
		m.Further = &further
	}
}

// isMethods tells whether a word can be the METHOD of a short form: GET, or GET,HEAD.
func isMethods(word string) bool {
	for i := range len(word) {
		if c := word[i]; (c < 'A' || c > 'Z') && (i == 0 || strings.IndexByte(",-_0123456789", c) < 0) {
			return false
		}
	}
	return word != ""
}

// methodList reads methods separated by commas, which start the scalar n of the value whole.
func (d *decoder) methodList(n ast.Node, whole, list string) []string {
	var methods []string
	at := 0
	for method := range strings.SplitSeq(list, ",") {
		pos := d.src.inside(d.at(n), whole, at)
		at += len(method) + 1
		switch {
		case !isMethods(method):
			hint := ""
			if upper := strings.ToUpper(method); isMethods(upper) {
				hint = fmt.Sprintf("write %q", upper)
			}
			d.problemAt(pos, hint, "%q is no method", clip(method))
		case len(methods) == maxMethods:
			d.problemAt(pos, "", "a match has at most %d methods", maxMethods)
		default:
			methods = append(methods, method)
		}
	}
	return methods
}

// host reads whole[at:end], a part of the scalar n.
func (d *decoder) host(n ast.Node, whole string, at, end int, to *Host) {
	written := whole[at:end]
	if written == "*" {
		return
	}
	name, wildcard := strings.CutPrefix(strings.ToLower(written), "*.")
	if hint := hostProblem(name); hint != "" {
		if word, _, found := strings.Cut(written, " "); found && isMethods(strings.ToUpper(word)) {
			hint = fmt.Sprintf("write %q", strings.ToUpper(word))
		}
		d.problemAt(d.src.inside(d.at(n), whole, at), hint, "%q is no host", clip(written))
		return
	}
	*to = Host{Name: name, Wildcard: wildcard}
}

// path reads whole[at:], the end of the scalar n: /x, /x/*, /x/{id} or ~REGEX.
func (d *decoder) path(n ast.Node, whole string, at int, to *Path) {
	written := whole[at:]
	if strings.HasPrefix(written, "~") {
		if re := d.pattern(n, whole, at+1); re != nil {
			*to = Path{Kind: PathRegex, Value: written[1:], Regex: re}
		}
		return
	}
	p := Path{Kind: PathExact, Value: written}
	if prefix, ok := strings.CutSuffix(written, "/*"); ok {
		p = Path{Kind: PathPrefix, Value: prefix}
	}
	if wrong, hint, offset := pathProblem(p.Value, p.Kind); wrong != "" {
		d.problemAt(d.src.inside(d.at(n), whole, at+offset), hint, "%s", wrong)
		return
	}
	*to = p
}

// pathProblem says what is wrong with a path and where. A path that no normalised request path can equal is wrong.
func pathProblem(path string, kind PathKind) (wrong, hint string, offset int) {
	if path == "" && kind == PathPrefix {
		return "", "", 0
	}
	if path == "" || path[0] != '/' {
		return "a path starts with /", `write "/path", "/path/*" or "~REGEX"`, 0
	}
	if len(path) > maxPathBytes {
		return fmt.Sprintf("a path has at most %d bytes", maxPathBytes), "", 0
	}
	names := map[string]bool{}
	if !strings.Contains(path, "{") {
		names = nil
	}
	count := 0
	for at := 1; at <= len(path); count++ {
		end := at + strings.IndexByte(path[at:], '/')
		if end < at {
			end = len(path)
		}
		segment := path[at:end]
		if count == maxPathSegments {
			return fmt.Sprintf("a path has at most %d segments", maxPathSegments), "", at
		}
		if segment == "." || segment == ".." {
			return "a path is matched after . and .. are resolved, so this cannot match", "", at
		}
		if name, ok := parameter(segment); ok {
			if names[name] {
				return fmt.Sprintf("parameter {%s} is given twice", name), "", at
			}
			if len(names) == maxPathParams {
				return fmt.Sprintf("a path has at most %d parameters", maxPathParams), "", at
			}
			names[name] = true
		} else if wrong, hint, i := segmentProblem(segment); wrong != "" {
			return wrong, hint, at + i
		}
		at = end + 1
	}
	return "", "", 0
}

func segmentProblem(segment string) (wrong, hint string, offset int) {
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		switch {
		case c == '{' || c == '}':
			return "a parameter takes a whole segment", "write /{name}/, with letters, digits and _ in the name", i
		case c == '*':
			return "* stands only at the end of a path, after a slash", "write /{name}/ for one segment", i
		case c == '\\':
			return "a path holds no backslash", "", i
		case c == '?' || c == '#':
			return fmt.Sprintf("a path holds no %q", c), "use query: for conditions on the query", i
		case c <= ' ' || c >= 0x7f:
			return "a path is matched as it is sent", "write this character percent-encoded", i
		case c == '%':
			if i+2 >= len(segment) || !isHex(segment[i+1]) || !isHex(segment[i+2]) {
				return "% is followed by two hexadecimal digits", "a percent sign itself is %25", i
			}
			if segment[i+1:i+3] == "00" {
				return "a path holds no NUL", "", i
			}
		}
	}
	if hidesDots(segment) {
		return "a path that hides . or .. is refused, so this cannot match", "", 0
	}
	return "", "", 0
}

// hidesDots tells whether a part of the segment is . or .. for somebody who decodes it before he splits it, or who cuts off its
// parameters: no request with such a path reaches a route. Its triplets must be valid.
func hidesDots(segment string) bool {
	decoded, err := url.PathUnescape(segment)
	if err != nil {
		return false
	}
	for _, part := range strings.FieldsFunc(decoded, func(c rune) bool { return c == '/' || c == '\\' }) {
		if name, _, _ := strings.Cut(part, ";"); name == "." || name == ".." {
			return true
		}
	}
	return false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// parameter returns the name of a {name} segment.
func parameter(segment string) (string, bool) {
	if len(segment) < 3 || segment[0] != '{' || segment[len(segment)-1] != '}' {
		return "", false
	}
	name := segment[1 : len(segment)-1]
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return "", false
		}
	}
	return name, true
}

// conditions reads a map of names to "value", "~REGEX", true (present) or false (absent).
func (d *decoder) conditions(key string, n ast.Node) []FieldMatch {
	var list []FieldMatch
	isHeader := key == "header" || key == "headers"
	seen := map[string]bool{}
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		f := FieldMatch{Name: name}
		switch {
		case isHeader:
			f.Name = strings.ToLower(name)
			if !d.token(key, k, name) {
				return true
			}
			if f.Name == "host" {
				d.problem(k, "", "the host has its own condition, %q", "host")
			}
			if seen[f.Name] {
				d.problem(k, "", "header %q is given twice", f.Name)
			}
			seen[f.Name] = true
		case key != "query":
			if !d.token(key, k, name) {
				return true
			}
		case name == "" || len(name) > 256 || hasControl(name):
			d.problem(k, "", "%q cannot be the name of a query argument", clip(name))
		}
		switch x := d.resolve(v).(type) {
		case *ast.BoolNode:
			f.Op = FieldAbsent
			if x.Value {
				f.Op = FieldPresent
			}
		default:
			if !d.text(name, v, &f.Value) {
				return true
			}
			if strings.HasPrefix(f.Value, "~") {
				f.Op, f.Regex = FieldRegex, d.pattern(v, f.Value, 1)
				f.Value = f.Value[1:]
			} else if len(f.Value) > maxPathBytes || hasControl(f.Value) {
				d.problem(v, "", "no request can hold this value")
			}
		}
		list = append(list, f)
		return true
	})
	if len(list) > maxConditions {
		d.problem(n, "", "%q has more than %d conditions", key, maxConditions)
	}
	return list
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

func (d *decoder) mediaType(key string, n ast.Node, c *Conditions) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	s = strings.ToLower(s)
	kind, sub, found := strings.Cut(s, "/")
	if !found || !isToken(kind) || !isToken(sub) || strings.Contains(kind, "*") {
		d.problem(n, `write "application/json" or "text/*", without parameters`, "%q is no media type", clip(s))
		return
	}
	if len(c.ContentTypes) < maxConditions {
		c.ContentTypes = append(c.ContentTypes, s)
		return
	}
	d.problem(n, "", "%q has more than %d conditions", key, maxConditions)
}

// Listeners are the names of those whose connections and requests m takes; none: any.
func (m *Match) Listeners() []string { return m.further().Listeners }

// further are the conditions that few matches have.
func (m *Match) further() (c Conditions) {
	if m.Further != nil {
		c = *m.Further
	}
	return c
}

// count is the number of conditions, of which alternatives count as one.
func (c *Conditions) count() int {
	n := len(c.Headers) + len(c.Query) + len(c.Cookies)
	for _, given := range [...]bool{len(c.Listeners) > 0, len(c.ContentTypes) > 0, len(c.Clients) > 0} {
		if given {
			n++
		}
	}
	return n
}

// short returns the short form of the methods, host and path. Other conditions have none.
func (m *Match) short() string {
	var b strings.Builder
	if len(m.Methods) > 0 {
		b.WriteString(strings.Join(m.Methods, ","))
		b.WriteByte(' ')
	}
	if m.Host.Name != "" || m.Path.Kind == PathAny {
		b.WriteString(m.Host.String())
	}
	b.WriteString(m.Path.String())
	return b.String()
}

// String returns the host as it is written.
func (h Host) String() string {
	switch {
	case h.Name == "":
		return "*"
	case h.Wildcard:
		return "*." + h.Name
	}
	return h.Name
}

// String returns the path as it is written; "" for any.
func (p Path) String() string {
	switch p.Kind {
	case PathExact:
		return p.Value
	case PathPrefix:
		return p.Value + "/*"
	case PathRegex:
		return "~" + p.Value
	}
	return ""
}

// prefixText returns a prefix as it is written, which for a single address is that address.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
