package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// tokenIssuer signs tokens, right ones and others, and publishes its keys.
type tokenIssuer struct {
	t       testing.TB
	rsa     *rsa.PrivateKey
	ec      *ecdsa.PrivateKey
	ed      ed25519.PrivateKey
	secret  []byte
	set     atomic.Pointer[string] // "": away
	fetches atomic.Int64
	url     string
}

func newTokenIssuer(t testing.TB) *tokenIssuer {
	t.Helper()
	i := &tokenIssuer{t: t, secret: []byte("a secret of at least thirty-two bytes")}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, i.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.publish("r", "e", "d")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		set := *i.set.Load()
		if set == "" {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1") // less than is asked for
		_, _ = w.Write([]byte(set))
	}))
	t.Cleanup(s.Close)
	i.url = s.URL + "/keys"
	return i
}

// publish puts the public keys out under these names.
func (i *tokenIssuer) publish(rsaID, ecID, edID string) {
	point, err := i.ec.PublicKey.Bytes()
	if err != nil {
		i.t.Fatal(err)
	}
	set := fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"o","k":"%s"},{"kty":"RSA","kid":"enc","use":"enc","n":"AQAB","e":"AQAB"},
		{"kty":"RSA","kid":"%s","alg":"RS256","n":"%s","e":"%s"},{"kty":"RSA","kid":"ps","n":"%[3]s","e":"%[4]s"},
		{"kty":"EC","kid":"%s","crv":"P-256","x":"%s","y":"%s"},{"kty":"OKP","kid":"%s","crv":"Ed25519","x":"%s"},{"kty":"new"}]}`,
		b64(i.secret), rsaID, b64(i.rsa.N.Bytes()), b64(big.NewInt(int64(i.rsa.E)).Bytes()), ecID, b64(point[1:33]), b64(point[33:]), edID,
		b64(i.ed.Public().(ed25519.PublicKey)))
	i.set.Store(&set)
}

// sign signs a head and claims as they stand there.
func (i *tokenIssuer) sign(alg, head, claims string) string {
	signed := b64([]byte(head)) + "." + b64([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	switch alg {
	case "RS256":
		sig, err = rsa.SignPKCS1v15(rand.Reader, i.rsa, crypto.SHA256, sum[:])
	case "PS256", "PS256 without salt":
		o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		if alg != "PS256" {
			o.SaltLength = 20
		}
		sig, err = rsa.SignPSS(rand.Reader, i.rsa, crypto.SHA256, sum[:], o)
	case "ES256", "ES256 long":
		r, s, failure := ecdsa.Sign(rand.Reader, i.ec, sum[:])
		if sig, err = make([]byte, 64), failure; err == nil {
			r.FillBytes(sig[:32])
			s.FillBytes(sig[32:])
		}
		if alg != "ES256" {
			sig = append(sig, 0)
		}
	case "EdDSA":
		sig = ed25519.Sign(i.ed, []byte(signed))
	case "HS256 with the public key":
		der, _ := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
		m := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		m.Write([]byte(signed))
		sig = m.Sum(nil)
	case "HS256":
		m := hmac.New(sha256.New, i.secret)
		m.Write([]byte(signed))
		sig = m.Sum(nil)
	case "none":
	default:
		i.t.Fatalf("no algorithm %q", alg)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return signed + "." + b64(sig)
}

// claims are those of a right token, with some that are other: of value nil, left out.
func claimsWith(other map[string]any) string {
	now := time.Now().Unix()
	all := map[string]any{"iss": "https://id.test", "aud": "api", "sub": "user-1", "exp": now + 300, "iat": now, "scope": "read write", "plan": "gold", "roles": []string{"a", "b"}}
	maps.Copy(all, other)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	b, _ := json.Marshal(all)
	return string(b)
}

func (i *tokenIssuer) token(other map[string]any) string {
	return i.sign("RS256", `{"alg":"RS256","kid":"r"}`, claimsWith(other))
}

func jwtConfig(i *tokenIssuer, upstream string) string {
	return strings.NewReplacer("UPSTREAM", upstream, "JWKS", i.url).Replace(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
consumers: { acme: { tier: silver, jwt: [{ issuer: "https://id.test", subject: partner }, other] }, taken: { keys: "` + keyHash("x") + `" } }
policies:
  users: { jwt: { issuer: "https://id.test", audience: [web, api], jwks: "JWKS", tier: plan, headers: { X-User: sub, X-Roles: roles, X-Absent: absent } } }
  perhaps: { jwt: { issuer: "https://id.test", audience: api, jwks: "JWKS", optional: true, cookie: token, query: token, header: X-Token } }
  writers: { jwt: { audience: api, jwks: "JWKS", scopes: [read, write], algorithms: [RS256], maximum_lifetime: 10m, leeway: 1s, claims: { plan: [gold, silver] }, consumer: sub } }
  secret: { jwt: { audience: api, secret: "env:SLUICE_TEST_SECRET", hide_credentials: false } }
  pem: { jwt: { audience: api, keys: ["file:FOLDER/key.pem"], secret: "env:SLUICE_TEST_SECRET" } }
routes:
  - { match: /users, use: [users], to: a }
  - { match: /gold, use: [users, { access: { tiers: gold } }], to: a }
  - { match: /perhaps, use: [perhaps], to: a }
  - { match: /writers, use: [writers], to: a }
  - { match: /secret, use: [secret], to: a }
  - { match: /pem, use: [pem], to: a }
`)
}

