package server

import (
	"net/http"
	"strings"
	"testing"
)

// TestEitherAll: one way of several may be policies that all must let pass. Of a way that was not the right one nothing is left, neither what
// it has found out nor what it has changed.
func TestEitherAll(t *testing.T) {
	i := newTokenIssuer(t)
	text := strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: off }
identity: { headers: on }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c], real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] } } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "HASH" } }
routes:
  - match: /jwt-ip
    use: [{ any: [{ all: [{ jwt: { audience: api, jwks: "JWKS", tier: plan, roles: roles, headers: { X-User: sub } } }, { ip: { allow: 10.0.0.0/8 } }] }, { keyauth: { header: X-API-Key, query: key } }] }]
    to: a
  - match: /ip-jwt
    use: [{ any: [{ all: [{ ip: { allow: 10.0.0.0/8 } }, { jwt: { audience: api, jwks: "JWKS", query: token, cookie: token, header: Authorization } }] }, { keyauth: on }] }]
    to: a
  - match: /again
    use: [{ any: [{ all: [{ jwt: { audience: api, jwks: "JWKS", query: token, cookie: token, header: Authorization, headers: { X-Way: sub } } }, { access: { scopes: admin } }] },
        { all: [{ keyauth: on }, { jwt: { audience: api, jwks: "JWKS", query: token, cookie: token, header: Authorization } }] }] }]
    to: a
  - match: /claims
    use: [{ any: [{ all: [{ jwt: { audience: api, jwks: "JWKS" } }, { ip: { allow: 10.0.0.0/8 } }] }, { keyauth: on }] }, { access: { scopes: read } }]
    to: a
  - match: /nobody
    use: [{ any: [{ all: [{ keyauth: on }, { access: { methods: POST } }] }, { jwt: { audience: api, jwks: "JWKS" } }] }]
    to: a
  - match: /last
    use: [{ keyauth: { optional: true } }, { any: [{ mtls: on }, { all: [{ jwt: { audience: api, jwks: "JWKS" } }, { access: { methods: POST } }] }] }]
    to: a
`)
	g := run(t, text)
	token, wrong := i.token(nil), i.token(map[string]any{"aud": "other"})
	bearer := func(text string, more ...string) []string { return append(bearerOf(text), more...) }
	const key, bad = "X-Api-Key: " + acmeKey, "X-Api-Key: not-a-key-of-anybody"
	const inside, outside = "X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 192.0.2.1"
	forged := []string{"X-User: root", "x_user: root", "X-User-Id: root", "X-User-Roles: root", "X-Consumer-Tier: root"}
	judge(t, g.addr, []identityCase{
		{name: "all of them", path: "/jwt-ip", headers: bearer(token, append(forged, inside)...), status: 200, hidden: []string{"root", "authorization"},
			sees: []string{"X-Consumer-Name: user-1\r\n", "X-User: user-1\r\n", "X-User-Roles: a,b\r\n", "X-Consumer-Tier: gold\r\n"}},
		{name: "the other way", path: "/jwt-ip", headers: append(forged, outside, key), status: 200, hidden: []string{"root", "x-user", "api-key", "tier"}, sees: []string{"X-Consumer-Name: acme\r\n"}},
		{name: "half of one and the other", path: "/jwt-ip", headers: bearer(token, append(forged, outside, key)...), status: 200,
			hidden: []string{"root", "x-user", "user-1", "tier", "authorization", "api-key"}, sees: []string{"X-Consumer-Name: acme\r\n"}},
		{name: "both", path: "/jwt-ip?a=b&key=x", headers: bearer(token, inside, key), status: 200, hidden: []string{"api-key", "authorization"}, sees: []string{"X-Consumer-Name: user-1\r\n", "/jwt-ip?a=b "}},
		{name: "half of one", path: "/jwt-ip", headers: bearer(token, outside), status: 403, reason: "address_denied"},
		{name: "half of one, a wrong key", path: "/jwt-ip", headers: bearer(token, outside, bad), status: 403, reason: "address_denied"},
		{name: "a wrong token, a wrong key", path: "/jwt-ip", headers: bearer(wrong, inside, bad), status: 401, reason: "token_audience", asks: "Bearer"},
		{name: "a wrong key", path: "/jwt-ip", headers: []string{inside, bad}, status: 401, reason: "key_unknown", asks: "Bearer"},
		{name: "nothing", path: "/jwt-ip", headers: []string{inside}, status: 401, reason: "token_missing", asks: "Bearer"},
		{name: "the address first", path: "/ip-jwt", headers: bearer(token, inside), status: 200, sees: []string{"X-Consumer-Name: user-1\r\n"}, hidden: []string{"authorization"}},
		{name: "not the address: asked for what would do", path: "/ip-jwt", headers: bearer(token, outside), status: 401, reason: "key_missing", asks: "ApiKey"},
		{name: "not the address, a key", path: "/ip-jwt?token=x&b=c", headers: bearer(token, outside, key, "Cookie: token=x; d=e"), status: 200,
			sees: []string{"X-Consumer-Name: acme\r\n", "/ip-jwt?b=c ", "Cookie: d=e\r\n"}, hidden: []string{"authorization", "token"}},
		{name: "not the address, a wrong key", path: "/ip-jwt", headers: []string{outside, bad}, status: 401, reason: "key_unknown", asks: "ApiKey"},
		{name: "a credential that two ways want", path: "/again", headers: bearer(token, key), status: 200, sees: []string{"X-Consumer-Name: user-1\r\n"}, hidden: []string{"authorization", "x-way", "api-key"}},
		{name: "in the query", path: "/again?token=" + token + "&b=c", headers: []string{key}, status: 200, sees: []string{"X-Consumer-Name: user-1\r\n", "/again?b=c "}, hidden: []string{"x-way", "token"}},
		{name: "in a cookie", path: "/again", headers: []string{key, "Cookie: token=" + token + "; b=c"}, status: 200, sees: []string{"X-Consumer-Name: user-1\r\n", "Cookie: b=c\r\n"}, hidden: []string{"x-way", "token"}},
		{name: "in a cookie alone", path: "/again", headers: []string{key, "Cookie: token=" + token}, status: 200, sees: []string{"X-Consumer-Name: user-1\r\n"}, hidden: []string{"x-way", "cookie"}},
		{name: "enough for the first way", path: "/again", headers: bearer(i.token(map[string]any{"scope": "admin"}), key), status: 200, sees: []string{"X-Way: user-1\r\n"}, hidden: []string{"authorization", "api-key"}},
		{name: "not enough for either", path: "/again", headers: bearer(token), status: 403, reason: "access_scope"},
		{name: "claims of a way that was not it", path: "/claims", headers: bearer(token, outside, key), status: 403, reason: "access_scope"},
		{name: "claims of the way that was", path: "/claims", headers: bearer(token, inside), status: 200},
		{name: "a token that names nobody", path: "/nobody", headers: bearer(i.token(map[string]any{"sub": nil}), key), status: 200, hidden: []string{"consumer", "acme", "api-key"}},
		{name: "a certificate, or what is asked for last", path: "/last", headers: bearer(token, key), status: 403, reason: "access_method"},
		{name: "neither", path: "/last", headers: []string{key}, status: 403, reason: "client_cert_required"},
	})
}

// TestEitherAllLogs: the log has who was refused, of the way whose refusal is sent.
func TestEitherAllLogs(t *testing.T) {
	lines := t.TempDir() + "/access.log"
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "LINES", lines, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: LINES }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "HASH" }, beta: { basic: { ann: "`+argonHash("right")+`" } } }
routes: [{ match: "/*", use: [{ any: [{ basic: on }, { all: [{ keyauth: on }, { access: { methods: POST } }] }] }], to: a }]
`))
	req, _ := http.NewRequest("GET", "http://"+g.addr+"/", nil)
	req.Header.Set("X-API-Key", acmeKey)
	if res, body := roundTrip(t, newH1Client(t).Transport, req); res.StatusCode != 403 || !strings.Contains(body, "access_method") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if log := logLines(t, lines, 1); !strings.Contains(log, `"consumer":"acme"`) || !strings.Contains(log, `"reason":"access_method"`) {
		t.Errorf("it is logged as %s", log)
	}
}

