package route

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Redirect is a core.Action that sends the client elsewhere. Immutable.
//
// No request can choose the host of the Location except through {host}, or a {name} that the configuration puts before a
// domain: a Location that begins with a path begins with one slash, whatever the request's path begins with.
type Redirect struct {
	status   int
	parts    []part
	relative bool // the Location begins with a path
}

// part is a piece of the Location.
type part struct {
	kind  partKind
	text  string // of partText and partParam: the text, the name
	place place  // where in the URI it stands: what must be escaped there
}

type partKind uint8

const (
	partText partKind = iota
	partScheme
	partHost
	partPath
	partQuery
	partParam
)

// place is a component of a URI (RFC 3986, 3).
type place uint8

const (
	inScheme place = iota
	inAuthority
	inPath
	inQuery
	inFragment
)

var errNoPlace = errors.New("it begins with neither a path nor a scheme and host")

var errRedirectHost = &core.Error{Status: 400, Reason: "bad_request", Detail: "the request has no host to redirect to"}

// NewRedirect takes a Location with {scheme}, {host} without its port, {path}, {query} without its "?", and {name} of the
// route's parameters. It must begin with "/", {path}, {scheme}:// or a scheme of its own and "://". Where the request has
// no query, the "?" or "&" before {query} is left out. params are the names that the route has.
func NewRedirect(to string, status int, params []string) (*Redirect, error) {
	r := &Redirect{status: status}
	switch status {
	case 301, 302, 303, 307, 308:
	default:
		return nil, fmt.Errorf("cannot redirect with status %d", status)
	}
	if err := r.parse(to, params); err != nil {
		return nil, fmt.Errorf("cannot redirect to %q: %w", to, err)
	}
	return r, nil
}

// parse cuts the template into parts and finds the place of each.
func (r *Redirect) parse(to string, params []string) error {
	at := inScheme
	if strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") || strings.HasPrefix(to, "{path}") {
		r.relative, at = true, inPath
	}
	for rest := to; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return errors.New(`a "}" closes nothing`)
		}
		if text != "" {
			if at == inScheme && (len(r.parts) > 0) != strings.HasPrefix(text, "://") {
				return errNoPlace
			}
			next, err := placeAfter(at, text)
			if err != nil {
				return err
			}
			r.parts = append(r.parts, part{partText, text, at})
			at = next
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return errors.New(`a "{" is not closed`)
		}
		if at == inScheme && len(r.parts) > 0 {
			return errNoPlace
		}
		p, err := placeholder(name, at, params)
		if err != nil {
			return err
		}
		if p.kind == partParam && at == inAuthority {
			if err := beforeDomain(tail); err != nil {
				return fmt.Errorf("{%s} %w", name, err)
			}
		}
		if p.kind == partPath && at == inAuthority {
			at, p.place = inPath, inPath // it begins with a slash
		}
		r.parts = append(r.parts, p)
		rest = tail
	}
	if at == inScheme {
		return errNoPlace
	}
	return nil
}

// placeholder checks that what is named may stand at the place.
func placeholder(name string, at place, params []string) (part, error) {
	p := part{text: name, place: at}
	var allowed bool
	switch name {
	case "scheme":
		p.kind, allowed = partScheme, at != inAuthority
	case "host":
		p.kind, allowed = partHost, at != inScheme
	case "path":
		p.kind, allowed = partPath, at != inScheme
	case "query":
		p.kind, allowed = partQuery, at == inQuery || at == inFragment
	default:
		p.kind, allowed = partParam, at != inScheme
		known := false
		for _, q := range params {
			known = known || q == name
		}
		if !known {
			return p, fmt.Errorf("the route has no parameter {%s}", name)
		}
	}
	if !allowed {
		return p, fmt.Errorf("{%s} may not stand there", name)
	}
	return p, nil
}

// beforeDomain checks what follows a parameter in the authority: a domain of the configuration's choice must end the host.
func beforeDomain(tail string) error {
	end := strings.IndexAny(tail, "/?#{")
	if end < 0 {
		end = len(tail)
	}
	if host := string(withoutPort([]byte(tail[:end]))); !strings.HasPrefix(host, ".") || checkHost(host[1:]) != nil {
		return errors.New(`may stand in a host only before the rest of a domain, as in "{name}.example.com"`)
	}
	return nil
}

