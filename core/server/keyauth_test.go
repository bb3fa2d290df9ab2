package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyNames: keys come under several names of a place. Different ones under two of them are refused, and all names are hidden.
func TestKeyNames(t *testing.T) {
	const names = "header: [X-Key, Api-Key], cookie: [key, k2], query: [api_key, key]"
	g := identityGate(t, map[string]string{
		"/names": "{ keyauth: { " + names + " } }",
		"/shown": "{ keyauth: { " + names + ", hide: false } }",
	}, "  acme: { keys: \""+keyHash(acmeKey)+"\" }\n")
	const inQuery = "a%2Bkey/of=acme-1234"
	acme := "X-Consumer-Name: acme\r\n"
	judge(t, g.addr, []identityCase{
		{name: "first header", path: "/names", headers: []string{"X-Key: " + acmeKey}, status: 200, sees: []string{acme}, hidden: []string{"x-key"}},
		{name: "second header", path: "/names", headers: []string{"api-key: " + acmeKey}, status: 200, sees: []string{acme}, hidden: []string{"api-key"}},
		{name: "the same in both", path: "/names", headers: []string{"Api-Key: " + acmeKey, "X-Key: " + acmeKey}, status: 200, sees: []string{acme}, hidden: []string{"-key"}},
		{name: "another in the second", path: "/names", headers: []string{"X-Key: " + acmeKey, "Api-Key: x"}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "another in the first", path: "/names", headers: []string{"X-Key: x", "Api-Key: " + acmeKey}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "the second twice", path: "/names", headers: []string{"Api-Key: " + acmeKey, "Api-Key: " + acmeKey}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "the second twice, and the first", path: "/names", headers: []string{"X-Key: " + acmeKey, "Api-Key: " + acmeKey, "Api-Key: " + acmeKey},
			status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "no such header", path: "/names", headers: []string{"X-API-Key: " + acmeKey}, status: 401, reason: "key_missing", asks: "ApiKey "},
		{name: "second cookie", path: "/names", headers: []string{"Cookie: a=1; k2=" + acmeKey}, status: 200, sees: []string{acme, "Cookie: a=1\r\n"}, hidden: []string{"k2", acmeKey}},
		{name: "the same in both cookies", path: "/names", headers: []string{"Cookie: k2=" + acmeKey + "; a=1; key=" + acmeKey + "; b=2"}, status: 200,
			sees: []string{acme, "a=1", "b=2"}, hidden: []string{"k2", "key=", acmeKey}},
		{name: "another in the second cookie", path: "/names", headers: []string{"Cookie: key=" + acmeKey + "; k2=x"}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "second argument", path: "/names?a=1&key=" + inQuery + "&b=2", status: 200, sees: []string{acme, "/names?a=1&b=2 HTTP"}},
		{name: "the same in both arguments", path: "/names?a=1&k%65y=" + inQuery + "&api_key=" + inQuery, status: 200, sees: []string{acme, "/names?a=1 HTTP"}},
		{name: "another in the second argument", path: "/names?api_key=" + inQuery + "&key=x", status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "all names are hidden", path: "/names?api_key=spare&key=spare2&c=3", headers: []string{"Api-Key: " + acmeKey, "x_key: spare", "API_KEY: spare",
			"Cookie: key=spare; k2=spare; a=1"}, status: 200, sees: []string{acme, "/names?c=3 HTTP", "a=1"}, hidden: []string{"spare"}},
		{name: "a header before a cookie", path: "/names", headers: []string{"Api-Key: x", "Cookie: key=" + acmeKey}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "a cookie before an argument", path: "/names?key=" + inQuery, headers: []string{"Cookie: k2=x"}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "shown", path: "/shown?key=x", headers: []string{"Api-Key: " + acmeKey, "Cookie: k2=y"}, status: 200, sees: []string{acme, acmeKey, "?key=x", "k2=y"}},
	})
}

// TestNamedArgumentsAreNotLogged: what stands in an argument that may carry a key is in no log, also where a header has the key that counts.
func TestNamedArgumentsAreNotLogged(t *testing.T) {
	lines := filepath.Join(t.TempDir(), "access.log")
	g := run(t, strings.NewReplacer("LINES", lines, "UPSTREAM", newMirror(t), "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: LINES }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "HASH" } }
routes: [{ match: "/*", use: [{ keyauth: { header: [X-Key, Api-Key], query: [key, k], hide: false } }], to: a }]
`))
	for i, headers := range []http.Header{{"X-Key": {acmeKey}}, {"X-Key": {acmeKey, "x"}}, {"X-Key": {"x"}, "Api-Key": {"y"}}} {
		req, err := http.NewRequest("GET", fmt.Sprintf("http://%s/?case=%d&k=spare", g.addr, i), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = headers
		if res, _ := roundTrip(t, http.DefaultTransport, req); res.StatusCode != []int{200, 401, 401}[i] {
			t.Errorf("case %d: %d", i, res.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if log := logLines(t, lines, 3); strings.Contains(log, "spare") || strings.Count(log, `"query":"***"`) != 3 {
		t.Errorf("the log:\n%s", log)
	}
}

// TestTokenNames: tokens come under several names too, with their scheme in Authorization alone.
func TestTokenNames(t *testing.T) {
	i := newTokenIssuer(t)
	g := identityGate(t, map[string]string{"/token": `{ jwt: { audience: api, jwks: "` + i.url + `", header: [Authorization, X-Token], cookie: [t, u] } }`}, "  acme: {}\n")
	token := i.token(nil)
	const asks = "Bearer "
	judge(t, g.addr, []identityCase{
		{name: "with its scheme", path: "/token", headers: []string{"Authorization: Bearer " + token}, status: 200, hidden: []string{token}},
		{name: "without", path: "/token", headers: []string{"X-Token: " + token}, status: 200, hidden: []string{token}},
		{name: "beside a password", path: "/token", headers: []string{"X-Token: " + token, "Authorization: Basic dTp4"}, status: 200, sees: []string{"Basic dTp4"}, hidden: []string{token}},
		{name: "under both", path: "/token", headers: []string{"X-Token: " + token, "Authorization: bearer " + token}, status: 200, hidden: []string{token}},
		{name: "two", path: "/token", headers: []string{"X-Token: x", "Authorization: Bearer " + token}, status: 401, reason: "token_ambiguous", asks: asks},
		{name: "the scheme where none is", path: "/token", headers: []string{"X-Token: Bearer " + token}, status: 401, reason: "token_malformed", asks: asks},
		{name: "second cookie", path: "/token", headers: []string{"Cookie: u=" + token}, status: 200, hidden: []string{token}},
	})
}
