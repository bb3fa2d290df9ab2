// Package cors is the policy that tells browsers which pages of other origins may use a route (the Fetch standard, 3.2): it answers
// their preflight requests, and marks the answers that they may read. What an upstream says of its own about that is replaced:
// there is one place where it is decided.
package cors

import (
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says what is allowed to whom.
type Spec struct {
	Origins     []string      // such as https://shop.example, https://*.shop.example for all names below, or * for all
	Methods     []string      // of requests besides GET, HEAD and POST
	Headers     []string      // of requests, besides those that are always allowed; * for all that are asked for
	Expose      []string      // of answers, besides those that are always readable
	Credentials bool          // cookies and the like are sent along; not for *
	MaxAge      time.Duration // how long a browser may remember a preflight's answer; 0: it is not told
}

// Policy is the compiled Spec. It is immutable.
type Policy struct {
	any         bool // every origin
	exact       map[string]bool
	below       []suffix
	methods     string
	headers     string
	allHeaders  bool
	expose      string
	credentials bool
	maxAge      string
}

// suffix is an origin with all names below a host: scheme "https://", rest ".shop.example:8443".
type suffix struct{ scheme, rest string }

// New compiles s. Origins are as browsers send them: in lower case, without a path, and with a port only if it is not the scheme's.
func New(s Spec) *Policy {
	p := &Policy{exact: map[string]bool{}, credentials: s.Credentials}
	for _, o := range s.Origins {
		scheme, host, _ := strings.Cut(o, "://")
		switch {
		case o == "*":
			p.any = true
		case strings.HasPrefix(host, "*."):
			p.below = append(p.below, suffix{scheme + "://", host[1:]})
		default:
			p.exact[o] = true
		}
	}
	p.methods, p.expose = strings.Join(s.Methods, ", "), strings.Join(s.Expose, ", ")
	for _, h := range s.Headers {
		p.allHeaders = p.allHeaders || h == "*"
	}
	if !p.allHeaders {
		p.headers = strings.Join(s.Headers, ", ")
	}
	if s.MaxAge > 0 {
		p.maxAge = strconv.FormatInt(int64(s.MaxAge/time.Second), 10)
	}
	return p
}

// allows says whether pages of an origin may use the route.
func (p *Policy) allows(origin []byte) bool {
	if p.any || p.exact[string(origin)] {
		return true
	}
	for _, s := range p.below {
		if n := len(origin) - len(s.scheme) - len(s.rest); n > 0 && string(origin[:len(s.scheme)]) == s.scheme &&
			string(origin[len(origin)-len(s.rest):]) == s.rest && isName(origin[len(s.scheme):len(s.scheme)+n]) {
			return true
		}
	}
	return false
}

// isName keeps what is no host name, such as a port or a user, out of what * stands for.
func isName(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

var errOrigin = &core.Error{Status: 403, Reason: "origin_not_allowed", Detail: "CORS preflight"}

// OnRequest answers preflight requests. All others go on: what a browser may not read it may still send.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	m := &x.Request
	if m.Method != core.MethodOptions {
		return core.Continue
	}
	origin, cross := m.Lookup("Origin")
	if _, preflight := m.Lookup("Access-Control-Request-Method"); !cross || !preflight {
		return core.Continue
	}
	if !p.allows(origin) {
		x.Fail(errOrigin)
		return core.Respond
	}
	x.Keep(p) // whoever answers is this policy
	x.Answer(204, "", "")
	r := &x.Response
	if p.methods != "" {
		addText(r, "Access-Control-Allow-Methods", p.methods)
	}
	if asked, ok := m.Lookup("Access-Control-Request-Headers"); ok && p.allHeaders {
		r.AddName("Access-Control-Allow-Headers", asked)
	} else if p.headers != "" {
		addText(r, "Access-Control-Allow-Headers", p.headers)
	}
	if p.maxAge != "" {
		addText(r, "Access-Control-Max-Age", p.maxAge)
	}
	return core.Respond
}

// OnResponse marks the answer, of whoever it is.
func (p *Policy) OnResponse(x *core.Exchange) {
	r := &x.Response
	preflight := x.Kept() != nil
	r.RemoveIf(func(id core.FieldID, name []byte) bool {
		return id == core.FieldOther && len(name) > len(ownPrefix) && core.EqualFold(name[:len(ownPrefix)], ownPrefix) &&
			!(preflight && !core.EqualFold(name, allowOrigin))
	})
	if !p.any || p.credentials {
		addText(r, core.FieldVary.String(), "Origin")
	}
	origin, cross := x.Request.Lookup("Origin")
	if !cross || !p.allows(origin) {
		return
	}
	if p.any && !p.credentials {
		addText(r, allowOrigin, "*")
	} else {
		r.AddName(allowOrigin, origin)
	}
	if p.credentials {
		addText(r, "Access-Control-Allow-Credentials", "true")
	}
	if p.expose != "" && !preflight {
		addText(r, "Access-Control-Expose-Headers", p.expose)
	}
}

const (
	ownPrefix   = "access-control-"
	allowOrigin = "Access-Control-Allow-Origin"
)

func addText(m *core.Message, name, value string) {
	line := m.Begin(name)
	line.String(value)
	line.End(core.LookupField([]byte(name)))
}
