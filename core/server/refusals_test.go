package server

import (
	stdhmac "crypto/hmac"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// refusal is a request, and what is said of it: to the client, in the log and in the metrics.
type refusal struct {
	path     string
	headers  []string
	cert     *cryptotls.Certificate
	status   int
	reason   string // "": it passes
	consumer string // in the log; "": nobody is known
}

// refusalGate has a route for each policy that finds out who a client is, or what he may.
func refusalGate(t *testing.T, a *authority, p *loginProvider, lines string) *running {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", "s3 &cret")
	t.Setenv("SLUICE_TEST_LOGIN", "s3cret")
	t.Setenv("SLUICE_TEST_SHARED", "a secret of at least thirty-two bytes")
	cluster, sessions := "", ""
	if hasRedis() {
		cluster, sessions = `cluster: { redis: { addresses: "`+newRedisServer(t).addr+`", timeout: 1s } }`, `, sessions: { store: redis, key: "env:SLUICE_TEST_SHARED" }`
	}
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	return run(t, strings.NewReplacer("DIR", folder, "LINES", lines, "INTROSPECT", newIntrospector(t).url, "PROVIDER", p.server.URL, "CLUSTER", cluster, "SESSIONS", sessions,
		"FORWARD", newAuthService(t).url, "UPSTREAM", newMirror(t), "KEY", keyHash(acmeKey), "PASSWORD", argonHash("right")).Replace(`
loops: 2
access_log: { to: LINES }
listeners:
  http:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: DIR/a.pem, key: DIR/a.key }], client_auth: { mode: optional, ca: DIR/ca.pem } }
    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }
upstreams: { a: UPSTREAM }
consumers:
  acme:
    groups: partners
    keys: "KEY"
    basic: { ann: "PASSWORD" }
    certificates: "san:one.test"
    signatures: [{ id: s1, secret: "env:SLUICE_TEST_SHARED" }]
CLUSTER
policies:
  people: { oidc: { issuer: "PROVIDER", client: { id: gateway, secret: "env:SLUICE_TEST_LOGIN" } SESSIONS } }
routes:
  - { match: /keyauth, use: [{ keyauth: on }], to: a }
  - { match: /basic, use: [{ basic: on }], to: a }
  - { match: /jwt, use: [{ jwt: { audience: api, secret: "env:SLUICE_TEST_SHARED", scopes: [read] } }], to: a }
  - { match: /jwt-claims, use: [{ jwt: { secret: "env:SLUICE_TEST_SHARED", claims: { plan: gold } } }], to: a }
  - { match: /token-or-key, use: [{ any: [{ jwt: { secret: "env:SLUICE_TEST_SHARED", audience: api } }, { keyauth: on }] }], to: a }
  - { match: /jwt-taken, use: [{ jwt: { secret: "env:SLUICE_TEST_SHARED", audience: api, consumer: org } }], to: a }
  - { match: /hmac, use: [{ hmac: on }], to: a }
  - { match: /mtls, use: [{ mtls: on }], to: a }
  - { match: /forward, use: [{ forward: { url: "FORWARD/check" } }], to: a }
  - { match: /introspect, use: [{ introspect: { url: "INTROSPECT", client: { id: "a:b", secret: "env:SLUICE_TEST_SECRET" }, scopes: [write] } }], to: a }
  - { match: [/oidc, /oauth2/*], use: people, to: a }
  - { match: /ip, use: [{ ip: { allow: 10.0.0.0/8 } }], to: a }
  - { match: /any, use: [{ any: [{ keyauth: on }, { basic: on }] }], to: a }
  - { match: /access, use: [{ keyauth: { optional: true } }, { access: { groups: staff } }], to: a }
  - { match: /method, use: [{ keyauth: on }, { access: { groups: partners, methods: POST } }], to: a }
  - { match: /when, use: [{ keyauth: on }, { access: { when: 'path == "/elsewhere"' } }], to: a }
`))
}

func refusals(t *testing.T, a *authority, addr string) []refusal {
	t.Helper()
	shared := []byte("a secret of at least thirty-two bytes")
	mac := func(text string) []byte {
		m := stdhmac.New(sha256.New, shared)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	token := func(claims string, spoil byte) []string {
		signed := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(fmt.Appendf(nil, `{"sub":"ann","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), claims))
		sum := mac(signed)
		sum[0] ^= spoil
		return []string{"Authorization: Bearer " + signed + "." + b64(sum)}
	}
	signature := func(id string, spoil byte) []string {
		params := fmt.Sprintf(`("@method" "@authority" "@path" "@query");created=%d;keyid="%s"`, time.Now().Unix(), id)
		sum := mac("\"@method\": GET\n\"@authority\": " + addr + "\n\"@path\": /hmac\n\"@query\": ?\n\"@signature-params\": " + params)
		sum[0] ^= spoil
		return []string{"Signature-Input: sig=" + params, "Signature: sig=:" + base64.StdEncoding.EncodeToString(sum) + ":"}
	}
	key, other := []string{"X-API-Key: " + acmeKey}, []string{"X-API-Key: another"}
	one, two := certificateOf(a, "one.test"), certificateOf(a, "two.test")
	bearer := func(text string) []string { return []string{"Authorization: Bearer " + text} }
	return []refusal{
		{"/keyauth", nil, nil, 401, "key_missing", ""},
		{"/keyauth", other, nil, 401, "key_unknown", ""},
		{"/keyauth", append(key, key...), nil, 401, "key_ambiguous", ""},
		{"/keyauth", key, nil, 200, "", "acme"},
		{"/basic", nil, nil, 401, "password_missing", ""},
		{"/basic", []string{"Authorization: Basic !"}, nil, 401, "password_malformed", ""},
		{"/basic", []string{basicHeader("ann:wrong")}, nil, 401, "password_wrong", ""},
		{"/basic", []string{basicHeader("eve:right")}, nil, 401, "password_wrong", ""},
		{"/basic", []string{basicHeader("ann:right")}, nil, 200, "", "acme"},
		{"/jwt", nil, nil, 401, "token_missing", ""},
		{"/jwt", bearer("x"), nil, 401, "token_malformed", ""},
		{"/jwt", token(`,"aud":"api","scope":"read"`, 1), nil, 401, "token_signature", ""},
		{"/jwt", token(`,"aud":"web","scope":"read"`, 0), nil, 401, "token_audience", "ann"},
		{"/jwt", token(`,"aud":"api","scope":"write"`, 0), nil, 403, "token_scope", "ann"},
		{"/jwt", token(`,"aud":"api","scope":"write"`, 1), nil, 401, "token_signature", ""},
		{"/jwt", token(`,"aud":"api","scope":"read","nbf":4000000000`, 0), nil, 401, "token_not_yet_valid", "ann"},
		{"/jwt", token(`,"aud":"api","scope":"read","jti":"withdrawn"`, 0), nil, 401, "token_revoked", "ann"},
		{"/jwt-claims", token(`,"plan":"silver"`, 0), nil, 401, "token_claims", "ann"},
		{"/jwt-taken", token(`,"aud":"api","org":"acme"`, 0), nil, 403, "consumer_unknown", ""},
		{"/jwt-taken", token(`,"aud":"web","org":"acme"`, 0), nil, 401, "token_audience", ""},
		{"/token-or-key", append(token(`,"aud":"web"`, 0), key...), nil, 200, "", "acme"},
		{"/jwt", token(`,"aud":"api","scope":"read"`, 0), nil, 200, "", "ann"},
		{"/hmac", nil, nil, 401, "signature_missing", ""},
		{"/hmac", signature("s1", 1), nil, 401, "signature_wrong", ""},
		{"/hmac", signature("s2", 0), nil, 401, "signature_key_unknown", ""},
		{"/hmac", signature("s1", 0), nil, 200, "", "acme"},
		{"/mtls", nil, nil, 403, "client_cert_required", ""},
		{"/mtls", nil, &two, 403, "client_cert_unknown", ""},
		{"/mtls", nil, &one, 200, "", "acme"},
		{"/forward", nil, nil, 401, "forward_denied", ""},
		{"/forward", []string{"Authorization: User ann"}, nil, 200, "", ""},
		{"/introspect", nil, nil, 401, "token_missing", ""},
		{"/introspect", bearer("bad"), nil, 401, "token_inactive", ""},
		{"/introspect", bearer("good-reader"), nil, 403, "token_scope", "reader"},
		{"/introspect", bearer("good-ann"), nil, 200, "", "ann"},
		{"/oidc", []string{"Accept: application/json"}, nil, 401, "login_required", ""},
		{"/ip", []string{"X-Forwarded-For: 192.0.2.1"}, nil, 403, "address_denied", ""},
		{"/ip", []string{"X-Forwarded-For: 10.2.0.1"}, nil, 200, "", ""},
		{"/any", nil, nil, 401, "key_missing", ""},
		{"/any", key, nil, 200, "", "acme"},
		{"/access", nil, nil, 403, "consumer_required", ""},
		{"/access", key, nil, 403, "access_denied", "acme"},
		{"/method", key, nil, 403, "access_method", "acme"},
		{"/when", key, nil, 403, "access_condition", "acme"},
	}
}

// TestRefusals: whatever policy refuses a request, the client gets 401 or 403 with a reason, which the metrics count and the access log has
// with the consumer, where he is known.
func TestRefusals(t *testing.T) {
	a := newAuthority(t)
	lines := filepath.Join(t.TempDir(), "access.log")
	p := newLoginProvider(t)
	g := refusalGate(t, a, p, lines)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until the provider is known
		if all, err := g.admin.Sessions(); err == nil && len(all) == 1 && all[0].Known {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the provider is not known: %v %v", all, err)
		}
	}
	if err := g.admin.ChangeTokens(admin.ChangeTokens{Change: "revoke", Kind: "jti", Values: []string{"withdrawn"}}); err != nil {
		t.Fatal(err)
	}
	logins := newLoginRefusals(t, a, g, p)
	all := append(refusals(t, a, "a.test"), logins.all...)
	counts := map[string]int{}
	for i, c := range all {
		client := a.client(g.addr, i%2 == 1, func(cfg *cryptotls.Config) {
			if c.cert != nil {
				cfg.Certificates = []cryptotls.Certificate{*c.cert}
			}
		})
		req, err := http.NewRequest("GET", "https://a.test"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", fmt.Sprintf("case-%d.", i))
		for _, line := range c.headers {
			name, value, _ := strings.Cut(line, ": ")
			req.Header[name] = append(req.Header[name], value)
		}
		res, body := roundTrip(t, client.Transport, req)
		told := c.reason == "" || c.reason == "forward_denied" || strings.Contains(body, `"error":"`+c.reason+`"`)
		if res.StatusCode != c.status || !told || (res.StatusCode == 401) != (res.Header.Get("WWW-Authenticate") != "") && c.reason != "token_scope" {
			t.Errorf("%d, %s %.60q: %d %v %s, want %d %s", i, c.path, c.headers, res.StatusCode, res.Header, body, c.status, c.reason)
		}
		counts[c.reason]++
	}
	metrics, err := g.admin.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for reason, n := range counts {
		if want := fmt.Sprintf("sluice_rejects_total{reason=%q,side=\"downstream\"} %d\n", reason, n); reason != "" && !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	log := logLines(t, lines, len(all)+logins.asked)
	for i, c := range all {
		line, _, _ := strings.Cut(log[strings.LastIndex(log[:strings.Index(log, fmt.Sprintf(`"case-%d."`, i))], "{"):], "\n")
		for key, want := range map[string]string{"reason": c.reason, "consumer": c.consumer} {
			if has := strings.Contains(line, `"`+key+`":`); want == "" && has || want != "" && !strings.Contains(line, `"`+key+`":"`+want+`"`) {
				t.Errorf("%d, %s: %s of %q is logged as %s", i, c.path, key, want, line)
			}
		}
		if !strings.Contains(line, fmt.Sprintf(`"status":%d`, c.status)) {
			t.Errorf("%d, %s: status %d is logged as %s", i, c.path, c.status, line)
		}
	}
}

// logLines waits for so many lines of an access log.
func logLines(t *testing.T, path string, n int) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if strings.Count(string(text), "\n") >= n {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, %d lines:\n%s", err, n, text)
		}
	}
}
