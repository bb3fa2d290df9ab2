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

// TestRealProvider: login, access, refresh with rotation, replay, refusal and logout with a provider that somebody else has written, which
// requires PKCE and knows the client by its secret.
func TestRealProvider(t *testing.T) {
	issuer := realProvider(t, "1s")
	t.Setenv("SLUICE_TEST_SECRET", "a secret of the gateway")
	g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `policies:
  people: { oidc: { issuer: "`+issuer+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, scopes: [openid, offline_access],
    cookie: { name: session, secure: false }, headers: { X-Name: name }, after_logout: /bye } }
routes: [{ match: /bye, respond: { status: 200, body: goodbye } }, { match: "/*", use: people, to: a }]
`, 1))
	b := newBrowser(t, g.addr)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until the provider is known
		if res, _ := b.get("/", true); res.StatusCode == 302 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the provider is not known\n%s", g.log)
		}
	}
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
	mallory := newBrowser(t, g.addr)
	if res, body := mallory.logsIn("/", "mallory", false); res.StatusCode != 403 || !strings.Contains(body, "login_denied") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	b.want("logout", "/oauth2/logout", 200, "goodbye")
	b.want("afterwards", "/", 401, "login_required", "Accept: application/json")
}
