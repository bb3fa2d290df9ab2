package server

import (
	"strings"
	"testing"
)

// TestCredentialScheme: the word before a credential is a setting, for tokens and keys alike, in every header that carries one; without it there
// is no credential, and what is hidden is hidden with it.
func TestCredentialScheme(t *testing.T) {
	i := newTokenIssuer(t)
	introspector := newIntrospector(t)
	t.Setenv("SLUICE_TEST_SECRET", "s3 &cret")
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "KEY", keyHash(acmeKey), "INTROSPECT", introspector.url).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "KEY" } }
routes:
  - { match: /stripe, use: [{ keyauth: { header: Authorization, scheme: Bearer } }], to: a }
  - { match: /key, use: [{ keyauth: { header: Authorization } }], to: a }
  - { match: /both, use: [{ jwt: { audience: api, jwks: "JWKS", header: [X-Token, Authorization], scheme: Bearer } }], to: a }
  - { match: /bare, use: [{ jwt: { audience: api, jwks: "JWKS", scheme: "" } }], to: a }
  - { match: /asked, use: [{ introspect: { url: "INTROSPECT", client: { id: "a:b", secret: "env:SLUICE_TEST_SECRET" }, header: X-Token, scheme: Token } }], to: a }
`))
	right := i.token(nil)
	missing := func(name, path, line, reason string) identityCase {
		return identityCase{name: name, path: path, headers: []string{line}, status: 401, reason: reason, asks: " "}
	}
	cases := []identityCase{
		{name: "a key as a bearer's", path: "/stripe", headers: []string{"Authorization: Bearer " + acmeKey}, status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}, hidden: []string{"authorization"}},
		{name: "scheme in lower case", path: "/stripe", headers: []string{"Authorization: bearer  " + acmeKey}, status: 200},
		missing("a key alone", "/stripe", "Authorization: "+acmeKey, "key_missing"),
		missing("a key by another scheme", "/stripe", "Authorization: Token "+acmeKey, "key_missing"),
		{name: "a key alone, where nothing is set", path: "/key", headers: []string{"Authorization: " + acmeKey}, status: 200},
		missing("a key with a scheme, where nothing is set", "/key", "Authorization: Bearer "+acmeKey, "key_unknown"),
		{name: "a token", path: "/both", headers: []string{"Authorization: Bearer " + right}, status: 200, hidden: []string{"authorization"}},
		{name: "a token in the other", path: "/both", headers: []string{"X-Token: Bearer " + right}, status: 200, hidden: []string{"x-token"}},
		missing("a token alone in the other", "/both", "X-Token: "+right, "token_missing"),
		missing("a longer scheme", "/both", "X-Token: Bearers "+right, "token_missing"),
		{name: "a token alone", path: "/bare", headers: []string{"Authorization: " + right}, status: 200, hidden: []string{"authorization"}},
		missing("a token with a scheme", "/bare", "Authorization: Bearer "+right, "token_malformed"),
		{name: "a token that is asked about", path: "/asked", headers: []string{"X-Token: Token good-ann"}, status: 200, sees: []string{"X-Consumer-Name: ann\r\n"}},
		missing("one alone", "/asked", "X-Token: good-ann", "token_missing"),
	}
	for n := range cases {
		if cases[n].asks == " " {
			cases[n].asks = map[bool]string{true: "ApiKey", false: "Bearer"}[strings.HasPrefix(cases[n].reason, "key")]
		}
	}
	judge(t, g.addr, cases)
}
