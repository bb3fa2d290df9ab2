package server

import (
	"bufio"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// realProvider builds and starts the provider of testdata/provider, whose access tokens last so long, and gives its issuer.
func realProvider(t *testing.T, life string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	binary := filepath.Join(t.TempDir(), "provider")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir, build.Env = "testdata/provider", append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the provider: %v\n%s", err, out)
	}
	c := exec.Command(binary, life)
	c.Stderr = &journal{}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // and with it the program
		_ = c.Wait()
		if t.Failed() {
			t.Logf("the provider says:\n%s", c.Stderr)
		}
	})
	issuer, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(issuer)
}

// logsIn goes to a path, fills in the provider's form and gives the last answer.
func (b *browser) logsIn(path, name string, stay bool) (*http.Response, string) {
	b.t.Helper()
	res, body := b.get(path, false)
	if !strings.Contains(body, "<form") {
		b.t.Fatalf("this is no form: %d %s", res.StatusCode, body)
	}
	req, err := http.NewRequest("POST", res.Request.URL.String(), strings.NewReader(url.Values{"name": {name}}.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	return b.do(req, stay)
}

// refreshed is how often tokens were refreshed.
func refreshed(t *testing.T, g *running) int {
	t.Helper()
	text, err := g.admin.Metrics()
	found := regexp.MustCompile(`sluice_login_refreshes_total\{policy="people",result="refreshed"\} ([0-9]+)`).FindSubmatch(text)
	if err != nil || found == nil {
		t.Fatalf("nothing is told of refreshes: %v", err)
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n
}

// realGate is a gateway whose people log in with a provider. more is added to the policy.
func realGate(t *testing.T, issuer, more string) *running {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", "a secret of the gateway")
	g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `policies:
  people: { oidc: { issuer: "`+issuer+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, scopes: [openid, offline_access],
    cookie: { name: session, secure: false }, headers: { X-Name: name }, `+more+` } }
routes: [{ match: /bye, respond: { status: 200, body: goodbye } }, { match: "/*", use: people, to: a }]
`, 1))
	b := newBrowser(t, g.addr)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until the provider is known
		if res, _ := b.get("/", true); res.StatusCode == 302 {
			return g
		}
		if time.Now().After(deadline) {
			t.Fatalf("the provider is not known\n%s", g.log)
		}
	}
}

// TestRealProvider: login, access, refresh with rotation, replay, forged states, refusal, revocation and logout with a provider that somebody
// else has written, which requires PKCE and knows the client by its secret.
func TestRealProvider(t *testing.T) {
	issuer := realProvider(t, "1s")
	g := realGate(t, issuer, "after_logout: /bye")
	b := newBrowser(t, g.addr)
	res, body := b.logsIn("/deep?x=1", "ann", false)
	if res.StatusCode != 200 || !strings.Contains(body, "GET /deep?x=1 ") || !strings.Contains(body, "X-Name: The ann\r\n") || !strings.Contains(body, "X-Consumer-Name: ann\r\n") {
		t.Fatalf("%d %s\n%s", res.StatusCode, body, g.log)
	}
	for deadline := time.Now().Add(patience); refreshed(t, g) < 2; time.Sleep(20 * time.Millisecond) { // between two looks
		if b.want("access", "/", 200, "X-Name: The ann\r\n"); t.Failed() || time.Now().After(deadline) {
			t.Fatalf("the tokens are not refreshed twice\n%s", g.log)
		}
	}
	other := newBrowser(t, g.addr)
	res, _ = other.logsIn("/x", "bob", true)
	back := res.Header.Get("Location")
	other.want("the code", back, 200, "X-Name: The bob\r\n")
	other.want("the code again", back, 401, "login_code")
	for name, state := range map[string]string{"forged": strings.Repeat("A", 200), "none": ""} {
		res, _ = newBrowser(t, g.addr).logsIn("/x", "eve", true)
		to, _ := url.Parse(res.Header.Get("Location"))
		q := to.Query()
		q.Set("state", state)
		to.RawQuery = q.Encode()
		other.want("a state that is "+name, to.String(), 403, "login_state")
	}
	res, _ = newBrowser(t, g.addr).logsIn("/x", "eve", true)
	other.want("the state of another browser", res.Header.Get("Location"), 403, "login_state")
	// A provider that sees a code twice revokes what it gave for it (RFC 6749, 4.1.2), so he logs in once more.
	other = newBrowser(t, g.addr)
	if res, body := other.logsIn("/", "cid", false); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if n, err := g.admin.RevokeSessions("cid"); err != nil || n.Revoked != 1 {
		t.Errorf("%+v %v", n, err)
	}
	other.want("revoked", "/", 401, "login_required", "Accept: application/json")
	mallory := newBrowser(t, g.addr)
	if res, body := mallory.logsIn("/", "mallory", false); res.StatusCode != 403 || !strings.Contains(body, "login_denied") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	before := b.client.Jar.Cookies(&url.URL{Scheme: "http", Host: g.addr})
	res, _ = b.get("/oauth2/logout", true)
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 303 {
		t.Fatalf("%d %v", res.StatusCode, err)
	}
	for name, value := range map[string]string{"id_token_hint": to.Query().Get("id_token_hint") + "A", "client_id": "other", "post_logout_redirect_uri": "http://127.0.0.1/elsewhere"} {
		wrong, q := *to, to.Query()
		q.Set(name, value)
		wrong.RawQuery = q.Encode()
		b.want("a logout that the provider cannot believe", wrong.String(), 400, "no logout: "+name)
	}
	b.want("logout", to.String(), 200, "goodbye")
	b.want("afterwards", "/", 401, "login_required", "Accept: application/json")
	b.client.Jar.SetCookies(&url.URL{Scheme: "http", Host: g.addr}, before)
	b.want("with the cookie that he had", "/", 401, "login_required", "Accept: application/json")
}

// TestRealProviderExpired: a session ends when nobody has used it for a time, and after its whole time however much it is used, whatever the
// provider would refresh.
func TestRealProviderExpired(t *testing.T) {
	const idle, life = 2 * time.Second, 5 * time.Second
	g := realGate(t, realProvider(t, "1s"), "idle: 2s, lifetime: 5s")
	used, unused := newBrowser(t, g.addr), newBrowser(t, g.addr)
	begun := time.Now()
	for name, b := range map[string]*browser{"ann": used, "bob": unused} {
		if res, body := b.logsIn("/", name, false); res.StatusCode != 200 || !strings.Contains(body, "X-Name: The "+name+"\r\n") {
			t.Fatalf("%d %s\n%s", res.StatusCode, body, g.log)
		}
	}
	ended, idled := time.Time{}, false
	for deadline := time.Now().Add(patience); ended.IsZero(); time.Sleep(50 * time.Millisecond) { // between two uses: a look is a use
		if res, body := used.get("/", true, "Accept: application/json"); res.StatusCode == 401 && strings.Contains(body, "login_required") {
			ended = time.Now()
		} else if res.StatusCode != 200 || time.Now().After(deadline) {
			t.Fatalf("%d %s\n%s", res.StatusCode, body, g.log)
		}
		if ended.IsZero() && time.Since(begun) > idle/2 && time.Since(begun) < 3*idle/4 {
			unused.want("before it is idle", "/", 200, "X-Name: The bob\r\n")
		}
		if ended.IsZero() && !idled && time.Since(begun) > 2*idle { // its whole time is not over yet
			idled = true
			unused.want("idle", "/", 401, "login_required", "Accept: application/json")
		}
	}
	if n := ended.Sub(begun); n < life {
		t.Errorf("a session that is used has ended after %s", n)
	}
	if n := refreshed(t, g); n == 0 {
		t.Error("nothing was refreshed meanwhile")
	}
	if !idled {
		t.Error("nothing was idle long enough before its whole time was over")
	}
}
