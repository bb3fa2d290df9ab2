package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientIssuer gives tokens to the gateway, and is an upstream that takes the last of them alone.
type clientIssuer struct {
	url, upstream string

	mu      sync.Mutex
	given   int
	expires string // JSON of expires_in
	away    bool
	refuse  bool // the upstream takes none
	form    string
}

func newClientIssuer(t testing.TB) *clientIssuer {
	t.Helper()
	i := &clientIssuer{expires: "3600"}
	s := httptest.NewServer(http.HandlerFunc(i.token))
	t.Cleanup(s.Close)
	i.url = s.URL + "/token"
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.refuse {
			w.WriteHeader(401)
		}
		_, _ = fmt.Fprintf(w, "%q %q", r.Header["Authorization"], r.Header["Authorization_"])
	}))
	t.Cleanup(u.Close)
	i.upstream = u.Listener.Addr().String()
	return i
}

func (i *clientIssuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	if i.away || r.ParseForm() != nil || id != "gateway" || secret != "s3cret" && secret != "s3+%26cret" || r.PostForm.Get("grant_type") != "client_credentials" {
		w.WriteHeader(503)
		return
	}
	i.given++
	i.form = r.PostForm.Encode()
	_, _ = fmt.Fprintf(w, `{"access_token":"t%d","token_type":"bearer","expires_in":%s}`, i.given, i.expires)
}

func (i *clientIssuer) do(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

func (i *clientIssuer) count() (n int) {
	i.do(func() { n = i.given })
	return n
}

func authorizeConfig(i *clientIssuer, more string) string {
	credentials := fmt.Sprintf(`{ client_credentials: { url: %q, client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, scopes: [read, write], audience: shop, timeout: 500ms%s } }`, i.url, more)
	return fmt.Sprintf(`
loops: 2
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  a: { endpoints: [%q], authorize: %s }
  b: { endpoints: [%q], authorize: %s }
  c: { endpoints: [%q] }
routes: [{ match: "/*", to: a }, { match: /b, to: b }, { match: /c, to: c }]
`, i.upstream, credentials, i.upstream, credentials, i.upstream)
}

// TestClientCredentials: one token serves all upstreams and loops, in the place of what clients send; it is there before the first request,
// and stays over reloads.
func TestClientCredentials(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	i := newClientIssuer(t)
	g := run(t, authorizeConfig(i, ""))
	f := func(path, want string, status int) {
		t.Helper()
		res, body := forwardGet(t, g.addr, path, map[string]string{"Authorization": "Basic Y2xpZW50"})
		if res.StatusCode != status || !strings.Contains(body, want) || status == 200 && path != "/c" && strings.Contains(body, "Basic") {
			t.Errorf("%s: %d %s, want %d %s", path, res.StatusCode, body, status, want)
		}
	}
	for range 4 {
		f("/", `["Bearer t1"]`, 200)
		f("/b", `["Bearer t1"]`, 200)
	}
	f("/c", `["Basic Y2xpZW50"]`, 200)
	i.do(func() {
		if i.given != 1 || i.form != "audience=shop&grant_type=client_credentials&scope=read+write" {
			t.Errorf("%d tokens, %s", i.given, i.form)
		}
	})
	g.reload()
	f("/", `["Bearer t1"]`, 200)
	i.do(func() { i.refuse = true })
	f("/", `["Bearer t1"]`, 401)
	for range 20 {
		f("/b", `["Bearer t1"]`, 401)
	}
	time.Sleep(50 * time.Millisecond)
	if n := i.count(); n != 1 {
		t.Errorf("a token that was just given is asked for %d times", n)
	}
	text, err := g.admin.Metrics()
	if err != nil || !strings.Contains(string(text), `sluice_upstream_token_fetches_total{upstream="a",result="ok"} 1`) {
		t.Errorf("%v: fetches are not counted", err)
	}
	shown, err := g.admin.Config()
	if all := string(shown) + g.log.String(); err != nil || strings.Contains(all, "s3cret") || strings.Contains(all, "Bearer t") {
		t.Errorf("%v: secrets are shown", err)
	}
}

// TestClientCredentialsLife: the next token is fetched before the last one ends, and at once, within bounds, when an upstream takes it no
// more.
func TestClientCredentialsLife(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	i := newClientIssuer(t)
	i.expires = `"2"` // as a string
	g := run(t, authorizeConfig(i, ""))
	var failed int
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if res, _ := forwardGet(t, g.addr, "/", nil); res.StatusCode != 200 {
			failed++
		}
	}
	if n := i.count(); failed > 0 || n < 2 || n > 3 {
		t.Errorf("%d requests failed, %d tokens", failed, n)
	}
	i.do(func() { i.away = true })
	eventually(t, "there is no token any more", func() bool {
		res, body := forwardGet(t, g.addr, "/", nil)
		return res.StatusCode == 503 && strings.Contains(body, `"error":"authorization_unavailable"`)
	})
	i.do(func() { i.away, i.expires = false, "12" })
	eventually(t, "there is one again", func() bool {
		res, _ := forwardGet(t, g.addr, "/", nil)
		return res.StatusCode == 200
	})
	before := i.count()
	i.do(func() { i.refuse = true })
	began := time.Now()
	for i.count() == before && time.Since(began) < 15*time.Second {
		res, _ := forwardGet(t, g.addr, "/", nil)
		_, _ = io.Copy(io.Discard, res.Body)
		time.Sleep(20 * time.Millisecond)
	}
	if n := i.count() - before; n != 1 {
		t.Errorf("%d tokens after one was rejected", n)
	}
}

// TestClientCredentialsAllow: where it is wanted, requests go on without a token, and without the client's.
func TestClientCredentialsAllow(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "wrong")
	i := newClientIssuer(t)
	g := run(t, authorizeConfig(i, ", on_error: allow"))
	res, body := forwardGet(t, g.addr, "/", map[string]string{"Authorization": "Basic Y2xpZW50", "authorization_": "x"})
	if res.StatusCode != 200 || strings.Contains(body, "Basic") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	res, body = forwardGet(t, g.addr, "/c", map[string]string{"Authorization": "Basic Y2xpZW50"})
	if res.StatusCode != 200 || !strings.Contains(body, "Basic") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
