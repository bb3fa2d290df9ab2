// Package oidc is the policy that has people log in with a provider (OpenID Connect Core 1.0, authorization code with PKCE, RFC 7636), and
// knows them afterwards by a session.
//
// A session is kept here, the browser has but its random id. To find one costs a loop neither a lock nor memory, and once it has ended no
// loop finds it any more. Where nodes share sessions, what is kept here are copies, good as long as it is heard what becomes of them (Shared).
// Whatever asks the provider, or where shared sessions are, is done beside the loop.
package oidc

import (
	"crypto/sha256"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says how people log in, and what becomes of what the provider says of them.
type Spec struct {
	core.Bearer        // whose Carrier is the session's cookie
	Name        string // of the policy
	ClientID    string
	Scopes      []string // that are asked for
	Callback    string   // paths
	Logout      string
	Backchannel string // "": none
	AfterLogout string // a path, or a URL
	Cookie      string // name of the session's
	Domain      string // of the session's cookie; "": the host alone
	Path        string
	SameSite    string // lax, none or strict
	Secure      bool
	Idle        time.Duration // after which a session that nobody uses has ended
	Lifetime    time.Duration // after which any has
	Calls       int           // questions to the provider under way at once, on each loop
	Allow       bool          // a session whose tokens cannot be refreshed, because the provider is away, goes on
	Grace       time.Duration // as long copies of shared sessions are good while it is not heard what becomes of them; 0: not at all
}

// Endpoints are the provider's that browsers are sent to.
type Endpoints struct{ Issuer, Authorization, EndSession string }

// Login is what a browser came back with, and what it must agree with.
type Login struct {
	Code, Verifier, Nonce, RedirectURI string
	Attempt                            [attemptBytes]byte // which is used once
	Until                              int64              // as long as it could be used again, as Unix time in nanoseconds
	Judge                              func(claims core.Claims) *core.Error
	Before                             *Session // that ends with it; nil: there is none
}

// Answer is what came of a question.
type Answer struct {
	Err *core.Error // nil: done
	ID  string      // of the session that has begun
	// Session is the one that was looked for; nil: there is none.
	Session *Session
}

// Provider is with whom people log in, and who keeps their sessions. Its functions run on a loop and do not wait; what Begin... prepare
// does.
type Provider interface {
	// Endpoints gives them as they are now; nil: they are not known yet.
	Endpoints() *Endpoints
	BeginLogin(l Login) core.Call[Answer]
	// BeginRefresh gets other tokens for a session, unless that has been done, and ends it if they are refused.
	BeginRefresh(s *Session) core.Call[Answer]
	// BeginLogout ends the sessions that a logout token names (OpenID Connect Back-Channel Logout 1.0).
	BeginLogout(token string) core.Call[Answer]
	// BeginFind looks for a session where nodes share them.
	BeginFind(hash [sha256.Size]byte) core.Call[Answer]
	// BeginEnd ends a session, on all nodes that share it.
	BeginEnd(s *Session) core.Call[Answer]
}

// Counts are what one loop has counted. Only that loop touches them.
type Counts struct {
	Begun     uint64 // browsers sent to the provider
	Done      uint64 // came back and have a session
	Refused   uint64 // came back and have none
	Denied    uint64 // requests without a session, that were no browser's
	Refreshed uint64
	Ended     uint64 // sessions that the provider did not refresh
	Failed    uint64 // questions to the provider without an answer
	Busy      uint64 // that were not asked, because of too many
	Logouts   uint64 // by people
	Told      uint64 // by the provider
	Looked    uint64 // shared sessions that were asked for
	Missed    uint64 // without an answer
	Crowded   uint64 // that were not, because of too many
	Forged    uint64 // ids that no node has made
	Alone     uint64 // requests with a copy that could not be asked for
}

// Policy is immutable but for the lanes, each of which only its loop touches.
type Policy struct {
	spec      Spec
	provider  Provider
	sessions  *Table
	shared    *Shared // nil: sessions are this node's
	sealer    *Sealer
	consumers *core.Consumers
	cookies   cookies
	lanes     []lane
}

type lane struct {
	calls   core.Calls[Answer]
	finds   core.Calls[Answer]
	lookups pace
	absent  absent
	counts  *Counts
}

// New gives the policy, for one loop for each of counts. Shared is nil where sessions are this node's alone.
func New(spec Spec, provider Provider, sessions *Table, shared *Shared, sealer *Sealer, consumers *core.Consumers, counts []Counts) *Policy {
	p := &Policy{spec: spec, provider: provider, sessions: sessions, shared: shared, sealer: sealer, consumers: consumers, cookies: newCookies(&spec), lanes: make([]lane, len(counts))}
	for i := range p.lanes {
		p.lanes[i].calls.Most, p.lanes[i].counts = spec.Calls, &counts[i]
		p.lanes[i].finds.Most, p.lanes[i].lookups = findsAtOnce, newPace(lookupsPerSecond/len(counts))
	}
	return p
}

// What people and programs are refused for.
var (
	errRequired  = &core.Error{Status: 401, Reason: "login_required"}
	errAmbiguous = &core.Error{Status: 403, Reason: "session_ambiguous", Detail: "several cookies of the session"}
	errClaims    = &core.Error{Status: 403, Reason: "login_claims"}
	errBusy      = &core.Error{Status: 503, Reason: "provider_busy", Side: core.SideInternal}
	errMethod    = &core.Error{Status: 405, Reason: "method_not_allowed"}
)

// What a provider's answer is refused for.
var (
	// ErrUnavailable is the answer of a provider that gives none.
	ErrUnavailable = &core.Error{Status: 503, Reason: "provider_unavailable", Side: core.SideInternal}
	// ErrCode says that the provider does not know the code, or that it was used.
	ErrCode = &core.Error{Status: 401, Reason: "login_code"}
	// ErrReplayed says that a login was finished before.
	ErrReplayed = &core.Error{Status: 401, Reason: "login_replayed"}
	// ErrNonce, ErrIssuer, ErrAudience and ErrSubject say that an ID token is of another login, provider, client or person.
	ErrNonce    = &core.Error{Status: 401, Reason: "id_token_nonce"}
	ErrIssuer   = &core.Error{Status: 401, Reason: "id_token_issuer"}
	ErrAudience = &core.Error{Status: 401, Reason: "id_token_audience"}
	ErrSubject  = &core.Error{Status: 401, Reason: "id_token_subject"}
	// ErrHash says that an ID token is not of the access token that came with it.
	ErrHash = &core.Error{Status: 401, Reason: "id_token_at_hash"}
	// ErrLogoutToken says that what a provider tells of a logout proves nothing. Its status is that of OpenID Connect Back-Channel Logout 1.0, 2.8.
	ErrLogoutToken = &core.Error{Status: 400, Reason: "logout_token"}
	// ErrEnded says that a session has ended because the provider does not refresh it.
	ErrEnded = &core.Error{Status: 401, Reason: "session_ended"}
)

// cookieRealm is what a program is told that has no session.
const cookieRealm = `Cookie realm="sluice"`

// OnRequest lets a request pass that has a session, and has whoever has none log in.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	a := &p.lanes[x.Worker.Loop.Index()]
	v, stranger := p.pass(x, a)
	if stranger {
		return p.begin(x, a)
	}
	return v
}

