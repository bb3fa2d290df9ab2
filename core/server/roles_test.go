package server

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// TestAccessDenied: whatever may let pass may deny: roles, scopes, claims and methods. What a token says that cannot be compared denies too.
func TestAccessDenied(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { groups: [partners], roles: [editor], keys: "HASH" } }
policies: { users: { jwt: { audience: api, jwks: "JWKS", groups: teams, roles: realm_access.roles } }, key: { keyauth: on } }
routes:
  - { match: /roles, use: [users, { access: { deny: { roles: [guest, banned] } } }], to: a }
  - { match: /role, use: [users, { access: { roles: [editor] } }], to: a }
  - { match: /group, use: [users, { access: { groups: [editor] } }], to: a }
  - { match: /scopes, use: [users, { access: { deny: { scopes: [admin, root] } } }], to: a }
  - { match: /claims, use: [users, { access: { deny: { claims: { org: [x, y], realm_access.region: eu } } } }], to: a }
  - { match: /methods, use: [{ access: { deny: { methods: [GET, TRACE] } } }], to: a }
  - { match: /deep, use: [users, { access: { claims: { realm_access.region: eu } } }], to: a }
  - { match: /when, use: [users, { access: { when: '"editor" in consumer.roles and len(consumer.roles) == 2' } }], to: a }
  - { match: /key, use: [key, { access: { roles: editor, methods: [GET] } }], to: a }
  - { match: /nokey, use: [key, { access: { deny: { roles: editor } } }], to: a }
`))
	of := func(other map[string]any) []string { return bearerOf(i.token(other)) }
	roles := func(v any) []string { return of(map[string]any{"realm_access": map[string]any{"roles": v}}) }
	key := []string{"X-API-Key: " + acmeKey}
	judge(t, g.addr, []identityCase{
		{name: "role denied", path: "/roles", headers: roles([]string{"editor", "guest"}), status: 403, reason: "access_denied"},
		{name: "role not denied", path: "/roles", headers: roles([]string{"editor"}), status: 200},
		{name: "no role", path: "/roles", headers: of(nil), status: 200},
		{name: "roles that are none", path: "/roles", headers: roles(7), status: 403, reason: "consumer_unknown"},
		{name: "a role that would be two", path: "/roles", headers: roles([]string{"a,b"}), status: 403, reason: "consumer_unknown"},
		{name: "role", path: "/role", headers: roles("viewer editor"), status: 200},
		{name: "another role", path: "/role", headers: roles([]string{"viewer"}), status: 403, reason: "access_denied"},
		{name: "a group is no role", path: "/role", headers: of(map[string]any{"teams": "editor"}), status: 403, reason: "access_denied"},
		{name: "a role is no group", path: "/group", headers: roles("editor"), status: 403, reason: "access_denied"},
		{name: "a claim of the whole name comes first", path: "/role", headers: of(map[string]any{"realm_access.roles": "viewer", "realm_access": map[string]any{"roles": "editor"}}),
			status: 403, reason: "access_denied"},
		{name: "nothing on the way", path: "/role", headers: of(map[string]any{"realm_access": "roles"}), status: 403, reason: "access_denied"},
		{name: "scope denied", path: "/scopes", headers: of(map[string]any{"scope": "read admin"}), status: 403, reason: "access_scope"},
		{name: "scope denied of a list", path: "/scopes", headers: of(map[string]any{"scp": []string{"root"}}), status: 403, reason: "access_scope"},
		{name: "scope not denied", path: "/scopes", headers: of(nil), status: 200},
		{name: "scopes that are not kept", path: "/scopes", headers: of(map[string]any{"scope": "admin " + strings.Repeat("x", 2000)}), status: 403, reason: "access_scope"},
		{name: "claim denied", path: "/claims", headers: of(map[string]any{"org": "y"}), status: 403, reason: "access_claim"},
		{name: "claim denied of a list", path: "/claims", headers: of(map[string]any{"org": []string{"a", "x"}}), status: 403, reason: "access_claim"},
		{name: "deep claim denied", path: "/claims", headers: of(map[string]any{"realm_access": map[string]any{"region": "eu"}}), status: 403, reason: "access_claim"},
		{name: "claim not denied", path: "/claims", headers: of(map[string]any{"org": "z"}), status: 200},
		{name: "a claim that cannot be compared", path: "/claims", headers: of(map[string]any{"org": []string{"a,b", "x"}}), status: 403, reason: "access_claim"},
		{name: "a claim that is an object", path: "/claims", headers: of(map[string]any{"org": map[string]any{"x": "x"}}), status: 403, reason: "access_claim"},
		{name: "no claim", path: "/claims", headers: of(nil), status: 200},
		{name: "method denied, of nobody", path: "/methods", status: 403, reason: "access_method"},
		{name: "deep claim", path: "/deep", headers: of(map[string]any{"realm_access": map[string]any{"region": "eu"}}), status: 200},
		{name: "no deep claim", path: "/deep", headers: of(nil), status: 403, reason: "access_claim"},
		{name: "condition", path: "/when", headers: roles("viewer editor"), status: 200},
		{name: "not the condition", path: "/when", headers: roles("viewer admin"), status: 403, reason: "access_condition"},
		{name: "role of the configuration", path: "/key", headers: key, status: 200},
		{name: "role of the configuration denied", path: "/nokey", headers: key, status: 403, reason: "access_denied"},
	})
	res, err := newH1Client(t).Head("http://" + g.addr + "/methods")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("a method that is not denied: %v, %v", res, err)
	}
}

// TestRoles: upstreams learn of roles apart from groups, in headers and in the token that the gateway signs; nobody else can say them.
func TestRoles(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: off }
identity: { headers: on, token: { issuer: gateway } }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { groups: [eu], roles: [editor], keys: "HASH", jwt: partner } }
routes:
  - { match: /key, use: [{ keyauth: on }], to: a }
  - { match: /token, use: [{ jwt: { audience: api, jwks: "JWKS", groups: teams, roles: roles } }], to: a }
  - { match: /open, to: a }
`))
	forged := []string{"X-User-Roles: root", "x_user.roles: root", "X-Consumer-Groups: root", "x_consumer_groups: root"}
	judge(t, g.addr, []identityCase{
		{name: "key", path: "/key", headers: append(forged, "X-Api-Key: "+acmeKey), status: 200, hidden: []string{"root"},
			sees: []string{"X-Consumer-Groups: eu\r\n", "X-User-Roles: editor\r\n"}},
		{name: "token", path: "/token", headers: append(forged, bearerOf(i.token(map[string]any{"teams": "t1 t2"}))...), status: 200, hidden: []string{"root"},
			sees: []string{"X-Consumer-Groups: t1,t2\r\n", "X-User-Roles: a,b\r\n"}},
		{name: "a known consumer's and the token's", path: "/token", headers: bearerOf(i.token(map[string]any{"sub": "partner"})), status: 200,
			sees: []string{"X-Consumer-Groups: eu\r\n", "X-User-Roles: editor,a,b\r\n"}},
		{name: "forged on an open route", path: "/open", headers: forged, status: 200, hidden: []string{"root", "roles", "groups"}},
	})
	req, _ := http.NewRequest("GET", "http://"+g.addr+"/token", nil)
	req.Header.Set("Authorization", "Bearer "+i.token(nil))
	_, body := roundTrip(t, newH1Client(t).Transport, req)
	if claims := payloadOf(t, body); !strings.Contains(claims, `"roles":["a","b"]`) || strings.Contains(claims, `"groups"`) {
		t.Errorf("the upstream's token says %s", claims)
	}
}