func runJWT(t *testing.T, i *tokenIssuer) *running {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", string(i.secret))
	der, err := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(folder+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, strings.ReplaceAll(jwtConfig(i, newMirror(t)), "FOLDER", folder))
}

// TestJWT shows right tokens of every kind of key, and what the upstream learns of them.
func TestJWT(t *testing.T) {
	i := newTokenIssuer(t)
	g := runJWT(t, i)
	bearer := func(token string) []string { return []string{"Authorization: Bearer " + token} }
	right := i.token(nil)
	names := []string{"X-User: user-1\r\n", "X-Roles: a,b\r\n", "X-Consumer-Name: user-1\r\n"}
	judge(t, g.addr, []identityCase{
		{name: "RS256", path: "/users", headers: bearer(right), status: 200, sees: names, hidden: []string{"authorization", "x-absent"}},
		{name: "cached", path: "/users", headers: bearer(right), status: 200, sees: names, hidden: []string{"authorization"}},
		{name: "scheme in lower case", path: "/users", headers: []string{"Authorization: bearer  " + right}, status: 200, sees: names},
		{name: "forged fields", path: "/users", headers: append(bearer(right), "X-User: root", "x_user: root", "X-Absent: root", "X_Absent: root"), status: 200,
			sees: names, hidden: []string{"root"}},
		{name: "PS256", path: "/users", headers: bearer(i.sign("PS256", `{"alg":"PS256","kid":"ps"}`, claimsWith(nil))), status: 200},
		{name: "ES256", path: "/users", headers: bearer(i.sign("ES256", `{"alg":"ES256","kid":"e"}`, claimsWith(nil))), status: 200},
		{name: "EdDSA", path: "/users", headers: bearer(i.sign("EdDSA", `{"alg":"EdDSA","kid":"d"}`, claimsWith(nil))), status: 200},
		{name: "no kid", path: "/users", headers: bearer(i.sign("EdDSA", `{"alg":"EdDSA"}`, claimsWith(nil))), status: 200},
		{name: "several audiences", path: "/users", headers: bearer(i.token(map[string]any{"aud": []string{"x", "api"}})), status: 200},
		{name: "expired within the leeway", path: "/users", headers: bearer(i.token(map[string]any{"exp": time.Now().Unix() - 10})), status: 200},
		{name: "a known subject", path: "/users", headers: bearer(i.token(map[string]any{"sub": "partner"})), status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}},
		{name: "tier of the claim", path: "/gold", headers: bearer(right), status: 200},
		{name: "tier of the consumer", path: "/gold", headers: bearer(i.token(map[string]any{"sub": "partner"})), status: 403, reason: "access_denied"},
		{name: "a consumer's name", path: "/users", headers: bearer(i.token(map[string]any{"sub": "taken"})), status: 403, reason: "consumer_unknown"},
		{name: "a name that is no field", path: "/users", headers: bearer(i.token(map[string]any{"sub": "a\r\nX-Admin: 1"})), status: 403, reason: "consumer_unknown"},
		{name: "optional, none", path: "/perhaps", status: 200, hidden: []string{"consumer"}},
		{name: "cookie", path: "/perhaps", headers: []string{"Cookie: a=1; token=" + right}, status: 200, sees: []string{"user-1", "Cookie: a=1\r\n"}, hidden: []string{"token"}},
		{name: "query", path: "/perhaps?token=" + right + "&b=2", status: 200, sees: []string{"/perhaps?b=2 "}},
		{name: "a header without a scheme", path: "/perhaps", headers: []string{"X-Token: " + right}, status: 200, sees: []string{"user-1"}, hidden: []string{"x-token"}},
		{name: "optional, wrong", path: "/perhaps", headers: []string{"X-Token: x"}, status: 401, reason: "token_malformed", asks: `Bearer realm="sluice", error="invalid_token"`},
		{name: "scopes", path: "/writers", headers: bearer(right), status: 200},
		{name: "scp", path: "/writers", headers: bearer(i.token(map[string]any{"scope": nil, "scp": []string{"write", "read"}})), status: 200},
		{name: "too few scopes", path: "/writers", headers: bearer(i.token(map[string]any{"scope": "read writer"})), status: 403, reason: "token_scope",
			asks: `Bearer realm="sluice", error="insufficient_scope", scope="read write"`},
		{name: "no subject where one is named", path: "/writers", headers: bearer(i.token(map[string]any{"sub": nil})), status: 403, reason: "consumer_unknown"},
		{name: "no subject", path: "/users", headers: bearer(i.token(map[string]any{"sub": nil})), status: 200, hidden: []string{"consumer"}},
		{name: "secret", path: "/secret", headers: bearer(i.sign("HS256", `{"alg":"HS256"}`, claimsWith(nil))), status: 200, sees: []string{"Authorization: Bearer "}},
		{name: "secret or key", path: "/pem", headers: bearer(i.sign("HS256", `{"alg":"HS256"}`, claimsWith(nil))), status: 200},
		{name: "key or secret", path: "/pem", headers: bearer(right), status: 200},
	})
}