// Member is the policy as one of several of which any lets a request pass: who has no session is only refused, until none of them has let him
// pass.
type Member struct{ *Policy }

// OnRequest lets a request pass that has a session.
func (m Member) OnRequest(x *core.Exchange) core.Verdict {
	v, stranger := m.pass(x, &m.lanes[x.Worker.Loop.Index()])
	if stranger {
		return m.refuse(x, errRequired)
	}
	return v
}

// Begin has whoever is a browser log in; false: it is none, or has just come back and was refused, and nothing has been answered.
func (m Member) Begin(x *core.Exchange) bool {
	a := &m.lanes[x.Worker.Loop.Index()]
	if string(x.Request.Path) == m.spec.Callback {
		return false
	}
	if !isNavigation(x) {
		a.counts.Denied++
		return false
	}
	m.begin(x, a)
	return true
}

// Conceal takes the cookies of sessions and logins out of a request that another policy has let pass.
func (m Member) Conceal(x *core.Exchange) {
	m.spec.Conceal(x)
	m.cookies.conceal(&m.spec, x)
}

// pass lets a request pass that has a session, or answers it; stranger: it has none.
func (p *Policy) pass(x *core.Exchange, a *lane) (v core.Verdict, stranger bool) {
	for i := range p.spec.Headers {
		x.Request.RemoveLike(p.spec.Headers[i].Header)
	}
	switch path := x.Request.Path; {
	case string(path) == p.spec.Callback:
		return p.callback(x, a), false
	case string(path) == p.spec.Logout:
		return p.logout(x, a), false
	case p.spec.Backchannel != "" && string(path) == p.spec.Backchannel:
		return p.backchannel(x, a), false
	}
	s, err := p.find(x, a)
	if err != nil {
		return p.refuse(x, err), false
	}
	if s == nil {
		return core.Respond, true
	}
	if at := s.state.Load().Refresh; at != 0 && x.Worker.Loop.Time() >= at {
		if err := p.refresh(x, a, s); err != nil {
			return p.refuse(x, err), false
		}
		if s.Ended() {
			return core.Respond, true
		}
	}
	g, err := p.grant(s)
	if err != nil {
		return p.refuse(x, err), false
	}
	p.cookies.conceal(&p.spec, x)
	p.spec.Pass(x, g)
	return core.Continue, false
}

