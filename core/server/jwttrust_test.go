package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

func bearerOf(token string) []string { return []string{"Authorization: Bearer " + token} }

// discovered makes the keys of i be found by discovery. It gives the issuer's name; claimed, if it is not "", is the one that it
// claims to be.
func (i *tokenIssuer) discovered(claimed string) string {
	var name string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/openid-configuration" {
			http.NotFound(w, r)
			return
		}
		if claimed == "" {
			claimed = name
		}
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, claimed, i.url)
	}))
	i.t.Cleanup(s.Close)
	name = s.URL
	return name
}

// TestJWTTrust: the keys of one issuer are for no other's tokens, wherever they come from; type, and the key's name in a claim.
func TestJWTTrust(t *testing.T) {
	one, two := newTokenIssuer(t), newTokenIssuer(t)
	first, second, liar := one.discovered(""), two.discovered(""), two.discovered("https://other.test")
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "FIRST", first, "SECOND", second, "LIAR", liar, "JWKS", one.url).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
policies:
  several: { jwt: { issuers: { "FIRST": discover, "https://two.test": "JWKS" }, audience: api } }
  both: { jwt: { issuer: ["FIRST", "SECOND"], jwks: discover } }
  liar: { jwt: { issuer: "LIAR", jwks: discover } }
  typed: { jwt: { audience: api, jwks: "JWKS", typ: [at+jwt, application/x] } }
  named: { jwt: { audience: api, jwks: "JWKS", key_claim: azp, cache: 0 } }
  strict: { jwt: { audience: api, jwks: "JWKS", run_on_preflight: true } }
routes:
  - { match: /several, use: several, to: a }
  - { match: /both, use: both, to: a }
  - { match: /liar, use: liar, to: a }
  - { match: /typed, use: typed, to: a }
  - { match: /named, use: named, to: a }
