// Package introspect is the policy that knows consumers by tokens which their issuer is asked about (RFC 7662).
//
// The issuer is asked beside the loop, once for all who bear the same token at the time. What it says is kept by the loop until the
// token expires, and for a time that is short, since a token that is withdrawn is good for as long.
package introspect

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says what tokens must be good for, and how long the issuer's word is kept.
type Spec struct {
	core.Bearer
	TTL      time.Duration // of a token that is good, at most until it expires
	Negative time.Duration // of one that is not
	Most     int           // that are kept on each loop
	Calls    int           // under way at once, on each loop
	Allow    bool          // a request passes, as nobody's, when the issuer gives no answer
}

// Answer is what the issuer says of a token.
type Answer struct {
	Failed bool // it said nothing that can be understood, or not in time
	Claims core.Claims
}

// Service is the issuer. Begin runs on a loop and does not wait.
type Service interface {
	Begin(token string) core.Call[Answer]
}

// Counts are what one loop has counted. Only that loop touches them.
type Counts struct{ Asked, Cached, Failed, Busy, Passed uint64 }

// Policy is immutable but for the lanes, each of which only its loop touches.
type Policy struct {
	spec      Spec
	service   Service
	consumers *core.Consumers
	lanes     []lane
}

type lane struct {
	calls     core.Calls[Answer]
	directory *core.Directory // that recent was judged with
	recent    core.Recent[*verdict]
	counts    *Counts
}

// verdict is what is kept of a token. Immutable.
type verdict struct {
	grant *core.Grant
	err   *core.Error    // nil: the token is good for grant
	names *core.Consumer // whom a token names that is active and refused all the same; nil: nobody
	until int64          // on the wall clock
}

// New gives the policy, for one loop for each of counts.
func New(spec Spec, service Service, consumers *core.Consumers, counts []Counts) *Policy {
	p := &Policy{spec: spec, service: service, consumers: consumers, lanes: make([]lane, len(counts))}
	for i := range p.lanes {
		p.lanes[i].calls.Most, p.lanes[i].recent.Most, p.lanes[i].counts = spec.Calls, spec.Most, &counts[i]
	}
	return p
}

var (
	errInactive    = &core.Error{Status: 401, Reason: "token_inactive"}
	errUnavailable = &core.Error{Status: 503, Reason: "introspection_unavailable", Side: core.SideInternal}
)

// OnRequest lets a request pass whose token its issuer says to be active.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	token, otherwise := p.spec.Find(x)
	if token == nil {
		return otherwise
	}
	if !visible(token) {
		return p.spec.Refuse(x, core.ErrTokenMalformed)
	}
	a, d := &p.lanes[x.Worker.Loop.Index()], p.consumers.Directory()
	if a.directory != d {
		a.directory = d
		a.recent.Clear()
	}
	v, ok := a.recent.Find(token)
	if ok && x.Worker.Loop.Wall() < v.until {
		a.counts.Cached++
	} else {
		var err *core.Error
		if v, err = p.ask(x, a, string(token), d); err != nil {
			return p.unasked(x, a, err)
		}
	}
	if v.err != nil {
		return p.spec.RefuseGenuine(x, v.err, v.names)
	}
	if p.spec.Withdrawn(v.grant, x.Worker.Loop.Time()) {
		return p.spec.RefuseGenuine(x, core.ErrTokenRevoked, v.grant.Consumer)
	}
	p.spec.Pass(x, v.grant)
	return core.Continue
}

// Conceal takes a token out of a request that another policy has let pass, if it is hidden.
func (p *Policy) Conceal(x *core.Exchange) { p.spec.Conceal(x) }

// visible says whether a token is one: none has white space, controls, or bytes above (RFC 6749, A.12).
func visible(token []byte) bool {
	for _, c := range token {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

func (p *Policy) ask(x *core.Exchange, a *lane, token string, d *core.Directory) (*verdict, *core.Error) {
	answer, err := a.calls.Ask(x, token, func() core.Call[Answer] {
		a.counts.Asked++
		return p.service.Begin(token)
	})
	switch {
	case err == core.ErrCallsFull:
		a.counts.Busy++
		return nil, core.ErrTokenBusy
	case err == core.ErrInternal, err == nil && answer.Failed:
		a.counts.Failed++
		return nil, errUnavailable
	case err != nil:
		return nil, err
	}
	now := time.Unix(0, x.Worker.Loop.Wall())
	v := p.judge(answer.Claims, d, now)
	if v == nil {
		a.counts.Failed++
		return nil, errUnavailable
	}
	if a.directory == d && v.until > now.UnixNano() { // nothing has changed meanwhile
		bytes := 64
		if v.grant != nil {
			bytes += v.grant.Bytes()
		}
		a.recent.Put(token, v, bytes)
	}
	return v, nil
}

// judge says what an answer makes of the token. nil: it is no answer, since it does not say whether the token is active.
func (p *Policy) judge(claims core.Claims, d *core.Directory, now time.Time) *verdict {
	active, ok := claims["active"].(bool)
	if !ok {
		return nil
	}
	refused := func(err *core.Error) *verdict { return &verdict{err: err, until: now.Add(p.spec.Negative).UnixNano()} }
	if !active {
		return refused(errInactive)
	}
	refused = func(err *core.Error) *verdict {
		return &verdict{err: err, names: p.spec.Named(claims, d), until: now.Add(p.spec.Negative).UnixNano()}
	}
	exp, expires, ok := claims.Time("exp")
	nbf, begins, also := claims.Time("nbf")
	switch at := float64(now.Unix()); {
	case !ok || !also:
		return refused(core.ErrTokenClaims)
	case expires && exp <= at:
		return refused(core.ErrTokenExpired)
	case begins && nbf > at:
		return refused(core.ErrTokenEarly)
	}
	g, err := p.spec.Judge(claims, d)
	if err != nil {
		return refused(err)
	}
	v := &verdict{grant: g, until: now.Add(p.spec.TTL).UnixNano()}
	if expires {
		v.until = core.Until(v.until, exp, 0)
	}
	return v
}

// unasked is what becomes of a request whose token nobody has judged. It may pass, but as nobody's.
func (p *Policy) unasked(x *core.Exchange, a *lane, err *core.Error) core.Verdict {
	if p.spec.Allow && (err == errUnavailable || err == core.ErrTokenBusy) {
		a.counts.Passed++
		p.spec.Conceal(x)
		return core.Continue
	}
	return p.spec.Refuse(x, err)
}

// Counts are those of one loop. It is called there.
func (p *Policy) Counts(loop int) Counts { return *p.lanes[loop].counts }
