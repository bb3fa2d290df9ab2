package compile

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// tokenSource keeps a token with which requests to upstreams are authorized. It fetches the next one ahead of need, on a goroutine of its
// own, and outlives configurations as long as one of them wants the same. While the issuer is away the last token is used until it ends.
type tokenSource struct {
	oauthClient
	background
	scopes   []string
	audience string
	tokens   *upstream.Tokens
	wake     chan struct{} // a token was rejected; room for one
	tried    chan struct{} // closed when the first fetch is over
	fetches  atomic.Uint64
	failures atomic.Uint64
}

const (
	tokenDefault   = 5 * time.Minute  // of a token whose issuer does not say how long it is good
	tokenMost      = 24 * time.Hour   // that one is used, whatever its issuer says
	tokenFloor     = time.Second      // between fetches
	tokenRejected  = 10 * time.Second // between fetches because a token was rejected
	tokenRetry     = time.Second      // after the first failure; twice as long after each further
	tokenRetryMost = time.Minute
	maxTokenBytes  = 16 << 10
)

// authorizer gives what u asks for: with the source in force, or a new one, which begins to fetch when it is applied.
func (r *Registry) authorizer(c *Compiled, u *config.Upstream) (*upstream.Authorizer, error) {
	if u.Authorize == nil {
		return nil, nil
	}
	cc := u.Authorize.ClientCredentials
	refuse := func(err error) (*upstream.Authorizer, error) {
		return nil, fmt.Errorf("%s: upstream %q: %w", u.Authorize.Pos, u.Name, err)
	}
	s, err := r.service(c, u.Authorize.Pos, "client_credentials", &cc.Service)
	if err != nil {
		return refuse(err)
	}
	client, err := newOAuthClient(s, cc.URL, cc.Client)
	if err != nil {
		return refuse(err)
	}
	proof := sha256.Sum256([]byte(cc.Client.Secret.Reveal() + "\x00" + cc.Client.Key.Reveal()))
	key := fmt.Sprintf("%p %q %q %q %q %x %q %q", s, cc.URL, cc.Client.ID, cc.Client.Auth, cc.Client.KeyID, proof, cc.Scopes, cc.Audience)
	source := c.tokens[key]
	if source == nil {
		source = r.tokens[key]
	}
	if source == nil {
		source = &tokenSource{oauthClient: client, scopes: cc.Scopes, audience: cc.Audience, wake: make(chan struct{}, 1), tried: make(chan struct{})}
		source.tokens = upstream.NewTokens(func() {
			select {
			case source.wake <- struct{}{}:
			default: // it is awake
			}
		})
	}
	c.tokens[key] = source
	c.tokenOf[u.Name] = source
	return &upstream.Authorizer{Tokens: source.tokens, Allow: cc.OnError == "allow"}, nil
}

// putTokens starts the sources of c that are new, and ends those that it has not. It waits until each new one has a token or has failed to
// get one, which its timeout bounds.
func (r *Registry) putTokens(c *Compiled) {
	replace(&r.closing, r.tokens, c.tokens, func(s *tokenSource) { s.start(r.log.With("issuer", s.url)) })
	for _, s := range c.tokens {
		<-s.tried
	}
	r.tokens = c.tokens
}

func (s *tokenSource) start(log *slog.Logger) {
	s.begin(func(ctx context.Context) { s.run(ctx, log) })
}

// run fetches until ctx ends.
func (s *tokenSource) run(ctx context.Context, log *slog.Logger) {
	failures := 0
	for first := true; ctx.Err() == nil; first = false {
		life, err := s.fetch(ctx)
		if first {
			close(s.tried)
		}
		wait := max(life*4/5, tokenFloor)
		switch {
		case err != nil:
			wait = min(tokenRetry<<min(failures, 10), tokenRetryMost)
			if failures++; failures == 1 && ctx.Err() == nil {
				log.Warn("no token for an upstream can be fetched: the last one is used until it ends", "error", err)
			}
		case failures > 0:
			log.Info("tokens are fetched again")
			failures = 0
		}
		s.rest(ctx, wait)
	}
}

// rest waits for so long, or until a token was rejected, but then for as long as bounds how often that is heard.
func (s *tokenSource) rest(ctx context.Context, wait time.Duration) {
	began := time.Now()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-t.C:
		return
	case <-s.wake:
	}
	t.Reset(max(0, min(tokenRejected, wait)-time.Since(began)))
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// fetch gets a token and puts it in force; life is how long it is good.
func (s *tokenSource) fetch(ctx context.Context) (life time.Duration, err error) {
	s.fetches.Add(1)
	defer func() {
		if err != nil {
			s.failures.Add(1)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(s.scopes) > 0 {
		form.Set("scope", strings.Join(s.scopes, " "))
	}
	if s.audience != "" {
		form.Set("audience", s.audience)
	}
	began := time.Now()
	a, body, whole, err := s.post(ctx, form)
	switch {
	case err != nil:
		return 0, err
	case a.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("status %d", a.StatusCode)
	case !whole:
		return 0, errors.New("the answer is too long, or was cut off")
	}
	token, life, err := readToken(body)
	if err != nil {
		return 0, err
	}
	s.tokens.Put(token, began.Add(life).UnixNano())
	return life, nil
}

// readToken reads the answer of a token endpoint (RFC 6749, 5.1).
func readToken(body []byte) (token string, life time.Duration, err error) {
	var a struct {
		Token   string       `json:"access_token"`
		Type    string       `json:"token_type"`
		Expires *json.Number `json:"expires_in"` // some write it as a string
	}
	if json.Unmarshal(body, &a) != nil { // the cause could tell of the token
		return "", 0, errors.New("the answer is not what was asked for")
	}
	odd := strings.IndexFunc(a.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	switch {
	case !strings.EqualFold(a.Type, "Bearer"):
		return "", 0, errors.New("the token is no bearer token")
	case a.Token == "" || len(a.Token) > maxTokenBytes || odd >= 0:
		return "", 0, errors.New("the answer has no token that can stand in a field")
	case a.Expires == nil:
		return a.Token, tokenDefault, nil
	}
	seconds, err := a.Expires.Int64()
	if err != nil || seconds <= 0 {
		return "", 0, errors.New("the token has ended already")
	}
	return a.Token, min(time.Duration(min(seconds, int64(tokenMost/time.Second)))*time.Second, tokenMost), nil
}

// TokenFetches are how often a token for the upstream was asked for, and how often in vain; false: it needs none. It may be called from
// anywhere.
func (c *Compiled) TokenFetches(name string) (all, failed uint64, ok bool) {
	s := c.tokenOf[name]
	if s == nil {
		return 0, 0, false
	}
	return s.fetches.Load(), s.failures.Load(), true
}