// TestLoginRoles: who logs in is in the groups and roles that the provider says, in the ID token or at its userinfo endpoint.
func TestLoginRoles(t *testing.T) {
	p := newLoginProvider(t)
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `identity: { headers: on }
policies:
  people: { oidc: { issuer: "`+p.server.URL+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false }, userinfo: true, groups: teams, roles: realm_access.roles } }
routes:
  - { match: /admins, use: [people, { access: { roles: admin } }], to: a }
  - { match: /staff, use: [people, { access: { groups: staff, deny: { roles: guest } } }], to: a }
  - { match: "/*", use: people, to: a }
`, 1))
	g.eventually("the provider is known", func() bool {
		all, err := g.admin.Sessions()
		return err == nil && len(all) == 1 && all[0].Known
	})
	login := func(user string, claims, info map[string]any) *browser {
		t.Helper()
		p.set(func() { p.user, p.claims, p.info = user, claims, info })
		b := newBrowser(t, g.addr)
		b.want("login of "+user, "/", 200, "X-User-Id: "+user+"\r\n", "X-User-Roles: root", "x_consumer_groups: root")
		return b
	}
	roles := func(all ...string) map[string]any {
		return map[string]any{"realm_access": map[string]any{"roles": all}}
	}
	ann := login("ann", roles("admin", "editor"), map[string]any{"teams": []string{"staff"}})
	body := ann.want("roles of the ID token, groups of userinfo", "/x", 200, "X-User-Roles: admin,editor\r\n", "X-User-Roles: root", "x_consumer_groups: root")
	if !strings.Contains(body, "X-Consumer-Groups: staff\r\n") || strings.Contains(body, "root") {
		t.Errorf("the upstream has got\n%s", body)
	}
	ann.want("an admin", "/admins", 200, "GET /admins ")
	ann.want("one of the staff", "/staff", 200, "GET /staff ")
	bob := login("bob", map[string]any{"teams": "staff"}, roles("guest"))
	bob.want("no admin", "/admins", 403, "access_denied")
	bob.want("a guest among the staff", "/staff", 403, "access_denied")
	eve := login("eve", nil, nil)
	if body := eve.want("nobody's roles", "/x", 200, "X-Consumer-Name: eve\r\n", "X-User-Roles: admin"); strings.Contains(body, "Roles") {
		t.Errorf("the upstream has got\n%s", body)
	}
	eve.want("no admin", "/admins", 403, "access_denied")
	eve.want("none of the staff", "/staff", 403, "access_denied")
	p.set(func() { p.user, p.claims, p.info = "mal", roles("a,admin"), nil })
	newBrowser(t, g.addr).want("a role that would be two", "/", 403, "consumer_unknown")
}

// payloadOf is what the token of the gateway says that an upstream has got.
func payloadOf(t *testing.T, head string) string {
	t.Helper()
	_, rest, _ := strings.Cut(head, "X-Identity-Token: ")
	parts := strings.Split(rest, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil {
		t.Fatalf("%v in\n%s", err, head)
	}
	return string(payload)
}