// TestJWTForged sends tokens that must not be believed. Each is one change away from a right one.
func TestJWTForged(t *testing.T) {
	i := newTokenIssuer(t)
	g := runJWT(t, i)
	right := i.token(nil)
	head, rest, _ := strings.Cut(right, ".")
	body, sig, _ := strings.Cut(rest, ".")
	now := time.Now().Unix()
	with := func(other map[string]any) string { return i.token(other) }
	var cases []identityCase
	f := func(path, name, token, reason string) {
		cases = append(cases, identityCase{name: name, path: path, headers: []string{"Authorization: Bearer " + token}, status: 401, reason: reason,
			asks: `Bearer realm="sluice", error="invalid_token"`})
	}
	rs := func(head, claims string) string { return i.sign("RS256", head, claims) }
	f("/users", "alg none", i.sign("none", `{"alg":"none"}`, claimsWith(nil)), "token_malformed")
	f("/users", "alg none, with a signature", rs(`{"alg":"none","kid":"r"}`, claimsWith(nil)), "token_algorithm")
	f("/users", "alg nOnE", rs(`{"alg":"nOnE","kid":"r"}`, claimsWith(nil)), "token_algorithm")
	f("/users", "RS as HS with the public key", i.sign("HS256 with the public key", `{"alg":"HS256","kid":"r"}`, claimsWith(nil)), "token_algorithm")
	f("/pem", "RS as HS with the public key, where both may be", i.sign("HS256 with the public key", `{"alg":"HS256"}`, claimsWith(nil)), "token_signature")
	f("/users", "a secret that is published", i.sign("HS256", `{"alg":"HS256","kid":"o"}`, claimsWith(nil)), "token_key_unknown")
	f("/users", "PS with a key for RS", i.sign("PS256", `{"alg":"PS256","kid":"r"}`, claimsWith(nil)), "token_algorithm")
	f("/users", "PS with another salt", i.sign("PS256 without salt", `{"alg":"PS256","kid":"ps"}`, claimsWith(nil)), "token_signature")
	f("/users", "ES with a longer signature", i.sign("ES256 long", `{"alg":"ES256","kid":"e"}`, claimsWith(nil)), "token_signature")
	f("/users", "kid of another key", rs(`{"alg":"RS256","kid":"e"}`, claimsWith(nil)), "token_algorithm")
	f("/users", "kid of nobody", rs(`{"alg":"RS256","kid":"../../dev/null"}`, claimsWith(nil)), "token_key_unknown")
	f("/users", "a key that is for encryption", rs(`{"alg":"RS256","kid":"enc"}`, claimsWith(nil)), "token_key_unknown")
	f("/writers", "algorithm not allowed", i.sign("ES256", `{"alg":"ES256","kid":"e"}`, claimsWith(nil)), "token_algorithm")
	f("/users", "crit", rs(`{"alg":"RS256","kid":"r","crit":["exp"],"exp":1}`, claimsWith(nil)), "token_malformed")
	f("/users", "b64", rs(`{"alg":"RS256","kid":"r","b64":false}`, claimsWith(nil)), "token_malformed")
	f("/users", "alg twice", rs(`{"alg":"none","alg":"RS256","kid":"r"}`, claimsWith(nil)), "token_malformed")
	f("/users", "a claim twice", rs(`{"alg":"RS256","kid":"r"}`, strings.Replace(claimsWith(nil), "{", `{"sub":"root",`, 1)), "token_malformed")
	f("/users", "claims of another", head+"."+b64([]byte(claimsWith(map[string]any{"sub": "root"})))+"."+sig, "token_signature")
	f("/users", "signature cut", right[:len(right)-2], "token_signature") // to whole bytes
	f("/users", "signature not canonical", right[:len(right)-1]+string(right[len(right)-1]+1), "token_malformed")
	f("/users", "padded", right+"==", "token_malformed")
	f("/users", "four parts", right+".x", "token_malformed")
	f("/users", "two tokens", right+","+right, "token_malformed")
	f("/users", "empty parts", "..", "token_malformed")
	f("/users", "huge", head+"."+body+strings.Repeat("A", 20<<10)+"."+sig, "token_malformed")
	f("/users", "expired", with(map[string]any{"exp": now - 31}), "token_expired")
	f("/users", "no exp", with(map[string]any{"exp": nil}), "token_without_exp")
	f("/users", "exp a string", with(map[string]any{"exp": fmt.Sprint(now + 300)}), "token_malformed")
	f("/users", "exp without end", rs(`{"alg":"RS256","kid":"r"}`, `{"aud":"api","iss":"https://id.test","exp":1e400}`), "token_malformed")
	f("/users", "nbf", with(map[string]any{"nbf": now + 60}), "token_not_yet_valid")
	f("/users", "nbf a string", with(map[string]any{"nbf": "0"}), "token_malformed")
	f("/users", "iat", with(map[string]any{"iat": now + 60}), "token_not_yet_valid")
	f("/users", "issuer", with(map[string]any{"iss": "https://id.test/"}), "token_issuer")
	f("/users", "issuer a list", with(map[string]any{"iss": []string{"https://id.test"}}), "token_issuer")
	f("/users", "no issuer", with(map[string]any{"iss": nil}), "token_issuer")
	f("/users", "audience", with(map[string]any{"aud": "apis"}), "token_audience")
	f("/users", "no audience", with(map[string]any{"aud": nil}), "token_audience")
	f("/users", "a claim that cannot be a field", with(map[string]any{"roles": []string{"a\nb"}}), "token_claims")
	f("/users", "a claim that would be two", with(map[string]any{"roles": []string{"a,root"}}), "token_claims")
	f("/writers", "a claim's value", with(map[string]any{"plan": "bronze"}), "token_claims")
	f("/writers", "a claim is not there", with(map[string]any{"plan": nil}), "token_claims")
	f("/writers", "lives too long", with(map[string]any{"exp": now + 700}), "token_lifetime")
	f("/writers", "lived too long", with(map[string]any{"iat": now - 500, "exp": now + 300}), "token_lifetime")
	cases = append(cases,
		identityCase{name: "none", path: "/users", status: 401, reason: "token_missing", asks: `Bearer realm="sluice"`},
		identityCase{name: "another scheme", path: "/users", headers: []string{"Authorization: Basic " + right}, status: 401, reason: "token_missing", asks: `Bearer realm="sluice"`},
		identityCase{name: "two lines", path: "/users", headers: []string{"Authorization: Bearer " + right, "Authorization: Bearer " + right}, status: 401,
			reason: "token_ambiguous", asks: "Bearer"},
		identityCase{name: "two schemes", path: "/users", headers: []string{"Authorization: Bearer " + right, "Authorization: Basic eA=="}, status: 401,
			reason: "token_ambiguous", asks: "Bearer"},
		identityCase{name: "right after all", path: "/users", headers: []string{"Authorization: Bearer " + right}, status: 200})
	judge(t, g.addr, cases)
	if n := i.fetches.Load(); n > 4 {
		t.Errorf("%d fetches of the keys", n)
	}
	metrics, err := g.admin.Metrics()
	if err != nil || !strings.Contains(string(metrics), `sluice_rejects_total{reason="token_signature",side="downstream"}`) {
		t.Errorf("%v, %s", err, metrics)
	}
}

