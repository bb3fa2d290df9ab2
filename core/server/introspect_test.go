package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
)

// introspector is an issuer that is asked about tokens. It knows us by one of three ways.
type introspector struct {
	url   string
	key   *ecdsa.PrivateKey
	asked atomic.Int64
	hold  atomic.Pointer[chan struct{}]
	raw   atomic.Pointer[string] // said in the place of an answer
}

func newIntrospector(t testing.TB) *introspector {
	t.Helper()
	i := &introspector{}
	var err error
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(i.answer))
	t.Cleanup(s.Close)
	i.url = s.URL + "/introspect"
	return i
}

func (i *introspector) knows(r *http.Request) bool {
	if id, secret, ok := r.BasicAuth(); ok {
		return id == "a%3Ab" && secret == "s3+%26cret"
	}
	if r.PostForm.Get("client_secret") != "" {
		return r.PostForm.Get("client_id") == "a:b" && r.PostForm.Get("client_secret") == "s3 &cret"
	}
	t, err := gojwt.Parse(r.PostForm.Get("client_assertion"), func(t *gojwt.Token) (any, error) { return &i.key.PublicKey, nil },
		gojwt.WithValidMethods([]string{"ES256"}), gojwt.WithAudience(i.url), gojwt.WithIssuer("a:b"), gojwt.WithSubject("a:b"), gojwt.WithExpirationRequired())
	return err == nil && t.Header["kid"] == "k1" && r.PostForm.Get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
}

func (i *introspector) answer(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	if err := r.ParseForm(); err != nil || r.Method != "POST" || !i.knows(r) {
		w.WriteHeader(401)
		return
	}
	if hold := i.hold.Load(); hold != nil {
		<-*hold
	}
	if raw := i.raw.Load(); raw != nil {
		_, _ = w.Write([]byte(*raw))
		return
	}
	name, good := strings.CutPrefix(r.PostForm.Get("token"), "good-")
	all := map[string]any{"active": good}
	if good {
		maps.Copy(all, map[string]any{"sub": name, "aud": "api", "iss": "https://id.test", "scope": "read write", "exp": time.Now().Unix() + 300, "plan": "gold"})
		switch name {
		case "expired":
			all["exp"] = time.Now().Unix() - 1
		case "early":
			all["nbf"] = time.Now().Unix() + 100
		case "text":
			all["exp"] = "99999999999"
		case "reader":
			all["scope"] = "read"
		case "other":
			all["aud"] = "web"
		case "foreign":
			all["iss"] = "https://evil.test"
		case "endless":
			delete(all, "exp")
		case "forged":
			all["sub"] = "a\r\nX-Admin: 1"
		}
	}
	_ = json.NewEncoder(w).Encode(all)
}

func introspectGate(t *testing.T, i *introspector, routes map[string]string) *gate {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", "s3 &cret")
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", "routes:\n", 1)
	for path, use := range routes {
		text += fmt.Sprintf("  - { match: \"%s\", use: [%s], to: a }\n", path, use)
	}
	text += "consumers: { acme: { tier: silver, jwt: [{ issuer: \"https://id.test\", subject: partner }] }, taken: { keys: \"" + keyHash("x") + "\" } }\n"
	text = strings.NewReplacer("CLIENT", "url: \""+i.url+"\", client: { id: \"a:b\", secret: \"env:SLUICE_TEST_SECRET\" }", "KEYFILE", file, "URL", i.url).Replace(text)
	return newGate(t, text)
}

