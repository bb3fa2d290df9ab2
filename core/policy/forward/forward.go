// Package forward is the policy that asks a service whether a request may pass, and what the upstream is to learn of it: over HTTP, or in
// the way of Envoy's ext_authz.
//
// The service is asked beside the loop: the exchange waits, the loop does not. Its answer may be kept by the loop for a while, for the
// client who showed the same credentials.
package forward

import (
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says what the service is told, and what becomes of its answer.
type Spec struct {
	Method         string       // that it is asked with; "": the request's own
	Headers        []string     // that it is sent; nil: all that do not belong to the connection
	Body           int          // bytes of the body that it is sent at most; 0: none
	TrustForwarded bool         // what a trusted proxy says in X-Forwarded-* is passed on
	Copy           []string     // fields of its answer that the upstream gets, and from nobody else
	CopyToClient   []string     // fields of its answer that the client gets
	Hide           core.Carrier // credentials that it judges, which the upstream does not get
	Cache          *Cache       // nil: every request is asked about
	Allow          bool         // what becomes of a request when it cannot be asked
	Calls          int          // under way at once, on each loop
	Check          bool         // the service is told Attributes, and may answer with Changes; of fields it may change those of Copy, nil: all but ours
	Text           bool         // a body that is no UTF-8 is refused
}

// Cache says which answers are kept, for whom, and for how long.
type Cache struct {
	Key        core.KeyParts
	PerRequest bool // for the same method, host and target alone; false: for all of the route
	TTL        time.Duration
	Most       int // on each loop
}

// Line is a field.
type Line struct{ Name, Value string }

// Query is what the service is asked. It owns its memory.
type Query struct {
	Method string
	Lines  []Line
	Body   []byte // nil: none

	Attributes *Attributes // nil: they are not asked for
}

// Answer is what it says.
type Answer struct {
	Failed bool // it said nothing that can be understood, or not in time
	Status int
	Lines  []Line
	Body   string
	Whole  bool // that is all of the body

	Changes *Changes // of an answer that allows; nil: Copy and CopyToClient say what becomes of Lines
}

// Service is who is asked. Begin runs on a loop and does not wait.
type Service interface {
	Begin(q *Query) core.Call[Answer]
}

// Counts are what one loop has counted. Only that loop touches them.
type Counts struct {
	Asked, Cached, Allowed, Denied uint64
	Failed                         uint64 // the service gave no answer
	Busy                           uint64 // it was not asked, because of too many calls
	Passed                         uint64 // of both, those that passed nevertheless
}

// Policy is immutable but for the lanes, each of which only its loop touches.
type Policy struct {
	spec    Spec
	service Service
	names   names
	lanes   []lane
}

// lane is what one loop has of a policy.
type lane struct {
	calls  core.Calls[Answer]
	recent core.Recent[*outcome]
	key    []byte // memory for the next
	counts *Counts
}

// New gives the policy, for one loop for each of counts.
func New(spec Spec, service Service, counts []Counts) *Policy {
	p := &Policy{spec: spec, service: service, names: newNames(&spec), lanes: make([]lane, len(counts))}
	for i := range p.lanes {
		p.lanes[i].calls.Most = spec.Calls
		p.lanes[i].counts = &counts[i]
		if spec.Cache != nil {
			p.lanes[i].recent.Most = spec.Cache.Most
		}
	}
	return p
}

var (
	errUnavailable = &core.Error{Status: 503, Reason: "forward_unavailable", Side: core.SideInternal}
	errBusy        = &core.Error{Status: 503, Reason: "forward_busy", Side: core.SideInternal}
	errNoText      = &core.Error{Status: 400, Reason: "body_not_text"}
)

// OnRequest lets a request pass that the service allows. What the upstream is told in fields of Copy comes from there alone, in whatever
// spelling a client sends the same fields.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	a := &p.lanes[x.Worker.Loop.Index()]
	key := p.key(x, a)
	now := x.Worker.Loop.Wall()
	if key != nil {
		if o, ok := a.recent.Find(key); ok && now < o.until {
			a.counts.Cached++
			return p.apply(x, a, o)
		}
	}
	var body []byte
	if p.spec.Body > 0 {
		var err *core.Error
		if body, err = x.HoldBody(p.spec.Body); err != nil {
			x.Fail(err)
			return core.Respond
		}
		if p.spec.Text && !utf8.Valid(body) { // it could not be judged
			x.Fail(errNoText)
			return core.Respond
		}
	}
	kept := string(key)
	q := p.query(x, body)
	answer, err := a.calls.Ask(x, kept, func() core.Call[Answer] {
		a.counts.Asked++
		return p.service.Begin(q)
	})
	switch err {
	case nil:
	case core.ErrClientGone, core.ErrStopping:
		x.Fail(err)
		return core.Respond
	case core.ErrCallsFull:
		a.counts.Busy++
		return p.unasked(x, a, errBusy)
	default:
		answer.Failed = true
	}
	o := p.outcome(&answer)
	if o == nil {
		a.counts.Failed++
		return p.unasked(x, a, errUnavailable)
	}
	if kept != "" && o.keep > 0 {
		o.until = x.Worker.Loop.Wall() + int64(o.keep)
		a.recent.Put(kept, o, o.bytes())
	}
	return p.apply(x, a, o)
}

