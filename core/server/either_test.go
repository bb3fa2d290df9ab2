package server

import (
	"net/http"
	"strings"
	"testing"
)

// TestAccessConditions judges tokens, methods and expressions behind the lists of consumers.
func TestAccessConditions(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
policies: { users: { jwt: { audience: api, jwks: "JWKS", tier: plan, groups: roles } } }
routes:
  - { match: /deny, use: [users, { access: { deny: { groups: b, consumers: banned } } }], to: a }
  - { match: /scopes, use: [users, { access: { scopes: [read, write] } }], to: a }
  - { match: /claims, use: [users, { access: { claims: { org: [x, y], roles: a } } }], to: a }
  - { match: /methods, use: [users, { access: { methods: [POST] } }], to: a }
  - { match: /all, use: [users, { access: { tiers: gold, scopes: read } }], to: a }
  - match: /when
    use: [users, { access: { when: 'consumer.tier == "gold" and "a" in consumer.groups and claim("org") != "" and path == "/when" and method in ["GET", "HEAD"] and header("X-Wanted") == "yes" and ip startsWith "127." and host != "x" and scheme == "http" and len(consumer.tags) == 0 and consumer.name == "user-1" and consumer.user == consumer.name and consumer.tenant == ""' } }]
    to: a
  - { match: /first, use: [users, { access: { when: 'consumer.tags[0] == "x"' } }], to: a }
  - { match: /open, use: [{ access: { when: 'header("X-Wanted") == "yes"' } }], to: a }
`))
	of := func(other map[string]any, more ...string) []string { return append(bearerOf(i.token(other)), more...) }
	judge(t, g.addr, []identityCase{
		{name: "group denied", path: "/deny", headers: of(nil), status: 403, reason: "access_denied"},
		{name: "group not denied", path: "/deny", headers: of(map[string]any{"roles": "a"}), status: 200},
		{name: "consumer denied", path: "/deny", headers: of(map[string]any{"roles": nil, "sub": "banned"}), status: 403, reason: "access_denied"},
		{name: "scopes", path: "/scopes", headers: of(nil), status: 200},
		{name: "scopes as a list", path: "/scopes", headers: of(map[string]any{"scope": nil, "scp": []string{"write", "read"}}), status: 200},
		{name: "a scope is missing", path: "/scopes", headers: of(map[string]any{"scope": "read writer"}), status: 403, reason: "access_scope"},
		{name: "claims", path: "/claims", headers: of(map[string]any{"org": "y"}), status: 200},
		{name: "no claim", path: "/claims", headers: of(nil), status: 403, reason: "access_claim"},
		{name: "a text with commas is no list", path: "/claims", headers: of(map[string]any{"org": "z,x"}), status: 403, reason: "access_claim"},
		{name: "an item of a list", path: "/claims", headers: of(map[string]any{"org": []string{"z", "x"}}), status: 200},
		{name: "method", path: "/methods", headers: of(nil), status: 403, reason: "access_method"},
		{name: "tier and scope", path: "/all", headers: of(nil), status: 200},
		{name: "tier without scope", path: "/all", headers: of(map[string]any{"scope": "write"}), status: 403, reason: "access_scope"},
		{name: "scope without tier", path: "/all", headers: of(map[string]any{"plan": "silver"}), status: 403, reason: "access_denied"},
		{name: "condition", path: "/when", headers: of(map[string]any{"org": "x"}, "X-Wanted: yes"), status: 200},
		{name: "a header twice", path: "/when", headers: of(map[string]any{"org": "x"}, "X-Wanted: yes", "X-Wanted: yes"), status: 403, reason: "access_condition"},
		{name: "no claim for the condition", path: "/when", headers: of(nil, "X-Wanted: yes"), status: 403, reason: "access_condition"},
		{name: "a condition that cannot be told", path: "/first", headers: of(nil), status: 403, reason: "access_condition"},
		{name: "a condition on nobody", path: "/open", headers: []string{"X-Wanted: yes"}, status: 200},
		{name: "not on nobody", path: "/open", status: 403, reason: "access_condition"},
	})
}

// TestEither lets pass who has a token or a key. Whatever the other credential is, right or wrong, it does not reach the upstream.
func TestEither(t *testing.T) {
	i := newTokenIssuer(t)
	text := strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "HASH" } }
policies: { either: { any: [{ jwt: { audience: api, jwks: "JWKS", headers: { X-User: sub } } }, { keyauth: { query: key, header: X-API-Key } }] } }
routes: [{ match: "/*", use: either, to: a }]
`)
	g := run(t, text)
	right, wrong := i.token(nil), i.token(map[string]any{"aud": "other"})
	key, bad := "X-Api-Key: "+acmeKey, "X-Api-Key: not-a-key-of-anybody"
	judge(t, g.addr, []identityCase{
		{name: "token", path: "/", headers: bearerOf(right), status: 200, sees: []string{"X-Consumer-Name: user-1\r\n", "X-User: user-1\r\n"}},
		{name: "key", path: "/", headers: []string{key, "X-User: root"}, status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}, hidden: []string{"x-user", "api-key"}},
		{name: "key in the query", path: "/?a=1&key=a%2Bkey/of=acme-1234", status: 200, sees: []string{"X-Consumer-Name: acme\r\n", "/?a=1 "}},
		{name: "both", path: "/", headers: append(bearerOf(right), key), status: 200, sees: []string{"X-Consumer-Name: user-1\r\n"}, hidden: []string{"api-key", "authorization"}},
		{name: "a wrong key beside", path: "/?key=b", headers: append(bearerOf(right), bad), status: 200, sees: []string{"X-Consumer-Name: user-1\r\n", "GET / "}, hidden: []string{"not-a-key"}},
		{name: "a wrong token beside", path: "/", headers: append(bearerOf(wrong), key), status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}, hidden: []string{"authorization"}},
		{name: "both wrong", path: "/", headers: append(bearerOf(wrong), bad), status: 401, reason: "token_audience", asks: "Bearer"},
		{name: "a wrong key", path: "/", headers: []string{bad}, status: 401, reason: "key_unknown", asks: "Bearer"},
		{name: "nothing", path: "/", status: 401, reason: "token_missing", asks: "Bearer"},
	})
	client := newH1Client(t)
	res, err := client.Get("http://" + g.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if asks := strings.Join(res.Header.Values("WWW-Authenticate"), "; "); !strings.Contains(asks, "Bearer") || !strings.Contains(asks, "ApiKey") {
		t.Errorf("asks for %q", asks)
	}
	req, _ := http.NewRequest("POST", "http://"+g.addr+"/", struct{ *strings.Reader }{strings.NewReader("body")})
	req.Header.Set("X-API-Key", acmeKey)
	res, err = client.Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	_ = res.Body.Close()
}
