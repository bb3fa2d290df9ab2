package forward

import (
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// names are what follows from the names in a Spec.
type names struct {
	listed  map[string]bool // in lower case; nil: all are sent
	copied  map[string]bool // folded: only the service may say them
	unkeyed []core.FieldID  // credentials that are sent and are not part of the cache's key
}

func newNames(s *Spec) names {
	n := names{copied: map[string]bool{}}
	for _, name := range s.Copy {
		n.copied[folded([]byte(name))] = true
	}
	if s.Headers != nil {
		n.listed = map[string]bool{}
		for _, name := range s.Headers {
			n.listed[strings.ToLower(name)] = true
		}
	}
	if s.Cache != nil {
		has := func(kind core.KeyKind, name string) bool {
			return slices.ContainsFunc(s.Cache.Key, func(p core.KeyPart) bool { return p.Kind == kind && (name == "" || strings.EqualFold(p.Name, name)) })
		}
		if n.sends("authorization") && !has(core.KeyHeader, "Authorization") {
			n.unkeyed = append(n.unkeyed, core.FieldAuthorization)
		}
		if n.sends("cookie") && !has(core.KeyCookie, "") {
			n.unkeyed = append(n.unkeyed, core.FieldCookie)
		}
	}
	return n
}

func (n *names) sends(lower string) bool { return n.listed == nil || n.listed[lower] }

const (
	// unsent are fields that the gateway writes itself, or that are about the request's connection, body or answer.
	unsent core.FieldSet = connectionFields | 1<<core.FieldHost | 1<<core.FieldExpect | 1<<core.FieldForwarded | 1<<core.FieldXForwardedFor |
		1<<core.FieldXForwardedHost | 1<<core.FieldXForwardedProto | 1<<core.FieldXRealIP | 1<<core.FieldXConsumerName | 1<<core.FieldXRequestID
	// judged are what the service is to judge, although it may put something else in their place.
	judged core.FieldSet = 1<<core.FieldAuthorization | 1<<core.FieldCookie
)

// folded is a name as one reads it who turns all but letters and digits into the same byte.
func folded(name []byte) string {
	b := make([]byte, len(name))
	for i, c := range name {
		if b[i] = '-'; '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// wants says whether the service is sent a field of the request. Nobody but the gateway says X-Forwarded-*, and nobody but the service
// what is copied, in any spelling. Conditions and ranges are about the answer of the upstream: a service that looked at them would
// answer 304 or 416, which is no verdict.
func (p *Policy) wants(id core.FieldID, name []byte) bool {
	like := folded(name)
	switch {
	case core.Fields(id)&unsent != 0 && id != core.FieldOther, strings.HasPrefix(like, "x-forwarded-"), like == "x-consumer-name":
		return false
	case p.names.listed != nil:
		return p.names.listed[strings.ToLower(string(name))]
	case core.Fields(id)&judged != 0 && id != core.FieldOther:
		return true
	case strings.HasPrefix(like, "if-") || like == "range" || strings.HasPrefix(like, "proxy-"):
		return false
	}
	return !p.names.copied[like]
}

// query is what the service is told of x.
func (p *Policy) query(x *core.Exchange, body []byte) *Query {
	m := &x.Request
	q := &Query{Method: p.spec.Method, Body: body, Lines: make([]Line, 0, m.Count()+8)}
	if q.Method == "" {
		q.Method = string(m.MethodBytes())
	}
	m.All(func(id core.FieldID, name, value []byte) bool {
		if p.wants(id, name) {
			q.Lines = append(q.Lines, Line{string(name), string(value)})
		}
		return true
	})
	p.forwarded(x, q, "X-Forwarded-Method", string(m.MethodBytes()))
	p.forwarded(x, q, "X-Forwarded-Proto", x.Listener.Scheme)
	p.forwarded(x, q, "X-Forwarded-Host", string(m.Host()))
	p.forwarded(x, q, "X-Forwarded-Uri", target(m))
	client := string(x.Client.Text)
	if p.trusts(x) {
		if via, n := chain(m); n > 0 {
			client = via + ", " + string(x.Client.Via)
		}
	}
	q.add("X-Forwarded-For", client)
	if x.Consumer != nil {
		q.add("X-Consumer-Name", x.Consumer.Name)
	}
	if x.RequestID != nil {
		q.add(x.Listener.Forward.RequestID, string(x.RequestID))
	}
	if p.spec.Check {
		q.Attributes = attributes(x)
	}
	return q
}

func (q *Query) add(name, value string) {
	if value != "" {
		q.Lines = append(q.Lines, Line{name, value})
	}
}

// trusts says whether the client's side is believed what it says of the client before it.
func (p *Policy) trusts(x *core.Exchange) bool { return p.spec.TrustForwarded && x.Client.Trusted }

// forwarded adds a field that tells of the request, a trusted proxy's if it is there once.
func (p *Policy) forwarded(x *core.Exchange, q *Query, name, own string) {
	if p.trusts(x) {
		said, n := "", 0
		x.Request.All(func(_ core.FieldID, have, value []byte) bool {
			if core.EqualFold(have, name) {
				said = string(value)
				n++
			}
			return true
		})
		if n == 1 && said != "" {
			own = said
		}
	}
	q.add(name, own)
}

// chain is what stands in all lines of X-Forwarded-For.
func chain(m *core.Message) (text string, n int) {
	m.All(func(id core.FieldID, _, value []byte) bool {
		if id == core.FieldXForwardedFor && len(value) > 0 {
			if n++; n > 1 {
				text += ", "
			}
			text += string(value)
		}
		return true
	})
	return text, n
}