// TestJWTKeysRotate: a key that is new is fetched when a token names it, once; while the place is away the keys that are known stay.
func TestJWTKeysRotate(t *testing.T) {
	i := newTokenIssuer(t)
	g := runJWT(t, i)
	bearer := func(kid string) []string {
		return []string{"Authorization: Bearer " + i.sign("RS256", `{"alg":"RS256","kid":"`+kid+`"}`, claimsWith(nil))}
	}
	judge(t, g.addr, []identityCase{{name: "before", path: "/users", headers: bearer("r"), status: 200}})
	i.publish("r2", "e2", "d2")
	judge(t, g.addr, []identityCase{
		{name: "the new key", path: "/users", headers: bearer("r2"), status: 200},
		{name: "the old key", path: "/users", headers: bearer("r"), status: 401, reason: "token_key_unknown", asks: "Bearer"},
	})
	away := ""
	i.set.Store(&away)
	before := i.fetches.Load()
	for n := range 50 {
		judge(t, g.addr, []identityCase{{name: "random kid", path: "/users", headers: bearer(fmt.Sprint("kid-", n)), status: 401, reason: "token_key_unknown", asks: "Bearer"}})
	}
	if n := i.fetches.Load() - before; n > 1 {
		t.Errorf("random ids of keys cost %d fetches", n)
	}
	judge(t, g.addr, []identityCase{{name: "while the place is away", path: "/users", headers: bearer("r2"), status: 200}})
	keys, err := g.admin.Keys()
	if err != nil || len(keys) != 1 || keys[0].Keys != 4 || fmt.Sprint(keys[0].IDs) != "[d2 e2 ps r2]" || keys[0].Fetched.IsZero() {
		t.Errorf("%+v, %v", keys, err)
	}
	if metrics, err := g.admin.Metrics(); err != nil || !strings.Contains(string(metrics), `sluice_jwks_keys{place="`+i.url+`"} 4`) {
		t.Errorf("%v, %s", err, metrics)
	}
}