`))
	of := func(i *tokenIssuer, name string) []string { return bearerOf(i.token(map[string]any{"iss": name})) }
	typed := func(head string) []string { return bearerOf(one.sign("RS256", head, claimsWith(nil))) }
	named := func(azp any) []string {
		return bearerOf(one.sign("RS256", `{"alg":"RS256"}`, claimsWith(map[string]any{"azp": azp})))
	}
	judge(t, g.addr, []identityCase{
		{name: "its key, found", path: "/several", headers: of(one, first), status: 200},
		{name: "its key, given", path: "/several", headers: of(one, "https://two.test"), status: 200},
		{name: "another's key", path: "/several", headers: of(two, first), status: 401, reason: "token_signature", asks: "Bearer"},
		{name: "an issuer that is not trusted", path: "/several", headers: of(one, "https://id.test"), status: 401, reason: "token_key_unknown", asks: "Bearer"},
		{name: "first of two", path: "/both", headers: of(one, first), status: 200},
		{name: "second of two", path: "/both", headers: of(two, second), status: 200},
		{name: "the first's key for the second's token", path: "/both", headers: of(one, second), status: 401, reason: "token_signature", asks: "Bearer"},
		{name: "the second's key for the first's token", path: "/both", headers: of(two, first), status: 401, reason: "token_signature", asks: "Bearer"},
		{name: "who claims to be another", path: "/liar", headers: of(two, liar), status: 503, reason: "token_keys_unavailable"},
		{name: "type", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r","typ":"AT+jwt"}`), status: 200},
		{name: "type as media type", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r","typ":"application/at+jwt"}`), status: 200},
		{name: "the other", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r","typ":"x"}`), status: 200},
		{name: "no type", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r"}`), status: 401, reason: "token_type", asks: "Bearer"},
		{name: "another type", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r","typ":"JWT"}`), status: 401, reason: "token_type", asks: "Bearer"},
		{name: "a type that is none", path: "/typed", headers: typed(`{"alg":"RS256","kid":"r","typ":["at+jwt"]}`), status: 401, reason: "token_malformed", asks: "Bearer"},
		{name: "a key named by a claim", path: "/named", headers: named("r"), status: 200},
		{name: "a key of another algorithm", path: "/named", headers: named("e"), status: 401, reason: "token_algorithm", asks: "Bearer"},
		{name: "no such key", path: "/named", headers: named("x"), status: 401, reason: "token_key_unknown", asks: "Bearer"},
		{name: "no key named", path: "/named", headers: named(nil), status: 401, reason: "token_key_unknown", asks: "Bearer"},
		{name: "a claim that is no name", path: "/named", headers: named(7), status: 401, reason: "token_key_unknown", asks: "Bearer"},
	})
}

// TestJWTPreflight: what a browser asks before a page's request bears no token, and passes as nobody's unless the configuration wants
// one. What only looks like it does not.
func TestJWTPreflight(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: UPSTREAM }
routes:
  - { match: /lax, use: [{ jwt: { audience: api, jwks: "JWKS", headers: { X-User: sub } } }], to: a }
  - { match: /strict, use: [{ jwt: { audience: api, jwks: "JWKS", run_on_preflight: true } }], to: a }
  - { match: /member, use: [{ jwt: { audience: api, jwks: "JWKS" } }, { access: { groups: x } }], to: a }
`))
	client := newH1Client(t)
	f := func(method, path string, want int, lines ...string) {
		t.Helper()
		req, _ := http.NewRequest(method, "http://"+g.addr+path, nil)
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			req.Header[name] = append(req.Header[name], value)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s %s %q: %d, want %d", method, path, lines, res.StatusCode, want)
		}
	}
	origin, asked := "Origin: https://shop.example", "Access-Control-Request-Method: DELETE"
	f("OPTIONS", "/lax", 200, origin, asked, "X-User: root")
	f("OPTIONS", "/lax", 401, origin)
	f("OPTIONS", "/lax", 401, asked)
	f("GET", "/lax", 401, origin, asked)
	f("OPTIONS", "/lax", 401, origin, asked, "X-HTTP-Method-Override: DELETE")
	f("OPTIONS", "/lax", 401, origin, asked, "x_http_method_override: DELETE")
	f("OPTIONS", "/lax", 401, origin, asked, "Authorization: Bearer x")
	f("OPTIONS", "/strict", 401, origin, asked)
	f("OPTIONS", "/member", 403, origin, asked)
}

// TestTokensRevoked: a token that was verified before is refused from the moment at which it is revoked, over reloads, until it is
// restored; of a subject, those that were issued before.
func TestTokensRevoked(t *testing.T) {
	i := newTokenIssuer(t)
	config := strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url).Replace(`
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
routes: [{ match: "/*", use: [{ jwt: { audience: api, jwks: "JWKS" } }], to: a }]
`)
	g := run(t, config)
	past := time.Now().Unix() - 5
	a := bearerOf(i.token(map[string]any{"jti": "token-a", "iat": past}))
	b := bearerOf(i.token(map[string]any{"jti": "token-b", "iat": past}))
	other := bearerOf(i.token(map[string]any{"sub": "user-2", "iat": past}))
	undated := bearerOf(i.token(map[string]any{"iat": nil}))
	f := func(when string, want int, tokens ...[]string) {
		t.Helper()
		for n, token := range tokens {
			c := identityCase{name: fmt.Sprint(when, ", token ", n+1), path: "/", headers: token, status: want}
			if want == 401 {
				c.reason, c.asks = "token_revoked", `Bearer realm="sluice", error="invalid_token"`
			}
			judge(t, g.addr, []identityCase{c})
		}
	}
	change := func(c admin.ChangeTokens) {
		t.Helper()
		if err := g.admin.ChangeTokens(c); err != nil {
			t.Fatal(err)
		}
	}
	f("before", 200, a, b, other, undated)
	change(admin.ChangeTokens{Change: "revoke", Kind: "jti", Values: []string{"token-a", "token-x"}})
	f("one revoked", 401, a)
	f("one revoked, the others", 200, b, other, undated)
	change(admin.ChangeTokens{Change: "revoke", Kind: "sub", Values: []string{"user-1"}, For: time.Hour})
	f("a subject", 401, a, b, undated)
	f("another subject", 200, other)
	f("issued since", 200, bearerOf(i.token(map[string]any{"jti": "token-c", "iat": time.Now().Unix() + 2})))
	g.write(config + "drain: 1s\n")
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	f("after a reload", 401, a, b)
	if all, err := g.admin.Revocations(); err != nil || len(all) != 3 || all[0].Kind != "sub" || all[0].Value != "user-1" {
		t.Errorf("%+v, %v", all, err)
	}
	change(admin.ChangeTokens{Change: "restore", Kind: "sub", Values: []string{"user-1"}})
	f("restored", 200, b, undated)
	f("the one that was not", 401, a)
	for _, wrong := range []admin.ChangeTokens{{Change: "revoke", Kind: "iss", Values: []string{"x"}}, {Change: "drop", Kind: "jti", Values: []string{"x"}},
		{Change: "revoke", Kind: "jti", Values: []string{"y", ""}}, {Change: "revoke", Kind: "jti", Values: []string{"x"}, For: -1}} {
		if err := g.admin.ChangeTokens(wrong); err == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
	if all, err := g.admin.Revocations(); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}
