package compile

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// logins makes the policy of kind oidc.
func logins(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	o := p.OIDC
	s, err := r.service(c, p.Pos, "oidc", &o.Service)
	if err != nil {
		return core.Step{}, err
	}
	q := &relying{provider: r.provider(c, o.URL, s), refreshes: o.Refresh, asksUser: o.User, life: int64(o.Life), patient: o.OnError == "allow"}
	if q.client, err = newClientProof(o.Client); err != nil {
		return core.Step{}, err
	}
	if q.sessions, err = r.sessionsOf(c, o, name); err != nil {
		return core.Step{}, err
	}
	q.tokens = jwt.New(jwt.Spec{Leeway: idTokenLeeway}, q.provider, nil, 0)
	loops := max(len(r.workers), 1)
	b := r.bearer(c, &o.Bearer)
	b.Carrier = core.Carrier{Cookies: []string{o.Cookie.Name}}
	spec := oidc.Spec{Bearer: b, Name: name, ClientID: o.Client.ID, Scopes: o.Ask, Callback: o.Paths.Callback, Logout: o.Paths.Logout, Backchannel: o.Paths.Backchannel,
		AfterLogout: o.Paths.AfterLogout, Cookie: o.Cookie.Name, Domain: o.Cookie.Domain, Path: o.Cookie.Path, SameSite: o.Cookie.SameSite, Secure: o.Cookie.Secure,
		Idle: o.Idle, Lifetime: o.Life, Calls: share(o.Calls, loops), Allow: q.patient, Grace: o.Sessions.Grace}
	counts := r.loginCounts[name]
	if counts == nil {
		counts = make([]oidc.Counts, loops)
	}
	c.loginCounts[name] = counts
	policy := oidc.New(spec, q, q.sessions.table, q.sessions.standing(), q.sessions.sealer, c.consumers.directory, counts)
	c.Logins = append(c.Logins, Logins{name, policy, o.URL, q.sessions, q.provider})
	return core.Step{Writes: told(&o.Bearer), Request: policy}, nil
}

const (
	idTokenLeeway = 30 * time.Second
	// defaultRefresh is when tokens are refreshed of which the provider does not say how long they last.
	defaultRefresh = 5 * time.Minute
	// refreshAgain is when tokens are refreshed that could not be, where the session goes on without.
	refreshAgain = 10 * time.Second
	maxExpiresIn = 365 * 24 * 3600
	// logoutTokenLife is how old a logout token may be, whatever it says.
	logoutTokenLife = 10 * time.Minute
	maxLogoutID     = 256
)

// relying asks the provider of one policy, and keeps its sessions.
type relying struct {
	*provider
	*sessions
	client    *clientProof
	tokens    *jwt.Policy
	refreshes bool
	asksUser  bool
	patient   bool
	life      int64
}

// Endpoints gives the provider's as they are now.
func (q *relying) Endpoints() *oidc.Endpoints {
	if d := q.current.Load(); d != nil {
		return &d.browsers
	}
	return nil
}

// finish makes a call of what is finished also when nobody waits any more: a code or a token that was used must not be lost.
func (q *relying) finish(do func(ctx context.Context, now time.Time) oidc.Answer) core.Call[oidc.Answer] {
	return core.Call[oidc.Answer]{Cancel: func() {}, Do: func() oidc.Answer {
		ctx, cancel := context.WithTimeout(context.Background(), q.timeout)
		defer cancel()
		return do(ctx, time.Now())
	}}
}

// BeginLogin prepares the exchange of a code for tokens.
func (q *relying) BeginLogin(l oidc.Login) core.Call[oidc.Answer] {
	return q.finish(func(ctx context.Context, now time.Time) oidc.Answer {
		id, err := q.login(ctx, &l, now)
		return oidc.Answer{ID: id, Err: err}
	})
}