// tokenCase is a configuration that wants a token, and one that is right.
type tokenCase struct{ config, token string }

func newTokenCase(t testing.TB) tokenCase { return newTokenCaseOf(t, newTokenIssuer(t)) }

func newTokenCaseOf(t testing.TB, i *tokenIssuer) tokenCase {
	t.Helper()
	policy := `use: [{ jwt: { issuer: "https://id.test", audience: api, jwks: "` + i.url + `", headers: { X-User: sub } } }], to: a }`
	return tokenCase{strings.Replace(plainConfig, "to: a }", policy, 1), i.token(nil)}
}

// TestJWTReload: the keys of a place outlive reloads that name it, and end with one that does not.
func TestJWTReload(t *testing.T) {
	i := newTokenIssuer(t)
	c := newTokenCaseOf(t, i)
	config := strings.ReplaceAll(c.config, "UPSTREAM", newMirror(t))
	g := run(t, config)
	ask := func(want int) {
		t.Helper()
		q, _ := http.NewRequest("GET", "http://"+g.addr+"/", nil)
		q.Header.Set("Authorization", "Bearer "+c.token)
		res, err := http.DefaultClient.Do(q)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%v, %v, want %d", res, err, want)
		}
		_ = res.Body.Close()
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	reload := func(config string) {
		t.Helper()
		g.write(config)
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
	}
	ask(200)
	away := ""
	i.set.Store(&away) // whoever fetches now gets nothing
	reload(config + "drain: 1s\n")
	ask(200)
	reload(strings.Replace(config, "audience: api", "audience: other", 1))
	ask(401) // what was cached was cached for another configuration
	reload(strings.Replace(config, "jwks: \""+i.url, "jwks: \""+i.url+"/other", 1))
	ask(503)
	if keys, err := g.admin.Keys(); err != nil || len(keys) != 1 || keys[0].Place != i.url+"/other" || keys[0].Problem == "" {
		t.Errorf("%+v, %v", keys, err)
	}
}

