package route

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// StripPrefix is a core.RequestPolicy that takes a prefix off the path. A path that does not have it, up to the border of a
// segment, stays. Immutable.
type StripPrefix struct{ prefix string }

// NewStripPrefix takes a path such as "/v1".
func NewStripPrefix(prefix string) (*StripPrefix, error) {
	p, err := literalPrefix(prefix)
	if err != nil {
		return nil, fmt.Errorf("cannot strip prefix: %w", err)
	}
	return &StripPrefix{p}, nil
}

// OnRequest implements core.RequestPolicy: "/v1/x" becomes "/x" and "/v1" becomes "/".
func (p *StripPrefix) OnRequest(x *core.Exchange) core.Verdict {
	path := x.Request.Path
	if rest, ok := below(path, p.prefix); ok {
		if len(rest) == 0 {
			rest = path[:1] // its slash
		}
		x.Request.Path = rest
	}
	return core.Continue
}

// ReplacePrefix is a core.RequestPolicy that puts another prefix in the place of one. A path that does not have it, up to
// the border of a segment, stays. Immutable.
type ReplacePrefix struct{ prefix, with string }

// NewReplacePrefix takes paths such as "/v1" and "/api/v1".
func NewReplacePrefix(prefix, with string) (*ReplacePrefix, error) {
	p, err := literalPrefix(prefix)
	if err != nil {
		return nil, fmt.Errorf("cannot replace prefix: %w", err)
	}
	w, err := literalPrefix(with)
	if err != nil {
		return nil, fmt.Errorf("cannot replace prefix %q: %w", prefix, err)
	}
	return &ReplacePrefix{p, w}, nil
}

// OnRequest implements core.RequestPolicy.
func (p *ReplacePrefix) OnRequest(x *core.Exchange) core.Verdict {
	rest, ok := below(x.Request.Path, p.prefix)
	switch {
	case !ok:
	case len(rest) == 0 && p.with == "":
		x.Request.Path = x.Request.Path[:1]
	default:
		x.Request.SetPath(p.with, rest)
	}
	return core.Continue
}

// literalPrefix checks a prefix and gives it in normal form, without a slash at its end: "" is every path's.
func literalPrefix(s string) (string, error) {
	p, err := normalPath([]byte(s))
	if err != nil {
		return "", fmt.Errorf("%q is no path: %w", s, err)
	}
	if strings.ContainsAny(s, "{}") {
		return "", fmt.Errorf("path %q may not hold a {name}", s)
	}
	return strings.TrimSuffix(string(p), "/"), nil
}

// below gives what follows prefix in path: nothing, or something that begins with "/".
func below(path []byte, prefix string) ([]byte, bool) {
	n := len(prefix)
	if len(path) == 0 || path[0] != '/' || len(path) < n || string(path[:n]) != prefix || len(path) > n && path[n] != '/' {
		return nil, false
	}
	return path[n:], true
}

// normalPath gives the normal form of a path that comes from the configuration, or is made with its help. Dot segments are
// an error: nobody who writes one means what it does.
func normalPath(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0] != '/' {
		return nil, errors.New(`it does not begin with "/"`)
	}
	for at := 0; at < len(b); {
		end := segmentAfter(b, at)
		if s := b[at+1 : end]; string(s) == "." || string(s) == ".." {
			return nil, errors.New("it has a dot segment")
		}
		at = end
	}
	if bytes.IndexByte(b, '?') >= 0 {
		return nil, errors.New("it has a query")
	}
	var m core.Message
	m.Adopt(b)
	m.Target = core.Span{End: uint32(len(b))}
	if err := m.NormalizeTarget(false); err != nil {
		return nil, err
	}
	return m.Path, nil
}

// Rewrite is a core.RequestPolicy that replaces the first match of an expression in the path; the rest of the path and
// paths without a match stay. A result that is no path is the configuration's fault and fails the exchange. The match
// allocates, as package regexp does. Immutable.
type Rewrite struct {
	pattern *regexp.Regexp
	to      []piece
	failure *core.Error
}

// piece is text, or what a group of the expression matched.
type piece struct {
	text  string
	group int // 0 with text
	whole bool
}

// maxRewritten bounds a rewritten path: a group may stand in the result many times.
const maxRewritten = 64 << 10

