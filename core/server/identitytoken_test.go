package server

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
)

// tokenVerifier is an upstream that verifies the token of each request by the keys that the gateway publishes, which it keeps as long as it
// may, and answers with what the token says.
type tokenVerifier struct {
	t        testing.TB
	addr     string
	jwks     atomic.Pointer[string] // URL
	audience string
	failures atomic.Int64

	mu      sync.Mutex
	keys    map[string]any
	until   time.Time
	fetches int
	kids    map[string]int
}

// identityAnswer is what a verifier answers.
type identityAnswer struct {
	Claims gojwt.MapClaims
	Head   map[string]any
	Others []string // names of fields that resemble the token's
}

func newTokenVerifier(t testing.TB, audience string) *tokenVerifier {
	v := &tokenVerifier{t: t, audience: audience, kids: map[string]int{}}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	v.addr = s.Listener.Addr().String()
	return v
}

// use says which gateway's keys it is to ask for.
func (v *tokenVerifier) use(addr string) {
	at := "http://" + addr + "/.well-known/jwks.json"
	v.jwks.Store(&at)
}

func (v *tokenVerifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var a identityAnswer
	for name := range r.Header {
		if flat := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)); flat == "x-identity-token" && name != "X-Identity-Token" {
			a.Others = append(a.Others, name)
		}
	}
	switch got := r.Header["X-Identity-Token"]; len(got) {
	case 0:
	case 1:
		var err error
		if a.Claims, a.Head, err = v.verify(got[0]); err != nil {
			v.failures.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, err.Error())
			return
		}
	default:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(a)
}

func (v *tokenVerifier) verify(token string) (gojwt.MapClaims, map[string]any, error) {
	claims := gojwt.MapClaims{}
	p, err := gojwt.NewParser(gojwt.WithAudience(v.audience), gojwt.WithIssuer("https://gateway.test"), gojwt.WithExpirationRequired(), gojwt.WithIssuedAt(),
		gojwt.WithLeeway(time.Second), gojwt.WithValidMethods([]string{"ES256", "EdDSA"})).ParseWithClaims(token, claims, func(t *gojwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		return v.key(kid)
	})
	if err != nil {
		return nil, nil, err
	}
	return claims, p.Header, nil
}

// key gives a published key, and never asks before the set's time is over.
func (v *tokenVerifier) key(kid string) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !time.Now().Before(v.until) {
		if err := v.fetch(); err != nil {
			return nil, err
		}
	}
	v.kids[kid]++
	if k := v.keys[kid]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("key %q is not published", kid)
}

func (v *tokenVerifier) fetch() error {
	res, err := http.Get(*v.jwks.Load())
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	var set struct{ Keys []publishedKey }
	var age int
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil {
		return err
	}
	if _, err := fmt.Sscanf(res.Header.Get("Cache-Control"), "public, max-age=%d", &age); err != nil || res.Header.Get("Content-Type") != "application/jwk-set+json" {
		return fmt.Errorf("the set came with %v", res.Header)
	}
	v.keys, v.until = map[string]any{}, time.Now().Add(time.Duration(age)*time.Second)
	v.fetches++
	for _, k := range set.Keys {
		if v.keys[k.Kid], err = k.public(); err != nil {
			return err
		}
	}
	return nil
}

type publishedKey struct{ Kty, Crv, X, Y, Kid, Alg, Use, D string }

