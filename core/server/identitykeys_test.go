package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// kid is the key by which a request of a user of its own is signed for.
func (v *tokenVerifier) kid(client *http.Client, i *tokenIssuer, addr, user string) string {
	v.t.Helper()
	a, status, body := v.ask(client, "http://"+addr+"/token", "Authorization: Bearer "+i.token(map[string]any{"sub": user}))
	kid, _ := a.Head["kid"].(string)
	if status != 200 || kid == "" || a.Claims["sub"] != user {
		v.t.Errorf("%s: %d, %s", user, status, body)
	}
	return kid
}

// TestIdentityUsers: of many users on few connections each is told of by his own token, also while keys change. Names that would end where
// another begins are among them.
func TestIdentityUsers(t *testing.T) {
	i := newTokenIssuer(t)
	v := newTokenVerifier(t, "api")
	g := newGate(t, identityTokenConfig(v, i, "rotate: 10m, claims: [consumer, groups, email]"))
	v.use(g.addr)
	type user struct{ bearer, sub, email, groups string }
	var users []user
	for n := range 60 {
		u := user{sub: fmt.Sprint("u", n), email: strings.Repeat("m", n%7)}
		var groups []string
		for k := range n % 4 {
			groups = append(groups, fmt.Sprint("g", k+n%3))
		}
		if n%5 == 4 {
			u.sub, u.email = fmt.Sprintf(`u%d","email":"%s`, n, u.email), u.email+`"`
		}
		b, _ := json.Marshal(groups)
		u.groups = string(b)
		u.bearer = i.token(map[string]any{"sub": u.sub, "email": u.email, "roles": groups})
		users = append(users, u)
	}
	keys := g.state.Load().compiled.IdentityKeys()
	before := keys.Status(time.Now())
	var wg sync.WaitGroup
	var asked, rotations atomic.Int64
	half := make(chan struct{})
	for w := range 8 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: patience}
			defer client.CloseIdleConnections()
			for n := range 240 {
				u := users[(n*(2*w+1)+w)%len(users)]
				a, status, body := v.ask(client, "http://"+g.addr+"/token", "Authorization: Bearer "+u.bearer)
				groups, _ := json.Marshal(a.Claims["groups"])
				email, _ := a.Claims["email"].(string)
				if status != 200 || a.Claims["sub"] != u.sub || a.Claims["consumer"] != u.sub || email != u.email || string(groups) != u.groups {
					t.Errorf("%+v is told of as %s", u, body)
					return
				}
				if asked.Add(1) == 900 {
					close(half)
				}
			}
		})
	}
	wg.Go(func() {
		select {
		case <-half:
		case <-time.After(patience):
			return // the others say why
		}
		// The time at which the next key signs: what has been signed and is kept stays good.
		if _, err := keys.Rotate(before[1].From); err != nil {
			t.Error(err)
		}
		rotations.Add(1)
	})
	wg.Wait()
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	if kid := v.kid(client, i, g.addr, "late"); rotations.Load() != 1 || kid != before[1].ID {
		t.Errorf("%d rotations, %q signs, want %q", rotations.Load(), kid, before[1].ID)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failures.Load() > 0 || v.fetches != 1 || v.kids[before[0].ID] == 0 {
		t.Errorf("%d failures, %d fetches, keys %v", v.failures.Load(), v.fetches, v.kids)
	}
}

// TestIdentityReload: keys and tokens stay over a reload that says the same; another algorithm's key is published before it signs.
func TestIdentityReload(t *testing.T) {
	i := newTokenIssuer(t)
	v := newTokenVerifier(t, "api")
	text := identityTokenConfig(v, i, "jti: true")
	g := run(t, text)
	v.use(g.addr)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: patience} // of one loop
	defer client.CloseIdleConnections()
	reload := func(text string) {
		t.Helper()
		g.write(text)
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
	}
	id := func() any {
		a, _, _ := v.ask(client, "http://"+g.addr+"/key", "X-Api-Key: "+acmeKey)
		return a.Claims["jti"]
	}
	first, kid := id(), v.kid(client, i, g.addr, "a")
	reload(text + "drain: 7s\n")
	if again := id(); again != first || first == nil {
		t.Errorf("another token after a reload: %v, %v", first, again)
	}
	reload(strings.Replace(text, "jti: true", "jti: true, algorithm: EdDSA", 1))
	if now := v.kid(client, i, g.addr, "b"); now != kid {
		t.Errorf("%q signs, and nobody knows it yet", now)
	}
	keys, err := g.admin.SigningKeys()
	if err != nil || len(keys) != 2 || keys[0].ID != kid || keys[1].Algorithm != "EdDSA" || time.Until(keys[1].Since) < 5*time.Minute {
		t.Errorf("%+v, %v", keys, err)
	}
	reload(strings.NewReplacer("token: {", "x: {", "respond: jwks", "respond: {}").Replace(strings.Replace(text, ", token: { issuer: \"https://gateway.test\", jti: true }", "", 1)))
	if a, status, body := v.ask(client, "http://"+g.addr+"/key", "X-Api-Key: "+acmeKey); status != 200 || a.Claims != nil {
		t.Errorf("a token that is not configured: %d, %s", status, body)
	}
	if keys, err := g.admin.SigningKeys(); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v", keys, err)
	}
}