func (q *relying) login(ctx context.Context, l *oidc.Login, now time.Time) (id string, failed *core.Error) {
	t, err := q.ask(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {l.Code}, "redirect_uri": {l.RedirectURI}, "code_verifier": {l.Verifier}})
	if err == oidc.ErrEnded {
		err = oidc.ErrCode
	}
	if err != nil {
		return "", err
	}
	claims, err := q.verify(t, now)
	if err != nil {
		return "", err
	}
	if nonce, _ := claims["nonce"].(string); subtle.ConstantTimeCompare([]byte(nonce), []byte(l.Nonce)) != 1 {
		return "", oidc.ErrNonce
	}
	if claims, err = q.withUser(ctx, claims, t); err != nil {
		return "", err
	}
	if err := l.Judge(claims); err != nil {
		return "", err
	}
	// The provider takes no code twice. Should it do so, this does not. Only logins that were right are remembered, so that nobody can fill
	// the memory without one; past its bound the provider's word counts.
	if first, full := q.used.Use("login", string(l.Attempt[:]), l.Until, now.UnixNano()); !first && !full {
		return "", oidc.ErrReplayed
	}
	return q.enter(ctx, l, claims, t, now)
}

// enter begins a session, and ends the one before.
func (q *relying) enter(ctx context.Context, l *oidc.Login, claims core.Claims, t *tokenAnswer, now time.Time) (id string, failed *core.Error) {
	state := &oidc.State{Claims: claims, IDToken: t.id, RefreshToken: t.refresh, Nonce: l.Nonce, Refresh: q.next(t, now)}
	if q.shared != nil {
		id = q.shared.Marker.NewID()
	} else {
		id = oidc.NewID()
	}
	hash, _ := oidc.HashID([]byte(id))
	subject, _ := claims["sub"].(string)
	providerID, _ := claims["sid"].(string)
	at := now.UnixNano()
	one := oidc.NewSession(hash, subject, providerID, state, at, at+q.life)
	if q.shared == nil {
		if l.Before != nil {
			l.Before.End()
		}
		q.put(one, at)
		return id, nil
	}
	first, err := q.shared.records.Once(ctx, "login:"+hex.EncodeToString(l.Attempt[:]), time.Until(time.Unix(0, l.Until)))
	switch {
	case err == nil && !first:
		return "", oidc.ErrReplayed
	case err == nil:
		err = q.share(ctx, one, at) // before the browser is told: it may ask another node next
	}
	if err != nil {
		q.log.Warn("a session cannot be shared", "error", err)
		return "", oidc.ErrStore
	}
	if l.Before != nil {
		_, _ = q.revoke(ctx, ending{hash: l.Before.Hash(), at: at}) // what others cannot be told now they are told later
	}
	return id, nil
}

// next is when tokens are to be refreshed: when four fifths of their time have passed.
func (q *relying) next(t *tokenAnswer, now time.Time) int64 {
	if !q.refreshes || t.refresh == "" {
		return 0
	}
	return now.Add(t.life * 4 / 5).UnixNano()
}

// BeginRefresh prepares the exchange of a refresh token, once for all loops.
func (q *relying) BeginRefresh(s *oidc.Session) core.Call[oidc.Answer] {
	return q.finish(func(ctx context.Context, now time.Time) oidc.Answer {
		hash := s.Hash()
		answer, ok := q.refresh.do(ctx, string(hash[:]), func() oidc.Answer {
			if q.shared != nil {
				return oidc.Answer{Err: q.renewShared(ctx, s)}
			}
			return oidc.Answer{Err: q.renew(ctx, s, now)}
		})
		if !ok {
			answer.Err = oidc.ErrUnavailable
		}
		return answer
	})
}

func (q *relying) renew(ctx context.Context, s *oidc.Session, now time.Time) *core.Error {
	before := s.State()
	if s.Ended() || now.UnixNano() < before.Refresh {
		return nil // somebody else has done it
	}
	t, err := q.ask(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {before.RefreshToken}})
	after := *before
	if err == nil {
		err = q.renewed(ctx, &after, t, now)
	}
	switch {
	case err == nil:
		s.SetState(&after)
	case err == oidc.ErrUnavailable && q.patient:
		after = *before
		after.Refresh = now.Add(refreshAgain).UnixNano()
		s.SetState(&after)
	case err != oidc.ErrUnavailable:
		s.End()
	}
	return err
}

