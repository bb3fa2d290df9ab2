package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestIdentityHeaders tells upstreams who a consumer is under names of the configuration. Nobody else can say it, on no route.
func TestIdentityHeaders(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url, "HASH", keyHash(acmeKey)).Replace(`
access_log: { to: off }
identity: { headers: { consumer: X-Consumer, user: X-User-ID, tenant: X-Tenant-ID, groups: X-User-Roles, tier: X-Plan } }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { groups: [eu, partners], tenant: acme-group, keys: "HASH", jwt: partner } }
routes:
  - { match: /key, use: [{ keyauth: on }], to: a }
  - { match: /token, use: [{ jwt: { audience: api, jwks: "JWKS", tier: plan, tenant: org, groups: roles } }], to: a }
  - { match: /role, use: [{ jwt: { audience: api, jwks: "JWKS", groups: roles } }, { access: { groups: b } }], to: a }
  - { match: /open, to: a }
`))
	bearer := func(other map[string]any) []string { return []string{"Authorization: Bearer " + i.token(other)} }
	forged := []string{"X-Consumer: root", "x_consumer: root", "X-Consumer-Name: root", "X-User-ID: root", "X_User-Id: root", "x-user.id: root",
		"X-Tenant-ID: root", "X-User-Roles: root", "X-Plan: root", "X-Api-Key: " + acmeKey}
	judge(t, g.addr, []identityCase{
		{name: "key", path: "/key", headers: forged, status: 200, hidden: []string{"root", "user-id", "x-plan", "consumer-name"},
			sees: []string{"X-Consumer: acme\r\n", "X-Tenant-Id: acme-group\r\n", "X-User-Roles: eu,partners\r\n"}},
		{name: "token", path: "/token", headers: bearer(map[string]any{"org": "o"}), status: 200,
			sees: []string{"X-Consumer: user-1\r\n", "X-User-Id: user-1\r\n", "X-Tenant-Id: o\r\n", "X-User-Roles: a,b\r\n", "X-Plan: gold\r\n"}},
		{name: "a known consumer's groups and the token's", path: "/token", headers: bearer(map[string]any{"sub": "partner"}), status: 200,
			sees: []string{"X-Consumer: acme\r\n", "X-User-Id: partner\r\n", "X-User-Roles: eu,partners,a,b\r\n"}},
		{name: "groups as words", path: "/token", headers: bearer(map[string]any{"roles": "c d"}), status: 200, sees: []string{"X-User-Roles: c,d\r\n"}},
		{name: "a group that would be two", path: "/token", headers: bearer(map[string]any{"roles": []string{"c,root"}}), status: 403, reason: "consumer_unknown"},
		{name: "groups that are none", path: "/token", headers: bearer(map[string]any{"roles": 7}), status: 403, reason: "consumer_unknown"},
		{name: "access by a token's group", path: "/role", headers: bearer(nil), status: 200},
		{name: "no such group", path: "/role", headers: bearer(map[string]any{"roles": []string{"a"}}), status: 403, reason: "access_denied"},
		{name: "forged on an open route", path: "/open", headers: forged[:9], status: 200, hidden: []string{"root"}},
	})
}

// TestIdentityTrailers: what the gateway says in the head, a client cannot say behind the body.
func TestIdentityTrailers(t *testing.T) {
	i := newTokenIssuer(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, r.Trailer)
	}))
	defer s.Close()
	g := run(t, strings.NewReplacer("UPSTREAM", s.Listener.Addr().String(), "JWKS", i.url, "CHECKS", newCheckService(t).addr).Replace(`
access_log: { to: off }
identity: { headers: { tenant: X-Tenant-ID }, token: { issuer: gateway } }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
routes: [{ match: "/*", use: [{ jwt: { audience: api, jwks: "JWKS", optional: true, headers: { X-User: sub } } }, { headers: { request: { remove: X-Debug, set: { X-Client: "{client_ip}" }, add: { X-Told: gateway } } } }, { ext_authz: { url: "grpc://CHECKS", headers: [Authorization] } }], to: a }]
`))
	plain := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer plain.CloseIdleConnections()
	for name, client := range map[string]*http.Client{"h1": plain, "h2": newH2Client(t)} {
		req, _ := http.NewRequest("POST", "http://"+g.addr+"/", struct{ io.Reader }{strings.NewReader("body")})
		req.Trailer = http.Header{"X-User": {"root"}, "X_user": {"root"}, "X-Tenant-Id": {"root"}, "X-Identity-Token": {"root"}, "X_identity_token": {"root"}, "X-Client": {"root"}, "X_debug": {"root"}, "X_told": {"root"}, "X_roles": {"root"}, "X-Forwarded-For": {"root"}, "X-Sum": {"right"}, "X-Users": {"kept"}}
		req.Header.Set("Authorization", "User ann") // for whom the service sets X-Roles
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if bytes.Contains(b, []byte("root")) || !bytes.Contains(b, []byte("right")) || !bytes.Contains(b, []byte("kept")) {
			t.Errorf("%s: %d, %s", name, res.StatusCode, b)
		}
	}
}