// find gives the session of a request; nil: it has none that counts.
func (p *Policy) find(x *core.Exchange, a *lane) (*Session, *core.Error) {
	id, n := p.spec.Carrier.Find(&x.Request)
	switch {
	case n == 0:
		return nil, nil
	case n > 1:
		return nil, errAmbiguous // of which one could be somebody else's, set for the whole domain
	}
	hash, ok := HashID(id)
	if !ok {
		return nil, nil
	}
	if p.shared != nil {
		return p.findShared(x, a, id, hash)
	}
	s := p.sessions.Find(hash)
	if s == nil || !s.use(x.Worker.Loop.Time(), int64(p.spec.Idle)) {
		return nil, nil
	}
	return s, nil
}

// grant gives what a session is good for: what was found before, as long as neither the session, nor the consumers, nor this policy have
// changed.
func (p *Policy) grant(s *Session) (*core.Grant, *core.Error) {
	d, state := p.consumers.Directory(), s.state.Load()
	if j := s.judged.Load(); j != nil && j.by == p && j.directory == d && j.of == state {
		return j.grant, j.err
	}
	j := &judged{by: p, directory: d, of: state}
	if j.grant, j.err = p.spec.Judge(state.Claims, d); j.err != nil {
		j.err = unfit(j.err)
	}
	s.judged.Store(j)
	return j.grant, j.err
}

// unfit is why somebody who has logged in may not pass: to log in again would not help him.
func unfit(err *core.Error) *core.Error {
	if err.Status == 401 {
		return errClaims
	}
	return err
}

// judge says whether claims would let anybody pass.
func (p *Policy) judge(claims core.Claims) *core.Error {
	if _, err := p.spec.Judge(claims, p.consumers.Directory()); err != nil {
		return unfit(err)
	}
	return nil
}

// refresh gets other tokens for a session, once for all who wait for them.
func (p *Policy) refresh(x *core.Exchange, a *lane, s *Session) *core.Error {
	err := p.ask(x, a, string(s.hash[:]), func() core.Call[Answer] { return p.provider.BeginRefresh(s) }, nil)
	switch {
	case err == nil:
		a.counts.Refreshed++
	case s.Ended():
		a.counts.Ended++
		return nil
	case p.spec.Grace > 0 && err == ErrStore: // nobody else can refresh it, either
		return nil
	case p.spec.Allow && (err == ErrUnavailable || err == errBusy):
		return nil
	}
	return err
}

// ask puts a question to the provider. Those who ask under the same key, unless it is empty, wait for one answer.
func (p *Policy) ask(x *core.Exchange, a *lane, key string, begin func() core.Call[Answer], to *Answer) *core.Error {
	answer, err := a.calls.Ask(x, key, begin)
	switch {
	case err == core.ErrCallsFull:
		a.counts.Busy++
		return errBusy
	case err == core.ErrInternal, err == nil && answer.Err == ErrUnavailable:
		a.counts.Failed++
		return ErrUnavailable
	case err != nil:
		return err
	}
	if to != nil {
		*to = answer
	}
	return answer.Err
}

// refuse fails x. Whoever may log in is told so.
func (p *Policy) refuse(x *core.Exchange, err *core.Error) core.Verdict {
	if err.Status == 401 {
		return x.Challenge(err, cookieRealm)
	}
	x.Fail(err)
	return core.Respond
}

// Counts are those of one loop. It is called there.
func (p *Policy) Counts(loop int) Counts { return *p.lanes[loop].counts }
