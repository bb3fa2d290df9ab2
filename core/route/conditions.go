package route

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// conditions are what a rule asks for beyond host, path and the common methods. Immutable.
type conditions struct {
	path      *regexp.Regexp // of the whole path
	methods   []string       // those without an id
	listeners []string
	clients   []netip.Prefix
	headers   []header
	types     []mediaType
	cookies   []Field
	query     []Field
}

// header is a condition on a header.
type header struct {
	Field
	id core.FieldID
}

// mediaType is one of several that a request's Content-Type may be.
type mediaType struct {
	text  string // lower case; "text/" for "text/*", "" for "*/*"
	group bool
}

// refusal is why a rule does not apply: which of its conditions does not hold.
type refusal struct {
	kind  refusalKind
	index int // of the condition, where there are several of the kind
}

type refusalKind uint8

const (
	accepted refusalKind = iota
	refusedMethod
	refusedListener
	refusedClient
	refusedHeader
	refusedType
	refusedCookie
	refusedQuery
	refusedPath
)

// compileConditions gives the bits of the methods that have an id, the other conditions, nil when there are none, and
// their number: alternatives count as one.
func compileConditions(r *Rule) (methods uint16, when *conditions, count int, err error) {
	var c conditions
	for _, m := range r.Methods {
		if !isToken(m) {
			return 0, nil, 0, fmt.Errorf("method %q is no token", m)
		}
		id := core.LookupMethod([]byte(m))
		methods |= 1 << id
		if id == core.MethodOther {
			c.methods = append(c.methods, m)
		}
	}
	if c.clients, err = prefixes(r.Clients); err != nil {
		return 0, nil, 0, err
	}
	if c.types, err = mediaTypes(r.ContentTypes); err != nil {
		return 0, nil, 0, err
	}
	for _, set := range [][]Field{r.Headers, r.Cookies, r.Query} {
		for _, f := range set {
			if f.Name == "" {
				return 0, nil, 0, errors.New("a header, query or cookie condition has no name")
			}
			if f.Op > FieldRegex || (f.Op == FieldRegex) != (f.Regex != nil) {
				return 0, nil, 0, fmt.Errorf("condition on %q does not say how it is compared", f.Name)
			}
		}
		count += len(set)
	}
	for _, f := range r.Headers {
		if !isToken(f.Name) {
			return 0, nil, 0, fmt.Errorf("header name %q is no token", f.Name)
		}
		c.headers = append(c.headers, header{f, core.LookupField([]byte(f.Name))})
	}
	c.cookies = append(c.cookies, r.Cookies...)
	c.query = append(c.query, r.Query...)
	c.listeners = append([]string(nil), r.Listeners...)
	for _, n := range []int{len(c.listeners), len(c.types), len(c.clients)} {
		if n > 0 {
			count++
		}
	}
	if count > 0 || len(c.methods) > 0 {
		when = &conditions{}
		*when = c
	}
	if methods != 0 {
		count++
	}
	return methods, when, count, nil
}

