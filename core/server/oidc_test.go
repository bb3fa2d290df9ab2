package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// loginProvider is a provider of logins that says yes to everybody, and can be made to say what it must not.
type loginProvider struct {
	*tokenIssuer
	server *httptest.Server
	mu     sync.Mutex
	codes  map[string]url.Values // what was asked for, by code
	tokens map[string]string     // nonces, by refresh token
	user   string
	claims map[string]any // that differ in ID tokens
	info   map[string]any // that differ in userinfo
	answer map[string]any // that differ in answers of the token endpoint
	down   bool
	twice  bool // codes may be used again
	asked  map[string]int
	hold   chan struct{}
}

func newLoginProvider(t testing.TB) *loginProvider {
	t.Helper()
	p := &loginProvider{tokenIssuer: newTokenIssuer(t), codes: map[string]url.Values{}, tokens: map[string]string{}, user: "ann", asked: map[string]int{}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.server.Close)
	return p
}

// set changes something.
func (p *loginProvider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *loginProvider) count(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

func (p *loginProvider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	hold, down := p.hold, p.down
	p.mu.Unlock()
	if hold != nil && r.URL.Path == "/token" {
		<-hold
	}
	if down {
		w.WriteHeader(503)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	say := func(v map[string]any) { _ = json.NewEncoder(w).Encode(v) }
	at := p.server.URL
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		say(map[string]any{"issuer": at, "authorization_endpoint": at + "/authorize?x=1", "token_endpoint": at + "/token", "jwks_uri": p.url,
			"userinfo_endpoint": at + "/userinfo", "end_session_endpoint": at + "/end"})
	case "/authorize":
		code := rand.Text()
		p.codes[code] = r.URL.Query()
		back, err := url.Parse(r.URL.Query().Get("redirect_uri"))
		if err != nil || r.URL.Query().Get("code_challenge_method") != "S256" || r.URL.Query().Get("client_id") != "gateway" {
			w.WriteHeader(400)
			return
		}
		back.RawQuery = url.Values{"code": {code}, "state": {r.URL.Query().Get("state")}, "iss": {at}}.Encode()
		http.Redirect(w, r, back.String(), http.StatusFound)
	case "/token":
		p.token(w, r, say)
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer access-"+p.user {
			w.WriteHeader(401)
			return
		}
		info := map[string]any{"sub": p.user, "email": p.user + "@example.com", "iss": "https://evil.test"}
		maps.Copy(info, p.info)
		say(info)
	default:
		_, _ = fmt.Fprintf(w, "provider %s", r.URL)
	}
}

func (p *loginProvider) token(w http.ResponseWriter, r *http.Request, say func(map[string]any)) {
	id, secret, _ := r.BasicAuth()
	refuse := func() { w.WriteHeader(400); say(map[string]any{"error": "invalid_grant"}) }
	if err := r.ParseForm(); err != nil || id != "gateway" || secret != "s3cret" {
		w.WriteHeader(401)
		return
	}
	nonce := ""
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		q, ok := p.codes[r.PostForm.Get("code")]
		if !p.twice {
			delete(p.codes, r.PostForm.Get("code"))
		}
		if !ok || r.PostForm.Get("redirect_uri") != q.Get("redirect_uri") || pkce(r.PostForm.Get("code_verifier")) != q.Get("code_challenge") {
			refuse()
			return
		}
		nonce = q.Get("nonce")
	case "refresh_token":
		var ok bool
		if nonce, ok = p.tokens[r.PostForm.Get("refresh_token")]; !ok {
			refuse()
			return
		}
		delete(p.tokens, r.PostForm.Get("refresh_token"))
	}
	refresh := rand.Text()
	p.tokens[refresh] = nonce
	other := map[string]any{"iss": p.server.URL, "aud": "gateway", "sub": p.user, "nonce": nonce, "sid": "s-" + p.user}
	maps.Copy(other, p.claims)
	all := map[string]any{"token_type": "bearer", "access_token": "access-" + p.user, "refresh_token": refresh, "expires_in": 3600,
		"id_token": p.sign("ES256", `{"alg":"ES256","kid":"e"}`, claimsWith(other))}
	maps.Copy(all, p.answer)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	say(all)
}