func (k *publishedKey) public() (any, error) {
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	y, other := base64.RawURLEncoding.DecodeString(k.Y)
	switch {
	case err != nil || other != nil || k.Use != "sig" || k.D != "":
		return nil, errors.New("a key that is none")
	case k.Kty == "OKP" && k.Alg == "EdDSA":
		return ed25519.PublicKey(x), nil
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
}

// ask makes a request, and gives what the upstream has verified.
func (v *tokenVerifier) ask(client *http.Client, url string, headers ...string) (a identityAnswer, status int, body string) {
	v.t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	res, err := client.Do(req)
	if err != nil {
		v.t.Error(err)
		return a, 0, ""
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode == 200 {
		if err := json.Unmarshal(b, &a); err != nil {
			v.t.Errorf("%v: %s", err, b)
		}
	}
	return a, res.StatusCode, string(b)
}

// identityTokenConfig tells an upstream of consumers by keys and by tokens of their own.
func identityTokenConfig(v *tokenVerifier, i *tokenIssuer, token string) string {
	return strings.NewReplacer("UPSTREAM", v.addr, "JWKS", i.url, "HASH", keyHash(acmeKey), "TOKEN", token).Replace(`
loops: 2
access_log: { to: off }
identity: { headers: off, token: { issuer: "https://gateway.test", TOKEN } }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { api: UPSTREAM }
consumers: { acme: { groups: [eu, partners], tenant: acme-group, tier: gold, keys: "HASH" } }
routes:
  - { match: /key, use: [{ keyauth: on }], to: api }
  - { match: /token, use: [{ jwt: { audience: api, jwks: "JWKS", tier: plan, groups: roles } }], to: api }
  - { match: /open, to: api }
  - { match: /.well-known/jwks.json, respond: jwks }
`)
}

// TestIdentityToken: the upstream learns who a consumer is by a token that it verifies, whatever the client says of itself.
func TestIdentityToken(t *testing.T) {
	i := newTokenIssuer(t)
	for _, alg := range []string{"ES256", "EdDSA"} {
		v := newTokenVerifier(t, "api")
		g := run(t, identityTokenConfig(v, i, "algorithm: "+alg+", jti: true, claims: [consumer, tenant, tier, groups, scope, email, tags]"))
		v.use(g.addr)
		plain := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}
		for protocol, client := range map[string]*http.Client{"h1": plain, "h2": newH2Client(t)} {
			forged := []string{"X-Identity-Token: root", "x_identity_token: root", "X.Identity.Token: root", "X-IDENTITY_TOKEN: root", "x-identity-token: root",
				"X-Consumer-Name: root"}
			if protocol == "h1" {
				forged = append(forged, "Connection: X-Identity-Token")
			}
			f := func(path string, headers []string, want string) {
				t.Helper()
				a, status, body := v.ask(client, "http://"+g.addr+path, headers...)
				if status != 200 || len(a.Others) > 0 || strings.Contains(body, "root") {
					t.Errorf("%s %s%s: %d, %s", alg, protocol, path, status, body)
					return
				}
				if want == "" {
					if a.Claims != nil {
						t.Errorf("%s %s%s: a token of nobody's: %s", alg, protocol, path, body)
					}
					return
				}
				if a.Head["alg"] != alg || a.Claims["jti"] == nil || a.Claims["exp"].(float64)-a.Claims["iat"].(float64) != 60 {
					t.Errorf("%s %s%s: %s", alg, protocol, path, body)
				}
				for _, name := range []string{"jti", "exp", "iat"} {
					delete(a.Claims, name)
				}
				if b, _ := json.Marshal(a.Claims); string(b) != want {
					t.Errorf("%s %s%s: %s, want %s", alg, protocol, path, b, want)
				}
			}
			f("/key", append([]string{"X-Api-Key: " + acmeKey}, forged...),
				`{"aud":"api","consumer":"acme","groups":["eu","partners"],"iss":"https://gateway.test","sub":"acme","tenant":"acme-group","tier":"gold"}`)
			f("/token", append([]string{"Authorization: Bearer " + i.token(map[string]any{"email": `a"b\c@x`, "tags": []any{"x", 7}})}, forged...),
				`{"aud":"api","consumer":"user-1","email":"a\"b\\c@x","groups":["a","b"],"iss":"https://gateway.test","scope":"read write","sub":"user-1","tags":["x","7"],"tier":"gold"}`)
			f("/open", forged, "")
			f("/open", nil, "")
		}
		plain.CloseIdleConnections()
		if set, err := http.Get("http://" + g.addr + "/.well-known/jwks.json"); err != nil || set.StatusCode != 200 {
			t.Error(err)
		} else {
			_ = set.Body.Close()
		}
		keys, err := g.admin.SigningKeys()
		if err != nil || len(keys) != 2 || keys[0].State != "signing" || keys[1].State != "next" || keys[0].Algorithm != alg {
			t.Errorf("%+v, %v", keys, err)
		}
		metrics, _ := g.admin.Metrics()
		if !strings.Contains(string(metrics), `sluice_identity_tokens_total{result="signed"} `) || v.failures.Load() > 0 {
			t.Errorf("%d failures, metrics:\n%s", v.failures.Load(), metrics)
		}
		g.stop()
	}
}

// TestIdentityTokenRefused: nobody's requests are refused where that is wanted, and what no upstream would take as a head is.
func TestIdentityTokenRefused(t *testing.T) {
	i := newTokenIssuer(t)
	v := newTokenVerifier(t, "https://api.internal")
	g := run(t, identityTokenConfig(v, i, `anonymous: refuse, audience: "https://{upstream}.internal"`))
	v.use(g.addr)
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	f := func(status int, reason, path string, headers ...string) {
		t.Helper()
		_, got, body := v.ask(client, "http://"+g.addr+path, headers...)
		if got != status || !strings.Contains(body, reason) {
			t.Errorf("%s: %d, %s", path, got, body)
		}
	}
	f(403, `"error":"identity_missing"`, "/open")
	f(403, `"error":"identity_missing"`, "/open", "X-Identity-Token: x")
	f(200, "acme", "/key", "X-Api-Key: "+acmeKey)
	var many []string
	for n := range 90 {
		many = append(many, fmt.Sprint(strings.Repeat("g", 60), n))
	}
	f(403, `"error":"identity_too_large"`, "/token", "Authorization: Bearer "+i.token(map[string]any{"roles": many}))
	f(200, "user-1", "/token", "Authorization: Bearer "+i.token(map[string]any{"roles": many[:40]}))
}