// placeAfter is the place after a text that begins at the place at. The text must be what a URI may hold there.
func placeAfter(at place, text string) (place, error) {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`|", c) >= 0 {
			return at, fmt.Errorf("%q may not be in a URI", c)
		}
	}
	if at == inScheme {
		scheme, rest, found := strings.Cut(text, "://")
		if !found || strings.Trim(strings.ToLower(scheme), "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
			return at, errNoPlace
		}
		at, text = inAuthority, rest
	}
	if at == inAuthority {
		i := strings.IndexAny(text, "/?#")
		if i < 0 {
			return at, nil
		}
		at, text = inPath, text[i:]
	}
	if at == inPath {
		if i := strings.IndexAny(text, "?#"); i >= 0 {
			at, text = inQuery, text[i:]
		}
	}
	if at == inQuery && strings.Contains(text, "#") {
		at = inFragment
	}
	return at, nil
}

// Answer implements core.Action.
func (r *Redirect) Answer(x *core.Exchange) {
	var room [1024]byte
	location, err := r.location(room[:0], x)
	if err != nil {
		x.Fail(err)
		return
	}
	x.Answer(r.status, "", "")
	x.Response.Add(core.FieldLocation, location)
}

func (r *Redirect) location(dst []byte, x *core.Exchange) ([]byte, *core.Error) {
	for i := range r.parts {
		p := &r.parts[i]
		switch p.kind {
		case partText:
			dst = append(dst, p.text...)
		case partScheme:
			dst = append(dst, scheme(x)...)
		case partHost:
			host := withoutPort(x.Request.Host())
			if !isHost(host) {
				return nil, errRedirectHost
			}
			dst = append(dst, host...)
		case partPath:
			if path := x.Request.Path; len(path) > 0 && path[0] == '/' {
				dst = escape(dst, path, p.place)
			} else {
				dst = append(dst, '/') // "*" has no path
			}
		case partQuery:
			if len(x.Request.Query) > 0 {
				dst = escape(dst, x.Request.Query, inFragment)
			} else if n := len(dst); n > 0 && (dst[n-1] == '?' || dst[n-1] == '&') {
				dst = dst[:n-1]
			}
		case partParam:
			value := x.Param(p.text)
			if p.place == inAuthority && !isLabel(value) {
				return nil, errRedirectHost
			}
			dst = escape(dst, value, p.place)
		}
	}
	if r.relative {
		n := 0
		for n+1 < len(dst) && dst[n+1] == '/' {
			n++
		}
		dst = dst[n:]
	}
	return dst, nil
}

func scheme(x *core.Exchange) string {
	if x.Client.TLS != nil {
		return "https"
	}
	return x.Listener.Scheme
}

// isHost is for hosts that no parser has looked at: nothing in them may end the authority.
func isHost(b []byte) bool {
	for _, c := range b {
		if !isLetter(c) && !isDigit(c) && bytes.IndexByte([]byte("-._~[]:"), c) < 0 {
			return false
		}
	}
	return len(b) > 0
}

// isLabel says whether b is one label of a host name.
func isLabel(b []byte) bool {
	for _, c := range b {
		if !isLetter(c) && !isDigit(c) && c != '-' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 63
}

// escape appends b with percent triplets for what may not stand at the place (RFC 3986, 3.3 and 3.4). Triplets of b stay. In
// a query, where b is one value among others, what separates them is escaped, too; a whole query is written inFragment.
func escape(dst, b []byte, at place) []byte {
	const upper = "0123456789ABCDEF"
	for i, c := range b {
		if c == '%' && isTriplet(b[i:]) || escapes[c]&(1<<at) == 0 && c != '%' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upper[c>>4], upper[c&15])
		}
	}
	return dst
}

// escapes has for each byte a bit for each place in which it must be escaped.
var escapes = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		switch {
		case isLetter(c) || isDigit(c) || strings.IndexByte("-._~", c) >= 0:
		case strings.IndexByte("!$'()*,;:@/", c) >= 0:
		case strings.IndexByte("&=+", c) >= 0:
			t[c] = 1 << inQuery
		case strings.IndexByte("?[]", c) >= 0:
			t[c] = 1<<inPath | 1<<inQuery
		default:
			t[c] = 1<<inPath | 1<<inQuery | 1<<inFragment
		}
	}
	return t
}()