// loginGate is a gateway on which the paths below / need a login. more is added to the policy.
func loginGate(t *testing.T, p *loginProvider, more string) *running {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `policies:
  people: { oidc: { issuer: "`+p.server.URL+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false }, headers: { X-User: sub, X-Mail: email }`+more+` } }
routes: [{ match: "/*", use: people, to: a }]
`, 1))
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until the provider is known
		all, err := g.admin.Sessions()
		if err == nil && len(all) == 1 && all[0].Known {
			return g
		}
		if time.Now().After(deadline) {
			t.Fatalf("the provider is not known: %v %v", all, err)
		}
	}
}

// browser keeps cookies. It follows redirects unless told otherwise.
type browser struct {
	t      testing.TB
	client *http.Client
	addr   string
}

func newBrowser(t testing.TB, addr string) *browser {
	jar, _ := cookiejar.New(nil)
	b := &browser{t: t, addr: addr, client: &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: patience}}
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

// get goes to a path or URL. With stay it follows no redirect.
func (b *browser) get(to string, stay bool, headers ...string) (*http.Response, string) {
	b.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = "http://" + b.addr + to
	}
	req, err := http.NewRequest("GET", to, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	return b.do(req, stay)
}

func (b *browser) do(req *http.Request, stay bool) (*http.Response, string) {
	b.t.Helper()
	client := *b.client
	if stay {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	res, err := client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	return res, string(body)
}

// want goes to a path and wants a status, and something in the body.
func (b *browser) want(what, to string, status int, text string, headers ...string) string {
	b.t.Helper()
	res, body := b.get(to, false, headers...)
	if res.StatusCode != status || !strings.Contains(body, text) {
		b.t.Errorf("%s: %d %s, want %d and %q", what, res.StatusCode, body, status, text)
	}
	return body
}

// comesBack goes to a path without a session, logs in, and gives where the provider sends the browser back to, without going there.
func (b *browser) comesBack(path string) string {
	b.t.Helper()
	b.client.Jar.SetCookies(&url.URL{Scheme: "http", Host: b.addr}, []*http.Cookie{{Name: "session", MaxAge: -1}})
	res, body := b.get(path, true)
	if res.StatusCode != 302 {
		b.t.Fatalf("%d %s", res.StatusCode, body)
	}
	res, _ = b.get(res.Header.Get("Location"), true)
	return res.Header.Get("Location")
}

// TestLogin shows a login, what the upstream learns, and a logout.
func TestLogin(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, ", userinfo: true, after_logout: /bye")
	b := newBrowser(t, g.addr)
	body := b.want("login", "/deep/link?a=b%20c&d", 200, "GET /deep/link?a=b%20c&d HTTP/1.1", "X-User: root", "x_mail: root")
	for _, sees := range []string{"X-User: ann\r\n", "X-Mail: ann@example.com\r\n", "X-Consumer-Name: ann\r\n"} {
		if !strings.Contains(body, sees) {
			t.Errorf("the upstream has not got %q:\n%s", sees, body)
		}
	}
	if strings.Contains(body, "root") || strings.Contains(body, "session") {
		t.Errorf("the upstream has got what is not for it:\n%s", body)
	}
	b.want("access", "/x", 200, "X-User: ann\r\n")
	if n := p.count("/token"); n != 1 {
		t.Errorf("%d codes for one login", n)
	}
	req, _ := http.NewRequest("POST", "http://"+g.addr+"/form", strings.NewReader("a=b"))
	if res, body := b.do(req, true); res.StatusCode != 200 || !strings.Contains(body, "POST /form") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	all, err := g.admin.Sessions()
	if err != nil || all[0].Sessions != 1 || all[0].Last[0].Subject != "ann" {
		t.Errorf("%+v %v", all, err)
	}
	old := b.client.Jar.Cookies(&url.URL{Scheme: "http", Host: g.addr})
	if res, body := b.get("/oauth2/logout", true, "Sec-Fetch-Site: cross-site"); res.StatusCode != 403 || !strings.Contains(body, "logout_cross_site") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	res, _ := b.get("/oauth2/logout", true)
	to, _ := url.Parse(res.Header.Get("Location"))
	if q := to.Query(); res.StatusCode != 303 || to.Path != "/end" || q.Get("post_logout_redirect_uri") != "http://"+g.addr+"/bye" || strings.Count(q.Get("id_token_hint"), ".") != 2 {
		t.Errorf("%d %s", res.StatusCode, to)
	}
	b.client.Jar.SetCookies(&url.URL{Scheme: "http", Host: g.addr}, old) // he keeps the cookie, it is worth nothing
	b.want("after logout", "/x", 401, "login_required", "Accept: application/json")
	metrics, err := g.admin.Metrics()
	for _, want := range []string{`sluice_logins_total{policy="people",result="done"} 1`, `sluice_sessions{policy="people"} 0`, `reason="login_required"`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("metrics lack %s: %v", want, err)
		}
	}
}

// TestLoginCallers shows who is sent to the provider, and who is told that he must log in.
func TestLoginCallers(t *testing.T) {
	g := loginGate(t, newLoginProvider(t), "")
	for _, c := range []struct {
		method  string
		headers []string
		status  int
	}{
		{"GET", nil, 302},
		{"HEAD", nil, 302},
		{"POST", nil, 401},
		{"GET", []string{"Accept: application/json"}, 401},
		{"GET", []string{"Accept: */*"}, 401},
		{"GET", []string{"X-Requested-With: XMLHttpRequest"}, 401},
		{"GET", []string{"Sec-Fetch-Mode: cors"}, 401},
		{"GET", []string{"Sec-Fetch-Mode: navigate"}, 302},
		{"GET", []string{"Cookie: session=x"}, 302},
		{"GET", []string{"Cookie: session=" + strings.Repeat("A", 43)}, 302},
		{"GET", []string{"Cookie: session=" + strings.Repeat("A", 43) + "; session=" + strings.Repeat("A", 43)}, 403},
	} {
		req, _ := http.NewRequest(c.method, "http://"+g.addr+"/x", nil)
		req.Header.Set("Accept", "text/html")
		for _, line := range c.headers {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		res, body := newBrowser(t, g.addr).do(req, true)
		if res.StatusCode != c.status || (c.status == 401) != (res.Header.Get("WWW-Authenticate") == `Cookie realm="sluice"`) {
			t.Errorf("%s %v: %d %s", c.method, c.headers, res.StatusCode, body)
		}
	}
}

// TestLoginLinks: however a link is written, a login leads to the host that was asked.
func TestLoginLinks(t *testing.T) {
	g := loginGate(t, newLoginProvider(t), "")
	for path, want := range map[string]string{
		"/a/b?c=//evil.test": "/a/b?c=//evil.test", "//evil.test/x": "/", "/%2f/evil.test": "", "/%5cevil.test": "", "/\\evil.test": "", "/.//evil.test": "/",
		"/x?" + strings.Repeat("y", 3000): "/", "/?a=\"><script>": "",
	} {
		b := newBrowser(t, g.addr)
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/", nil)
		req.Header.Set("Accept", "text/html")
		raw, query, some := strings.Cut(path, "?")
		req.URL.Opaque, req.URL.RawQuery = "//"+g.addr+raw, query
		_ = some
		res, body := b.do(req, true)
		if res.StatusCode == 400 {
			continue // refused as a target
		}
		if res.StatusCode != 302 {
			t.Errorf("%q: %d %s", path, res.StatusCode, body)
			continue
		}
		res, _ = b.get(res.Header.Get("Location"), true)
		res, _ = b.get(res.Header.Get("Location"), true)
		got := res.Header.Get("Location")
		if res.StatusCode != 302 || want != "" && got != want || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\"<>") {
			t.Errorf("%q leads to %d %q", path, res.StatusCode, got)
		}
	}
}

// TestLoginHostile: what comes back is believed from the browser that went, once, and if the provider says the same.
func TestLoginHostile(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, ", claims: { plan: gold }")
	b := newBrowser(t, g.addr)
	with := func(back string, change func(q url.Values)) string {
		u, _ := url.Parse(back)
		q := u.Query()
		change(q)
		u.RawQuery = q.Encode()
		return u.String()
	}
	forged := func(state string) func(q url.Values) { return func(q url.Values) { q.Set("state", state) } }
	set := func(name, value string) func(q url.Values) { return func(q url.Values) { q.Set(name, value) } }
	for _, c := range []struct {
		name   string
		change func(q url.Values)
		status int
		reason string
	}{
		{"no state", func(q url.Values) { q.Del("state") }, 403, "login_state"},
		{"two states", func(q url.Values) { q.Add("state", "x") }, 403, "login_state"},
		{"forged", forged(strings.Repeat("A", 200)), 403, "login_state"},
		{"no base64", forged("%%%"), 403, "login_state"},
		{"long", forged(strings.Repeat("A", 5000)), 403, "login_state"},
		{"no code", func(q url.Values) { q.Del("code") }, 401, "login_code"},
		{"another code", set("code", "x"), 401, "login_code"},
		{"another issuer", set("iss", "https://evil.test"), 403, "login_issuer"},
		{"denied", set("error", "access_denied"), 403, "login_denied"},
		{"failed", set("error", "<script>"), 403, "login_failed"},
		{"the provider has failed", set("error", "server_error"), 503, "provider_unavailable"},
		{"the provider is away", set("error", "temporarily_unavailable"), 503, "provider_unavailable"},
	} {
		b.want(c.name, with(b.comesBack("/"), c.change), c.status, `"error":"`+c.reason+`"`)
	}
	newBrowser(t, g.addr).want("another browser", b.comesBack("/"), 403, "login_state")
	back, other := b.comesBack("/a"), newBrowser(t, g.addr)
	other.comesBack("/") // with a login of its own
	other.want("another browser's state", back, 403, "login_state")
	for _, c := range []struct {
		name   string
		claims map[string]any
		reason string
	}{
		{"nonce", map[string]any{"nonce": "x"}, "id_token_nonce"},
		{"no nonce", map[string]any{"nonce": nil}, "id_token_nonce"},
		{"issuer", map[string]any{"iss": p.server.URL + "/"}, "id_token_issuer"},
		{"audience", map[string]any{"aud": "other"}, "id_token_audience"},
		{"audiences", map[string]any{"aud": []string{"gateway", "other"}}, "id_token_audience"},
		{"party", map[string]any{"azp": "other"}, "id_token_audience"},
		{"expired", map[string]any{"exp": time.Now().Unix() - 60}, "token_expired"},
		{"endless", map[string]any{"exp": nil}, "token_without_exp"},
		{"future", map[string]any{"iat": time.Now().Unix() + 600}, "token_not_yet_valid"},
		{"nobody", map[string]any{"sub": ""}, "id_token_subject"},
		{"access token", map[string]any{"at_hash": "AAAA"}, "id_token_at_hash"},
		{"plan", map[string]any{"plan": "none"}, "login_claims"},
	} {
		p.set(func() { p.claims = c.claims })
		status := map[bool]int{false: 401, true: 403}[c.reason == "login_claims"]
		b.want(c.name, b.comesBack("/"), status, `"error":"`+c.reason+`"`)
	}
	p.set(func() { p.claims = map[string]any{"aud": []string{"other", "gateway"}, "azp": "gateway"} })
	b.want("several audiences", b.comesBack("/"), 200, "GET / ")
	p.set(func() { p.claims = nil })
	for name, token := range map[string]any{"none": p.sign("none", `{"alg":"none"}`, claimsWith(nil)),
		"secret": p.sign("HS256", `{"alg":"HS256"}`, claimsWith(nil)), "no token": nil} {
		p.set(func() { p.answer = map[string]any{"id_token": token} })
		b.want(name, b.comesBack("/"), 401, `"error":"token_`)
	}
	p.set(func() { p.answer = nil })
	back = b.comesBack("/once")
	b.want("once", back, 200, "GET /once")
	b.want("replayed", back, 401, "login_code")
	p.set(func() { p.twice = true })
	back = b.comesBack("/once")
	b.want("once more", back, 200, "GET /once")
	b.want("replayed at a lenient provider", back, 401, "login_replayed")
}

// pkce is the challenge of a verifier (RFC 7636, 4.2).
func pkce(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return b64(sum[:])
}