// prefixes gives the prefixes in the form in which addresses are looked for: IPv4 is never written as IPv6.
func prefixes(in []netip.Prefix) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, p := range in {
		if !p.IsValid() {
			return nil, errors.New("client prefix is not valid")
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return nil, fmt.Errorf("client prefix %q holds more than the IPv4 addresses", p)
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func mediaTypes(in []string) ([]mediaType, error) {
	var out []mediaType
	for _, s := range in {
		kind, sub, ok := strings.Cut(strings.ToLower(s), "/")
		switch {
		case ok && kind == "*" && sub == "*":
			out = append(out, mediaType{group: true})
		case !ok || !isToken(kind) || !isToken(sub) || strings.Contains(kind, "*"):
			return nil, fmt.Errorf("content type %q is no media type", s)
		case sub == "*":
			out = append(out, mediaType{text: kind + "/", group: true})
		default:
			out = append(out, mediaType{text: kind + "/" + sub})
		}
	}
	return out, nil
}

// wholePath compiles an expression so that it matches whole paths only.
func wholePath(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil { // first as it stands: the group must not mend it
		return nil, fmt.Errorf("cannot parse path expression %q: %w", expr, err)
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("cannot parse path expression %q: %w", expr, err)
	}
	return re, nil
}

// refuses checks the conditions, the cheap ones first.
func (r *rule) refuses(x *core.Exchange) refusal {
	c := r.when
	if r.methods != 0 {
		m := x.Request.Method
		if r.methods&(1<<m) == 0 || m == core.MethodOther && !c.hasMethod(x.Request.MethodBytes()) {
			return refusal{kind: refusedMethod}
		}
	}
	if c == nil {
		return refusal{}
	}
	return c.refuse(x)
}

func (c *conditions) hasMethod(b []byte) bool {
	for _, m := range c.methods {
		if string(b) == m {
			return true
		}
	}
	return false
}

func (c *conditions) refuse(x *core.Exchange) refusal {
	if len(c.listeners) > 0 && !c.hasListener(x.Listener) {
		return refusal{kind: refusedListener}
	}
	if len(c.clients) > 0 && !c.hasClient(x.Client.Addr) {
		return refusal{kind: refusedClient}
	}
	for i := range c.headers {
		if !c.headers[i].holds(&x.Request) {
			return refusal{refusedHeader, i}
		}
	}
	if len(c.types) > 0 && !c.hasType(&x.Request) {
		return refusal{kind: refusedType}
	}
	for i := range c.cookies {
		if !c.cookies[i].inCookies(&x.Request) {
			return refusal{refusedCookie, i}
		}
	}
	for i := range c.query {
		if !c.query[i].inQuery(x.Request.Query) {
			return refusal{refusedQuery, i}
		}
	}
	if c.path != nil && !c.path.Match(x.Request.Path) {
		return refusal{kind: refusedPath}
	}
	return refusal{}
}

func (c *conditions) hasListener(l *core.Listener) bool {
	if l == nil {
		return false
	}
	for _, name := range c.listeners {
		if name == l.Name {
			return true
		}
	}
	return false
}

// hasClient looks an address up; one that is not known, that of a unix socket, is in no prefix.
func (c *conditions) hasClient(a netip.Addr) bool {
	a = a.Unmap()
	if a.Zone() != "" {
		a = a.WithZone("") // a prefix has none
	}
	for _, p := range c.clients {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// holds checks all the lines of the header's name, each as a whole.
func (h *header) holds(m *core.Message) bool {
	if h.id != core.FieldOther && (h.Op == FieldPresent || h.Op == FieldAbsent) {
		return m.Has(h.id) == (h.Op == FieldPresent)
	}
	found := false
	m.All(func(id core.FieldID, name, value []byte) bool {
		if id == h.id && (id != core.FieldOther || core.EqualFold(name, h.Name)) {
			found = h.Op == FieldPresent || h.Op == FieldAbsent || h.equals(value)
		}
		return !found
	})
	return found != (h.Op == FieldAbsent)
}

// equals compares one value, for FieldExact and FieldRegex.
func (f *Field) equals(value []byte) bool {
	if f.Op == FieldRegex {
		return f.Regex.Match(value)
	}
	return string(value) == f.Value
}

// hasType compares the media type without parameters (RFC 9110, 8.3.1). A request with several Content-Type lines has
// none: recipients disagree about which counts.
func (c *conditions) hasType(m *core.Message) bool {
	var value []byte
	lines := 0
	m.All(func(id core.FieldID, _, v []byte) bool {
		if id == core.FieldContentType {
			value = v
			lines++
		}
		return true
	})
	if lines != 1 {
		return false
	}
	if i := bytes.IndexByte(value, ';'); i >= 0 {
		value = value[:i]
	}
	value = bytes.TrimRight(value, " \t")
	slash := bytes.IndexByte(value, '/')
	if slash <= 0 || slash == len(value)-1 {
		return false
	}
	for _, t := range c.types {
		switch {
		case !t.group:
			if core.EqualFold(value, t.text) {
				return true
			}
		case t.text == "" || core.EqualFold(value[:slash+1], t.text):
			return true
		}
	}
	return false
}

// isToken says whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