// NewRewrite takes an RE2 expression, not anchored, and the replacement, in which $1 and ${1} stand for the first group, $0
// for the whole match, ${name} for a named group and $$ for a dollar sign.
func NewRewrite(pattern *regexp.Regexp, to string) (*Rewrite, error) {
	pieces, err := template(pattern, to)
	if err != nil {
		return nil, fmt.Errorf("cannot rewrite paths to %q: %w", to, err)
	}
	return &Rewrite{pattern: pattern, to: pieces, failure: &core.Error{
		Status: 500, Reason: "internal", Side: core.SideInternal,
		Detail: fmt.Sprintf("rewrite of %q to %q gives no valid path", pattern, to),
	}}, nil
}

// template cuts a replacement into pieces.
func template(pattern *regexp.Regexp, to string) ([]piece, error) {
	var out []piece
	for to != "" {
		text, rest, found := strings.Cut(to, "$")
		if text != "" {
			out = append(out, piece{text: text})
		}
		if !found {
			break
		}
		if strings.HasPrefix(rest, "$") {
			out = append(out, piece{text: "$"})
			to = rest[1:]
			continue
		}
		var name string
		if strings.HasPrefix(rest, "{") {
			var closed bool
			if name, rest, closed = strings.Cut(rest[1:], "}"); !closed {
				return nil, errors.New(`a "${" is not closed`)
			}
		} else {
			name = rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
			rest = rest[len(name):]
		}
		group, err := groupOf(pattern, name)
		if err != nil {
			return nil, err
		}
		out = append(out, piece{group: group, whole: group == 0})
		to = rest
	}
	return out, nil
}

func groupOf(pattern *regexp.Regexp, name string) (int, error) {
	if name == "" {
		return 0, errors.New(`a "$" names no group: "$$" is a dollar sign`)
	}
	n, err := strconv.Atoi(name)
	if err != nil {
		n = pattern.SubexpIndex(name)
	}
	if n < 0 || n > pattern.NumSubexp() {
		return 0, fmt.Errorf("%q has no group %q", pattern, name)
	}
	return n, nil
}

// OnRequest implements core.RequestPolicy.
func (p *Rewrite) OnRequest(x *core.Exchange) core.Verdict {
	path := x.Request.Path
	if len(path) == 0 || path[0] != '/' { // "*" is no path
		return core.Continue
	}
	groups := p.pattern.FindSubmatchIndex(path)
	if groups == nil {
		return core.Continue
	}
	room := x.Worker.Loop.Borrow()
	defer x.Worker.Loop.Return(room)
	out := append(room[:0], path[:groups[0]]...)
	for _, t := range p.to {
		if t.group == 0 && !t.whole {
			out = append(out, t.text...)
		} else if start := groups[2*t.group]; start >= 0 {
			out = append(out, path[start:groups[2*t.group+1]]...)
		}
		if len(out) > maxRewritten {
			x.Fail(p.failure)
			return core.Respond
		}
	}
	out = append(out, path[groups[1]:]...)
	normal, err := normalPath(out)
	if err != nil || len(out) > maxRewritten {
		x.Fail(p.failure)
		return core.Respond
	}
	x.Request.SetPath("", normal)
	return core.Continue
}

// SetHost is a core.RequestPolicy that gives the request another Host. Message.Host stays what the client asked for.
// Immutable.
type SetHost struct{ value []byte }

// NewSetHost takes a host name or an IPv6 address in brackets, with or without a port.
func NewSetHost(host string) (*SetHost, error) {
	name := string(withoutPort([]byte(host)))
	if err := checkHost(strings.TrimSuffix(name, ".")); err != nil {
		return nil, fmt.Errorf("cannot set host: %w", err)
	}
	if port, is := strings.CutPrefix(host[len(name):], ":"); is {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("cannot set host %q: its port is not valid", host)
		}
	} else if name != host {
		return nil, fmt.Errorf("cannot set host %q: something follows the address", host)
	}
	return &SetHost{[]byte(host)}, nil
}

// OnRequest implements core.RequestPolicy.
func (p *SetHost) OnRequest(x *core.Exchange) core.Verdict {
	x.Request.Set(core.FieldHost, p.value)
	return core.Continue
}