// TestEitherAllLogin: a browser is sent to log in where that is what it lacks, and nowhere else, so that none goes in a circle.
func TestEitherAllLogin(t *testing.T) {
	p := newLoginProvider(t)
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	oidc := `oidc: { issuer: "` + p.server.URL + `", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false }, headers: { X-User: sub }, roles: roles }`
	g := run(t, strings.Replace(strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), `bind: "127.0.0.1:0"`,
		`bind: "127.0.0.1:0"`+"\n    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }", 1), "routes: [{ match: \"/*\", to: a }]\n", `consumers: { robot: { keys: ["`+keyHash("k3y-of-a-robot-that-is-long")+`"] } }
policies:
  people: { any: [{ all: [{ ip: { allow: 10.0.0.0/8 } }, { `+oidc+` }, { access: { roles: a } }] }, { keyauth: { header: X-Key } }] }
routes: [{ match: "/*", use: people, to: a }]
`, 1))
	g.eventually("the provider is known", func() bool {
		all, err := g.admin.Sessions()
		return err == nil && len(all) == 1 && all[0].Known
	})
	const inside, outside = "X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 192.0.2.1"
	b := newBrowser(t, g.addr)
	b.want("a login", "/deep", 200, "X-User: ann\r\n", inside)
	b.want("its session", "/", 200, "X-User: ann\r\n", inside, "Accept: application/json")
	b.want("from elsewhere", "/", 401, "key_missing", outside)
	stranger := newBrowser(t, g.addr)
	if res, _ := stranger.get("/", true, outside); res.StatusCode != 401 || !strings.Contains(res.Header.Get("WWW-Authenticate"), "ApiKey") {
		t.Errorf("a stranger from elsewhere: %d %v", res.StatusCode, res.Header)
	}
	if res, _ := stranger.get("/", true, inside); res.StatusCode != 302 {
		t.Errorf("a stranger: %d", res.StatusCode)
	}
	body := b.want("a key from elsewhere", "/", 200, "X-Consumer-Name: robot\r\n", outside, "X-Key: k3y-of-a-robot-that-is-long", "X-User: root")
	if strings.Contains(body, "session=") || strings.Contains(body, "root") {
		t.Errorf("the upstream has got what is not for it:\n%s", body)
	}
	p.set(func() { p.claims = map[string]any{"roles": "b"} })
	other := newBrowser(t, g.addr)
	other.want("another role", "/", 403, "access_denied", inside)
	body = other.want("another role, a key", "/", 200, "X-Consumer-Name: robot\r\n", inside, "X-Key: k3y-of-a-robot-that-is-long")
	if strings.Contains(body, "ann") || strings.Contains(body, "session=") {
		t.Errorf("the upstream has got what is not for it:\n%s", body)
	}
	p.set(func() { p.claims = map[string]any{"nonce": "x"} })
	res, body := newBrowser(t, g.addr).get("/", false, inside) // which the client keeps while it is redirected
	if res.StatusCode != 401 || !strings.Contains(body, "id_token_nonce") {
		t.Errorf("who comes back and is refused is not sent away again: %d %s", res.StatusCode, body)
	}
}