// TestLimitByToken limits by claims: each has a bucket of its own, and the tier that a claim names. A claim that is no text is missing.
func TestLimitByToken(t *testing.T) {
	i := newTokenIssuer(t)
	g := newGate(t, strings.ReplaceAll(`
loops: 2
listeners: { http: { bind: "127.0.0.1:0" } }
policies:
  users: { jwt: { issuer: "https://id.test", audience: api, jwks: "JWKS", tenant: org } }
  each: { rate_limit: { limit: 1/day, key: "claim:sub", tiers: { gold: 3/day }, tier_from: "claim:plan", on_missing: deny } }
  org: { rate_limit: { limit: 2/day, key: tenant } }
routes:
  - { match: /each, use: [users, each], respond: {} }
  - { match: /org, use: [users, org], respond: {} }
`, "JWKS", i.url))
	client := newH1Client(t)
	f := func(path string, requests int, want string, claims map[string]any) {
		t.Helper()
		token, got := i.token(claims), ""
		for range requests {
			req, _ := http.NewRequest("GET", "http://"+g.addr+path, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			got += fmt.Sprint(" ", res.StatusCode)
		}
		if got != want {
			t.Errorf("%s with %v:%s, want%s", path, claims, got, want)
		}
	}
	for end := time.Now().Add(patience); i.fetches.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	f("/each", 4, " 200 200 200 429", nil)
	f("/each", 2, " 200 429", map[string]any{"sub": "user-2", "plan": "silver"})
	f("/each", 2, " 200 429", map[string]any{"sub": "user-3", "plan": nil})
	f("/each", 1, " 200", map[string]any{"sub": "user-4", "plan": []string{"gold"}})
	f("/org", 1, " 200", map[string]any{"sub": "user-1", "org": "o"})
	f("/org", 2, " 200 429", map[string]any{"sub": "user-2", "org": "o"})
	f("/org", 1, " 200", map[string]any{"sub": "user-2", "org": "p"})
	f("/org", 1, " 403", map[string]any{"sub": "user-2", "org": 7})
}
