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

const (
	liveKey = "acme_live_3fk2_q5Wn0xT7c1VbYz84"
	nextKey = "acme_live_9x.Lm3sD8kQpR2aZv61"
	testKey = "acme_test_1_Hj5tG7yB4nMw0eXc"
)

// TestKeyIDs: of two valid keys the log says which one was used, and so do conditions and the upstream's head. A key for something else is not
// looked up: the client hears what he hears of any wrong key, the log and the metrics have why.
func TestKeyIDs(t *testing.T) {
	lines := filepath.Join(t.TempDir(), "access.log")
	g := run(t, strings.NewReplacer("LINES", lines, "UPSTREAM", newMirror(t), "LIVE", keyHash(liveKey), "NEXT", keyHash(nextKey), "TEST", keyHash(testKey),
		"OTHER", keyHash("acme_live_aa_K8vF3xQ1uR9oPz27"), "PLAIN", keyHash(acmeKey)).Replace(`
access_log: { to: LINES }
identity: { headers: on }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers:
  acme: { keys: [{ id: acme_live_3fk2, key: "LIVE" }, { id: acme_live_9x, key: "NEXT" }, { id: acme_live_bb, key: "OTHER" }, "TEST", "PLAIN"] }
routes:
  - { match: /any, use: [{ keyauth: on }], to: a }
  - { match: /live, use: [{ keyauth: { prefix: [acme_eu_, acme_live_] } }], to: a }
  - { match: /optional, use: [{ keyauth: { prefix: acme_live_, optional: true } }], to: a }
  - { match: /next, use: [{ keyauth: on }, { access: { when: 'consumer.key_id == "acme_live_9x"' } }], to: a }
  - { match: /parts, use: [{ keyauth: on }, { access: { when: 'len(consumer.key_id) == 14' } }], to: a }
`))
	key := func(k string) []string {
		return []string{"X-API-Key: " + k, "X-Credential-Identifier: root", "x_credential_identifier: root"}
	}
	const asks, id = "ApiKey ", "X-Credential-Identifier: "
	unknown := "acme_live_3fk2_q5Wn0xT7c1VbYz85"
	cases := []identityCase{
		{name: "one", path: "/any", headers: key(liveKey), status: 200, sees: []string{id + "acme_live_3fk2\r\n", "X-Consumer-Name: acme\r\n"}, hidden: []string{"root", liveKey}},
		{name: "the next", path: "/any", headers: key(nextKey), status: 200, sees: []string{id + "acme_live_9x\r\n"}, hidden: []string{"root", nextKey}},
		{name: "without an id", path: "/any", headers: key(acmeKey), status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}, hidden: []string{"credential", "root"}},
		{name: "not its id", path: "/any", headers: key("acme_live_aa_K8vF3xQ1uR9oPz27"), status: 401, reason: "key_unknown", asks: asks},
		{name: "an id alone", path: "/any", headers: key("acme_live_3fk2"), status: 401, reason: "key_unknown", asks: asks},
		{name: "live", path: "/live", headers: key(liveKey), status: 200, sees: []string{id + "acme_live_3fk2\r\n"}},
		{name: "for tests", path: "/live", headers: key(testKey), status: 401, reason: "key_unknown", asks: asks},
		{name: "of any form", path: "/live", headers: key(acmeKey), status: 401, reason: "key_unknown", asks: asks},
		{name: "empty", path: "/live", headers: key(""), status: 401, reason: "key_unknown", asks: asks},
		{name: "wrong", path: "/live", headers: key(unknown), status: 401, reason: "key_unknown", asks: asks},
		{name: "none", path: "/optional", status: 200, hidden: []string{"consumer"}},
		{name: "optional, for tests", path: "/optional", headers: key(testKey), status: 401, reason: "key_unknown", asks: asks},
		{name: "by condition", path: "/next", headers: key(nextKey), status: 200},
		{name: "not by condition", path: "/next", headers: key(liveKey), status: 403, reason: "access_condition"},
		{name: "by a condition of the machine's", path: "/parts", headers: key(liveKey), status: 200},
	}
	judge(t, g.addr, cases)
	var told [2]string
	for i, k := range []string{testKey, unknown} { // byte for byte, but for what each answer has of its own
		req, err := http.NewRequest("GET", "http://"+g.addr+"/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", k)
		res, body := roundTrip(t, http.DefaultTransport, req)
		res.Header.Del("Date")
		res.Header.Del("X-Request-Id")
		told[i] = fmt.Sprint(res.StatusCode, res.Header, body)
	}
	http.DefaultClient.CloseIdleConnections()
	if told[0] != told[1] {
		t.Errorf("of a key for tests is told %s, of a wrong one %s", told[0], told[1])
	}
	call, err := http.NewRequest("POST", "http://"+g.addr+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	call.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "X-Api-Key": {testKey}}
	if res, _ := roundTrip(t, newH2Client(t).Transport, call); res.Header.Get("Grpc-Message") != "key_unknown" {
		t.Errorf("a call with a key for tests is told %v", res.Header)
	}
	metrics, err := g.admin.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for reason, n := range map[string]int{"key_prefix": 10, "key_unknown": 7} {
		if want := fmt.Sprintf("sluice_rejects_total{reason=%q,side=\"downstream\"} %d\n", reason, n); !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	log := logLines(t, lines, 2*len(cases)+3)
	for want, n := range map[string]int{`"consumer":"acme","key_id":"acme_live_3fk2"`: 8, `"consumer":"acme","key_id":"acme_live_9x"`: 4, `"key_id"`: 12,
		`"reason":"key_prefix"`: 10, `"reason":"key_unknown"`: 7, liveKey: 0, testKey: 0} {
		if strings.Count(log, want) != n {
			t.Errorf("the log has %s %d times, want %d:\n%s", want, strings.Count(log, want), n, log)
		}
	}
}