// key is what the answer may be kept under, valid until the next is asked for on this loop; nil: it is not kept. A request that shows a
// credential to the service of which the key knows nothing is not taken for one that does not. What the gateway itself tells the service of who
// asks is part of the key: it decides as well.
func (p *Policy) key(x *core.Exchange, a *lane) []byte {
	c := p.spec.Cache
	if c == nil {
		return nil
	}
	for _, id := range p.names.unkeyed {
		if x.Request.Has(id) {
			return nil
		}
	}
	key := append(append(a.key[:0], x.Route.Name...), 0)
	if c.PerRequest {
		key = core.AppendRequest(key, x)
	}
	key = p.appendTold(key, x)
	key, credentials, ok := c.Key.Append(key, x)
	if cap(key) <= maxKeyBytes {
		a.key = key
	}
	if !ok || credentials == 0 || len(key) > maxKeyBytes {
		return nil
	}
	return key
}

// appendTold appends who the service is told that the client is, and what a trusted proxy says that was asked for.
func (p *Policy) appendTold(key []byte, x *core.Exchange) []byte {
	name, certificate := "", ""
	if x.Consumer != nil {
		name = x.Consumer.Name
	}
	if t := x.Client.TLS; p.spec.Check && t != nil && t.Identity != nil {
		certificate = t.Identity.Fingerprint
	}
	key = append(append(append(append(key, name...), 0), certificate...), 0)
	if p.trusts(x) {
		for _, field := range [...]string{"X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri"} {
			said, n := x.Request.Single(field)
			if n != 1 {
				said = nil
			}
			key = append(append(key, said...), 0)
		}
	}
	return key
}

// maxKeyBytes bounds what an answer is kept under. Requests with more are asked about.
const maxKeyBytes = 16 << 10

// unasked is what becomes of a request that nobody has judged.
func (p *Policy) unasked(x *core.Exchange, a *lane, err *core.Error) core.Verdict {
	p.strip(x)
	if p.spec.Allow {
		a.counts.Passed++
		return core.Continue
	}
	x.Fail(err)
	return core.Respond
}

// strip removes what only the service may say, and the credentials that were for it, whether it has judged them or not.
func (p *Policy) strip(x *core.Exchange) {
	p.spec.Hide.Hide(&x.Request)
	for _, name := range p.spec.Copy {
		x.Request.RemoveLike(name)
	}
}

// apply does what the service has said.
func (p *Policy) apply(x *core.Exchange, a *lane, o *outcome) core.Verdict {
	p.strip(x)
	if o.err != nil {
		a.counts.Denied++
		o.deny(x)
		return core.Respond
	}
	a.counts.Allowed++
	for i := range o.upstream {
		addLine(&x.Request.Header, &o.upstream[i])
	}
	if o.change != nil {
		o.change.apply(&x.Request)
	}
	if len(o.client) > 0 || o.change != nil && len(o.change.response) > 0 {
		x.Keep(o)
	}
	return core.Continue
}

// OnResponse gives the client what of the service's answer is for him. A cookie stands beside others, all else in the place of what the
// upstream says.
func (p *Policy) OnResponse(x *core.Exchange) {
	o, ok := x.Kept().(*outcome)
	if !ok {
		return
	}
	for i := range o.client {
		if l := &o.client[i]; l.id != core.FieldSetCookie {
			x.Response.RemoveName(l.Name)
		}
	}
	for i := range o.client {
		addLine(&x.Response.Header, &o.client[i])
	}
	if o.change != nil {
		o.change.answer(&x.Response)
	}
}

func addLine(h *core.Header, l *line) {
	w := h.Begin(l.Name)
	w.String(l.Value)
	w.End(l.id)
}

// Counts are those of one loop. It is called there.
func (p *Policy) Counts(loop int) Counts { return *p.lanes[loop].counts }