// renewed puts what came into a state. An ID token, if there is one, is of the same person (OpenID Connect Core, 12.2).
func (q *relying) renewed(ctx context.Context, to *oidc.State, t *tokenAnswer, now time.Time) *core.Error {
	claims := to.Claims
	if t.id != "" {
		var err *core.Error
		if claims, err = q.verify(t, now); err != nil {
			return err
		}
		if nonce, given := claims["nonce"]; given && nonce != to.Nonce {
			return oidc.ErrNonce
		}
		if claims["sub"] != to.Claims["sub"] {
			return oidc.ErrSubject
		}
		to.IDToken = t.id
	}
	claims, err := q.withUser(ctx, claims, t)
	if err != nil {
		return err
	}
	if t.refresh == "" {
		t.refresh = to.RefreshToken
	}
	to.Claims, to.RefreshToken, to.Refresh = claims, t.refresh, q.next(t, now)
	return nil
}

// tokenAnswer is what a token endpoint gives (RFC 6749, 5.1).
type tokenAnswer struct {
	id, access, refresh string
	life                time.Duration
}

// ask puts a form to the token endpoint. ErrEnded says that it was refused because of what was shown.
func (q *relying) ask(ctx context.Context, form url.Values) (*tokenAnswer, *core.Error) {
	d := q.current.Load()
	if d == nil {
		return nil, oidc.ErrUnavailable
	}
	r, err := q.client.post(d.token, d.token.String(), form)
	if err != nil {
		return nil, oidc.ErrUnavailable
	}
	a, body, whole, err := q.do(ctx, r, nil)
	if err != nil || !whole {
		return nil, oidc.ErrUnavailable
	}
	claims, ok := core.ReadClaims(body)
	if a.StatusCode == http.StatusBadRequest && ok && claims["error"] == "invalid_grant" {
		return nil, oidc.ErrEnded
	}
	if a.StatusCode != http.StatusOK || !ok {
		what, _ := claims["error"].(string)
		q.log.Warn("a provider of logins gives no tokens", "status", a.StatusCode, "error", what[:min(len(what), 64)])
		return nil, oidc.ErrUnavailable
	}
	t := &tokenAnswer{life: defaultRefresh}
	for name, to := range map[string]*string{"id_token": &t.id, "access_token": &t.access, "refresh_token": &t.refresh} {
		if *to, ok = claims[name].(string); !ok && claims[name] != nil || len(*to) > core.MaxTokenBytes {
			return nil, oidc.ErrUnavailable
		}
	}
	if kind, _ := claims["token_type"].(string); !strings.EqualFold(kind, "Bearer") || t.access == "" {
		return nil, oidc.ErrUnavailable
	}
	if seconds, given, ok := claims.Time("expires_in"); given && ok && seconds <= maxExpiresIn {
		t.life = time.Duration(seconds * float64(time.Second))
	}
	return t, nil
}

// verify gives the claims of an ID token that is for us (OpenID Connect Core, 3.1.3.7).
func (q *relying) verify(t *tokenAnswer, now time.Time) (core.Claims, *core.Error) {
	claims, alg, err := q.tokens.Verify(t.id, now)
	if err != nil {
		return nil, err
	}
	if err := q.ours(claims); err != nil {
		return nil, err
	}
	if subject, ok := claims["sub"].(string); !ok || subject == "" || len(subject) > 255 {
		return nil, oidc.ErrSubject
	}
	if claims["iat"] == nil {
		return nil, core.ErrTokenMalformed
	}
	if want, given := claims["at_hash"]; given && want != atHash(alg, t.access) {
		return nil, oidc.ErrHash
	}
	return claims, nil
}

// ours says whether a token is of this provider, for this client.
func (q *relying) ours(claims core.Claims) *core.Error {
	if claims["iss"] != q.issuer {
		return oidc.ErrIssuer
	}
	audience, several := claims["aud"].([]any)
	azp, party := claims["azp"]
	switch {
	case several && !slices.Contains(audience, any(q.client.ID)), !several && claims["aud"] != q.client.ID:
		return oidc.ErrAudience
	case len(audience) > 1 && !party, party && azp != q.client.ID:
		return oidc.ErrAudience
	}
	return nil
}