// TestIntrospect shows tokens of every kind, and what the upstream learns of them.
func TestIntrospect(t *testing.T) {
	i := newIntrospector(t)
	g := introspectGate(t, i, map[string]string{
		"/basic":   `{ introspect: { CLIENT, audience: api, issuer: "https://id.test", scopes: [write], headers: { X-User: sub }, tier: plan } }`,
		"/post":    `{ introspect: { url: "URL", client: { id: "a:b", secret: "env:SLUICE_TEST_SECRET", auth: post } } }`,
		"/key":     `{ introspect: { url: "URL", client: { id: "a:b", key: "file:KEYFILE", key_id: k1, auth: private_key_jwt } } }`,
		"/perhaps": `{ introspect: { CLIENT, optional: true, cookie: token } }`,
		"/gold":    `{ introspect: { CLIENT, tier: plan } }, { access: { tiers: gold } }`,
	})
	bearer := func(token string) []string { return []string{"Authorization: Bearer " + token} }
	const invalid = `Bearer realm="sluice", error="invalid_token"`
	judge(t, g.addr, []identityCase{
		{name: "good", path: "/basic", headers: append(bearer("good-ann"), "X-User: root", "x_user: root"), status: 200,
			sees: []string{"X-User: ann\r\n", "X-Consumer-Name: ann\r\n"}, hidden: []string{"root", "authorization"}},
		{name: "again", path: "/basic", headers: bearer("good-ann"), status: 200, sees: []string{"X-User: ann\r\n"}},
		{name: "post", path: "/post", headers: bearer("good-ann"), status: 200},
		{name: "private key", path: "/key", headers: bearer("good-ann"), status: 200},
		{name: "none", path: "/basic", status: 401, reason: "token_missing", asks: `Bearer realm="sluice"`},
		{name: "inactive", path: "/basic", headers: bearer("bad"), status: 401, reason: "token_inactive", asks: invalid},
		{name: "expired", path: "/basic", headers: bearer("good-expired"), status: 401, reason: "token_expired", asks: invalid},
		{name: "early", path: "/basic", headers: bearer("good-early"), status: 401, reason: "token_not_yet_valid", asks: invalid},
		{name: "times as text", path: "/basic", headers: bearer("good-text"), status: 401, reason: "token_claims", asks: invalid},
		{name: "endless", path: "/basic", headers: bearer("good-endless"), status: 200},
		{name: "audience", path: "/basic", headers: bearer("good-other"), status: 401, reason: "token_audience", asks: invalid},
		{name: "issuer", path: "/basic", headers: bearer("good-foreign"), status: 401, reason: "token_issuer", asks: invalid},
		{name: "scope", path: "/basic", headers: bearer("good-reader"), status: 403, reason: "token_scope", asks: `Bearer realm="sluice", error="insufficient_scope", scope="write"`},
		{name: "a name that is no field", path: "/basic", headers: bearer("good-forged"), status: 403, reason: "consumer_unknown"},
		{name: "a consumer's name", path: "/basic", headers: bearer("good-taken"), status: 403, reason: "consumer_unknown"},
		{name: "a known subject", path: "/basic", headers: bearer("good-partner"), status: 200, sees: []string{"X-Consumer-Name: acme\r\n"}},
		{name: "white space", path: "/basic", headers: bearer("good-ann x"), status: 401, reason: "token_malformed", asks: invalid},
		{name: "bytes above", path: "/basic", headers: bearer("good-\xff"), status: 401, reason: "token_malformed", asks: invalid},
		{name: "two", path: "/basic", headers: append(bearer("good-ann"), bearer("good-bob")...), status: 401, reason: "token_ambiguous", asks: invalid},
		{name: "optional", path: "/perhaps", status: 200, hidden: []string{"consumer"}},
		{name: "cookie", path: "/perhaps", headers: []string{"Cookie: token=good-ann"}, status: 200, hidden: []string{"token"}},
		{name: "tier", path: "/gold", headers: bearer("good-ann"), status: 200},
		{name: "the consumer's own tier", path: "/gold", headers: bearer("good-partner"), status: 403, reason: "access_denied"},
	})
}

// TestIntrospectOnce: one token is asked about once, by however many; bad ones are kept too; what is no answer follows on_error.
func TestIntrospectOnce(t *testing.T) {
	i := newIntrospector(t)
	g := introspectGate(t, i, map[string]string{
		"/deny":  `{ introspect: { CLIENT, timeout: 1m, headers: { X-User: sub }, cache: { ttl: 0, negative: 0 } } }`,
		"/allow": `{ introspect: { CLIENT, headers: { X-User: sub }, on_error: allow, cache: { ttl: 0, negative: 0 } } }`,
		"/kept":  `{ introspect: { CLIENT } }`,
	})
	hold := make(chan struct{})
	i.hold.Store(&hold)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if res, body := forwardGet(t, g.addr, "/deny", map[string]string{"Authorization": "Bearer good-ann"}); res.StatusCode != 200 {
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // between two looks
		n := 0
		onEach(g.loops, func(l int) { n += g.workers[l].Active() })
		if n >= 30 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait", n)
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("%d questions about one token", n)
	}
	i.hold.Store(nil)
	close(hold)
	all.Wait()
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	t.Cleanup(client.CloseIdleConnections)
	for token, status := range map[string]int{"good-bob": 200, "bad": 401} {
		before := i.asked.Load()
		for range 3 {
			req, _ := http.NewRequest("HEAD", "http://"+g.addr+"/kept", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			if res, err := client.Do(req); err != nil || res.StatusCode != status {
				t.Errorf("%s: %v %v", token, res, err)
			}
		}
		if n := i.asked.Load() - before; n != 1 {
			t.Errorf("%s: %d questions", token, n)
		}
	}
	for _, raw := range []string{"", "{", "[]", `{"active":1}`, `{"active":"true"}`, `{"sub":"x"}`, `{"active":false,"active":true}`, `{"active":true} x`,
		`{"active":true,"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, `{"active":true,"a":"` + strings.Repeat("x", 100<<10) + `"}`} {
		i.raw.Store(&raw)
		res, body := forwardGet(t, g.addr, "/deny", map[string]string{"Authorization": "Bearer good-ann"})
		if res.StatusCode != 503 || !strings.Contains(body, "introspection_unavailable") {
			t.Errorf("%.50q: %d %s", raw, res.StatusCode, body)
		}
		res, body = forwardGet(t, g.addr, "/allow", map[string]string{"Authorization": "Bearer good-ann", "X-User": "root"})
		if res.StatusCode != 200 || strings.Contains(body, "root") || strings.Contains(body, "Authorization") || strings.Contains(body, "Consumer") {
			t.Errorf("%.50q: %d %s", raw, res.StatusCode, body)
		}
	}
}