// TestIdentityKeysMove: who takes over signs with the same keys, random or shared; state that cannot be is left out, and nothing that is
// secret is logged or shown.
func TestIdentityKeysMove(t *testing.T) {
	i := newTokenIssuer(t)
	v := newTokenVerifier(t, "api")
	const secret = "a-secret-that-nodes-share-of-32-bytes"
	t.Setenv("SLUICE_TEST_SECRET", secret)
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	text := identityTokenConfig(v, i, "lifetime: 2m")
	old, next := newGate(t, text), newGate(t, text)
	v.use(old.addr)
	kid := v.kid(client, i, old.addr, "a")
	if keys := next.signingKeysStatus(); keys[0].ID == kid || keys[1].ID == kid {
		t.Error("two gateways have the same random key")
	}
	parts := partsOf(t, old)
	for n := range parts {
		if parts[n].Name != "identity-keys" {
			continue
		}
		whole := parts[n].Body
		before, _ := next.state.Load().compiled.IdentityKeys().Current()
		for _, damaged := range []string{"{", "{}", strings.Replace(string(whole), `"private":"`, `"private":"AAAA`, 1), strings.Replace(string(whole), "ES256", "none", 1)} {
			if err := next.restoreIdentityKeys(next.state.Load().compiled, []byte(damaged)); err == nil || strings.Contains(err.Error(), "asn1") {
				t.Errorf("%s: %v", damaged, err)
			}
		}
		if after, _ := next.state.Load().compiled.IdentityKeys().Current(); after != before {
			t.Error("damaged state is taken")
		}
	}
	next.restoreState(next.state.Load().compiled, parts)
	if now := v.kid(client, i, next.addr, "b"); now != kid || v.failures.Load() > 0 {
		t.Errorf("%q signs, not %q; %d failures", now, kid, v.failures.Load())
	}
	a, _ := old.state.Load().compiled.IdentityKeys().Current()
	if b, _ := next.state.Load().compiled.IdentityKeys().Current(); a != b {
		t.Errorf("published are\n%s\nand\n%s", a, b)
	}
	shared := identityTokenConfig(v, i, "secret: env:SLUICE_TEST_SECRET")
	one, two := newGate(t, shared), newGate(t, shared)
	v.mu.Lock()
	v.until = time.Time{}
	v.mu.Unlock()
	v.use(one.addr)
	if v.kid(client, i, one.addr, "c") != v.kid(client, i, two.addr, "d") || v.failures.Load() > 0 {
		t.Error("nodes with one secret do not share keys")
	}
	for _, g := range []*gate{old, next, one, two} {
		if log := g.Server.options.Stderr.(*journal).String(); strings.Contains(log, secret) || strings.Contains(log, "private") {
			t.Errorf("the log tells of keys: %s", log)
		}
		if shown := string(g.state.Load().compiled.Config.Dump()); strings.Contains(shown, secret) {
			t.Error("the configuration shows the secret")
		}
	}
}

// TestIdentityMirror: a mirror gets a token of its own, which is of no use at the upstream that it copies.
func TestIdentityMirror(t *testing.T) {
	i := newTokenIssuer(t)
	v, copies := newTokenVerifier(t, "api"), newTokenVerifier(t, "copies")
	text := strings.NewReplacer("upstreams: {", "upstreams: { copies: \""+copies.addr+"\",", "/key, use", "/key, mirror: copies, use").Replace(identityTokenConfig(v, i, ""))
	if _, problems := config.Parse("sluice.yaml", []byte(text), config.Env{}); problems.Refused() {
		t.Fatal(problems)
	}
	g := newGate(t, text)
	v.use(g.addr)
	copies.use(g.addr)
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	if a, status, body := v.ask(client, "http://"+g.addr+"/key", "X-Api-Key: "+acmeKey); status != 200 || a.Claims["aud"] != "api" {
		t.Errorf("%d, %s", status, body)
	}
	eventually(t, "the mirror has verified its token", func() bool {
		copies.mu.Lock()
		defer copies.mu.Unlock()
		return len(copies.kids) == 1 || copies.failures.Load() > 0
	})
	if n := copies.failures.Load(); n > 0 {
		t.Errorf("%d tokens were of no use to the mirror", n)
	}
}