// atHash is the half of an access token's hash that stands in its ID token (OpenID Connect Core, 3.1.3.6), by the hash of the signature.
func atHash(alg, access string) string {
	var sum []byte
	switch {
	case strings.HasSuffix(alg, "256"):
		h := sha256.Sum256([]byte(access))
		sum = h[:]
	case strings.HasSuffix(alg, "384"):
		h := sha512.Sum384([]byte(access))
		sum = h[:]
	default:
		h := sha512.Sum512([]byte(access))
		sum = h[:]
	}
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// withUser adds what the userinfo endpoint says of the same person (OpenID Connect Core, 5.3), if that is wanted. It replaces nothing that
// the ID token says.
func (q *relying) withUser(ctx context.Context, claims core.Claims, t *tokenAnswer) (core.Claims, *core.Error) {
	d := q.current.Load()
	if !q.asksUser {
		return claims, nil
	}
	if d.userInfo == nil {
		return nil, oidc.ErrUnavailable
	}
	r := &http.Request{Method: http.MethodGet, URL: d.userInfo, Host: d.userInfo.Host, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Authorization": {"Bearer " + t.access}, "Accept": {"application/json"}, "User-Agent": {"sluice"}}}
	a, body, whole, err := q.do(ctx, r, nil)
	if err != nil || !whole || a.StatusCode != http.StatusOK {
		return nil, oidc.ErrUnavailable
	}
	more, ok := core.ReadClaims(body)
	if !ok {
		return nil, oidc.ErrUnavailable
	}
	if more["sub"] != claims["sub"] {
		return nil, oidc.ErrSubject
	}
	for name, v := range claims {
		more[name] = v
	}
	return more, nil
}

// BeginLogout prepares the end of what a logout token names.
func (q *relying) BeginLogout(token string) core.Call[oidc.Answer] {
	return q.finish(func(ctx context.Context, now time.Time) oidc.Answer {
		return oidc.Answer{Err: q.logout(ctx, token, now)}
	})
}

// logout ends sessions (OpenID Connect Back-Channel Logout 1.0, 2.6). A token of another kind, or one that was used, ends none.
func (q *relying) logout(ctx context.Context, token string, now time.Time) *core.Error {
	claims, _, err := q.tokens.Verify(token, now)
	if err != nil {
		if err.Status == 503 {
			return oidc.ErrUnavailable
		}
		return oidc.ErrLogoutToken
	}
	events, _ := claims["events"].(map[string]any)
	_, told := events["http://schemas.openid.net/event/backchannel-logout"].(map[string]any)
	_, nonce := claims["nonce"]
	id, _ := claims["jti"].(string)
	subject, person := claims["sub"].(string)
	session, one := claims["sid"].(string)
	iat, _ := claims["iat"].(json.Number)
	at, failed := iat.Float64()
	old := failed != nil || float64(now.Unix())-at > logoutTokenLife.Seconds()
	if q.ours(claims) != nil || !told || nonce || id == "" || len(id) > maxLogoutID || old || !person && claims["sub"] != nil || !one && claims["sid"] != nil || !person && !one {
		return oidc.ErrLogoutToken
	}
	if first, full := q.used.Use("logout", id, now.Add(2*logoutTokenLife).UnixNano(), now.UnixNano()); !first && !full {
		return oidc.ErrLogoutToken
	}
	if q.shared != nil { // while Redis is away this node's memory must do
		sum := sha256.Sum256([]byte(id))
		if first, err := q.shared.records.Once(ctx, "logout:"+hex.EncodeToString(sum[:16]), 2*logoutTokenLife); err == nil && !first {
			return oidc.ErrLogoutToken
		}
	}
	match := func(s *oidc.Session) bool {
		return (!person || s.Subject == subject) && (!one || s.ProviderID == session)
	}
	if q.shared == nil {
		q.end(match)
		return nil
	}
	group := subjectGroup(subject)
	switch {
	case person && one:
		group = bothGroup(subject, session)
	case one:
		group = providerGroup(session)
	}
	// What cannot be told to others now they are told later.
	_, _ = q.revoke(ctx, ending{groups: q.shared.keys.groups(group), match: match, at: now.UnixNano()})
	return nil
}
