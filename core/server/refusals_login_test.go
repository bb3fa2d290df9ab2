package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	stdhmac "crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// loginRefusals are of browsers that come back from a provider.
type loginRefusals struct {
	t      *testing.T
	client *http.Client
	all    []refusal
	asked  int // requests that were made to get there
}

// newLoginRefusals begins logins, and gives with what they must not end.
func newLoginRefusals(t *testing.T, a *authority, g *running, p *loginProvider) *loginRefusals {
	t.Helper()
	l := &loginRefusals{t: t, client: a.client(g.addr, false, nil)}
	p.set(func() { p.twice = true })
	set := func(name, value string) func(q url.Values) { return func(q url.Values) { q.Set(name, value) } }
	l.add(set("state", strings.Repeat("A", 200)), 403, "login_state")
	l.add(func(q url.Values) { q.Del("state") }, 403, "login_state")
	_, foreign := l.begin()
	l.add(func(q url.Values) { q.Set("state", foreign.Get("state")) }, 403, "login_state")
	cookie, q := l.begin()
	if hasRedis() {
		q.Set("state", oldState(t, p.server.URL, "gateway", cookie))
		l.put(cookie, q, 401, "login_expired")
	}
	l.add(set("iss", "https://evil.test"), 403, "login_issuer")
	l.add(set("code", "x"), 401, "login_code")
	l.add(set("error", "access_denied"), 403, "login_denied")
	l.add(set("error", "invalid_scope"), 403, "login_failed")
	cookie, q = l.begin()
	if res := l.get("/oauth2/callback?"+q.Encode(), cookie); res.StatusCode != 302 || res.Header.Get("Location") != "/oidc" {
		t.Errorf("a login: %d", res.StatusCode)
	}
	l.put(cookie, q, 401, "login_replayed")
	l.all = append(l.all, refusal{"/oidc", []string{"Cookie: __Host-session=a; __Host-session=b"}, nil, 403, "session_ambiguous", ""})
	return l
}

// add is a login that comes back with something else.
func (l *loginRefusals) add(change func(q url.Values), status int, reason string) {
	l.t.Helper()
	cookie, q := l.begin()
	change(q)
	l.put(cookie, q, status, reason)
}

func (l *loginRefusals) put(cookie string, q url.Values, status int, reason string) {
	l.all = append(l.all, refusal{"/oauth2/callback?" + q.Encode(), []string{"Cookie: __Host-session-login=" + cookie}, nil, status, reason, ""})
}

// begin goes to the provider, and gives what the browser is known by and what it comes back with.
func (l *loginRefusals) begin() (cookie string, q url.Values) {
	l.t.Helper()
	res := l.get("/oidc", "")
	for deadline := time.Now().Add(patience); res.StatusCode == 503 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // until Redis is known
		res = l.get("/oidc", "")
	}
	for _, c := range res.Cookies() {
		if c.Name == "__Host-session-login" {
			cookie = c.Value
		}
	}
	if res.StatusCode != 302 || cookie == "" {
		l.t.Fatalf("no login was begun: %d %v", res.StatusCode, res.Header)
	}
	req, err := http.NewRequest("GET", res.Header.Get("Location"), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	res, _ = roundTrip(l.t, http.DefaultTransport, req)
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || back.Query().Get("code") == "" {
		l.t.Fatalf("the provider sends the browser to %v, %v", back, err)
	}
	return cookie, back.Query()
}

// get makes one of the requests that are counted.
func (l *loginRefusals) get(path, cookie string) *http.Response {
	l.t.Helper()
	req, err := http.NewRequest("GET", "https://a.test"+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if cookie != "" {
		req.Header.Set("Cookie", "__Host-session-login="+cookie)
	}
	l.asked++
	res, _ := roundTrip(l.t, l.client.Transport, req)
	return res
}

// hasRedis says whether sessions can be shared, whose keys a test knows.
func hasRedis() bool {
	_, err := exec.LookPath("redis-server")
	return err == nil
}

// oldState is the state of a login that a browser began ten minutes ago, made as the gateway makes it: with what it derives of the key of its
// sessions.
func oldState(t *testing.T, issuer, client, browser string) string {
	t.Helper()
	space := sha256.Sum256([]byte("people\x00" + issuer + "\x00" + client))
	secret, err := hkdf.Key(sha256.New, []byte("a secret of at least thirty-two bytes"), nil, "sluice sessions login\x00"+hex.EncodeToString(space[:16]), 32)
	if err != nil {
		t.Fatal(err)
	}
	m := stdhmac.New(sha256.New, secret)
	m.Write([]byte("state"))
	block, err := aes.NewCipher(m.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(-10*time.Minute-time.Second).UnixNano()))
	b = append(append(b, make([]byte, 16)...), "/oidc"...)
	bound := "people\x00" + browser + "\x00https://a.test/oauth2/callback"
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, b, []byte(bound)))
}
