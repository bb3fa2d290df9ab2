package compile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// provider is with whom people log in, as it describes itself (OpenID Connect Discovery 1.0). Its description is fetched ahead of need, on
// a goroutine of its own, and so are its keys. While it is away the last that was good stays in force. Any goroutine may use it.
type provider struct {
	*service
	background
	issuer  string
	current atomic.Pointer[description]
	log     *slog.Logger

	mu       sync.Mutex
	problem  string
	failures uint64
}

// description is what is known of a provider. Immutable.
type description struct {
	browsers        oidc.Endpoints
	token, userInfo *url.URL // userInfo nil: none
	keys            *KeySource
	text            []byte // that it was read from
}

const providerEvery = time.Hour // between descriptions, at most

var errDescription = errors.New("this describes no provider")

func newProvider(issuer string, s *service) *provider { return &provider{service: s, issuer: issuer} }

func (p *provider) start(log *slog.Logger) {
	p.log = log
	if d := p.current.Load(); d != nil { // of the process before
		d.keys.start(log.With("jwks", d.keys.Place))
	}
	p.begin(p.run)
}

func (p *provider) stop() {
	p.background.stop()
	if d := p.current.Load(); d != nil {
		d.keys.stop()
	}
}

// run fetches until ctx ends.
func (p *provider) run(ctx context.Context) {
	for failures := 0; ; {
		life, err := p.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			life = min(keysRetry<<min(failures, 10), keysRetryMost)
			if failures++; failures == 1 {
				p.log.Warn("a provider of logins cannot be asked for its description: the one known stays in force", "error", err)
			}
		case failures > 0:
			p.log.Info("the provider describes itself again")
			failures = 0
		}
		p.note(err)
		t := time.NewTimer(life)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (p *provider) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem = ""; err != nil {
		p.problem = err.Error()
		p.failures++
	}
}

// fetch gets the description and puts it in force.
func (p *provider) fetch(ctx context.Context) (life time.Duration, err error) {
	place := strings.TrimSuffix(p.issuer, "/") + "/.well-known/openid-configuration"
	to, err := url.Parse(place)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	r := &http.Request{Method: http.MethodGet, URL: to, Host: to.Host, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Accept": {"application/json"}, "User-Agent": {"sluice"}}}
	a, body, whole, err := p.do(ctx, r, nil)
	if err != nil {
		return 0, err
	}
	if a.StatusCode != http.StatusOK || !whole {
		return 0, fmt.Errorf("cannot read %q: status %d, or more than %d bytes", place, a.StatusCode, serviceBodyBytes)
	}
	claims, ok := core.ReadClaims(body)
	if !ok {
		return 0, fmt.Errorf("cannot read %q: %w", place, errDescription)
	}
	d, keys, err := p.read(claims)
	if err != nil {
		return 0, fmt.Errorf("cannot use %q: %w", place, err)
	}
	d.text = body
	before := p.current.Load()
	if before != nil && before.keys.Place == keys {
		d.keys = before.keys
		p.current.Store(d)
	} else {
		d.keys = p.keysAt(keys)
		if err := d.keys.fetch(ctx); err != nil { // a description without keys lets nobody in
			return 0, err
		}
		d.keys.start(p.log.With("jwks", keys))
		p.current.Store(d)
		if before != nil {
			before.keys.stop()
		}
	}
	return min(max(lifetime(a.Header.Get("Cache-Control"), a.Header.Get("Age")), keysDefault), providerEvery), nil
}

// keysAt makes a source of keys that is asked as the provider is.
func (p *provider) keysAt(place string) *KeySource {
	s := newKeySource(place)
	s.client = &service{timeout: keysTimeout, bodyBytes: keysBytes, transport: p.transport, encrypted: p.encrypted}
	return s
}

// read takes a description apart. It must be the issuer's own (Discovery, 4.3), and lead nowhere where others listen.
func (p *provider) read(claims core.Claims) (d *description, keys string, err error) {
	if s, _ := claims["issuer"].(string); s != p.issuer {
		return nil, "", fmt.Errorf("it describes %q", s)
	}
	place := func(name string, needed bool) *url.URL {
		s, given := claims[name].(string)
		u, failed := url.Parse(s)
		switch {
		case !given && claims[name] == nil && !needed:
			return nil
		case failed != nil || len(s) > maxEndpointBytes || u.Host == "" || u.User != nil || u.Fragment != "" || !private(u):
			err = errors.Join(err, fmt.Errorf("%q is no place for %s", s, name))
			return nil
		}
		return u
	}
	d = &description{token: place("token_endpoint", true), userInfo: place("userinfo_endpoint", false)}
	d.browsers.Issuer = p.issuer
	if u := place("authorization_endpoint", true); u != nil {
		d.browsers.Authorization = u.String()
	}
	if u := place("end_session_endpoint", false); u != nil {
		d.browsers.EndSession = u.String()
	}
	if u := place("jwks_uri", true); u != nil {
		keys = u.String()
	}
	return d, keys, err
}

const maxEndpointBytes = 2048

// private says whether nobody on the way can read what is sent there.
func private(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && err == nil && a.IsLoopback()
}

// Current gives the keys that it signs with, as they are now.
func (p *provider) Current() *jwt.KeySet {
	if d := p.current.Load(); d != nil {
		return d.keys.Current()
	}
	return &jwt.KeySet{}
}

// Refresh asks for others.
func (p *provider) Refresh(have *jwt.KeySet, issuer string) *jwt.KeySet {
	if d := p.current.Load(); d != nil {
		return d.keys.Refresh(have, issuer)
	}
	return have
}

// provider gives the one of an issuer: the one in force if it is asked in the same way.
func (r *Registry) provider(c *Compiled, issuer string, s *service) *provider {
	if p := c.providers[s]; p != nil {
		return p
	}
	p := r.providers[s]
	if p == nil {
		p = newProvider(issuer, s)
	}
	c.providers[s] = p
	return p
}

// putProviders starts the providers of c that are new, and ends those that it has not.
func (r *Registry) putProviders(c *Compiled) {
	replace(&r.closing, r.providers, c.providers, func(p *provider) { p.start(r.log.With("issuer", p.issuer)) })
	r.providers = c.providers
}
