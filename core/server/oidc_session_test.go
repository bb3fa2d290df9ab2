package server

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// sessionCookie is what a browser shows for its session.
func (b *browser) sessionCookie() string {
	for _, c := range b.client.Jar.Cookies(&url.URL{Scheme: "http", Host: b.addr}) {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

// TestLoginTabs: a browser may log in several times at once, and each tab comes to where it wanted to go.
func TestLoginTabs(t *testing.T) {
	g := loginGate(t, newLoginProvider(t), "")
	b := newBrowser(t, g.addr)
	one, other := b.comesBack("/one"), b.comesBack("/other")
	b.want("the second", other, 200, "GET /other")
	first := b.sessionCookie()
	b.want("the first", one, 200, "GET /one")
	if all, err := g.admin.Sessions(); err != nil || all[0].Sessions != 1 || first == b.sessionCookie() {
		t.Errorf("%+v %v: a login does not end the session before it", all, err)
	}
}

// TestLoginRefresh: tokens are refreshed when their time comes, once for all who wait; who is refused is logged out.
func TestLoginRefresh(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, ", calls: 200, tier: plan")
	b := newBrowser(t, g.addr)
	b.loginWithTokensOver(p)
	p.set(func() { p.claims = map[string]any{"email": "new@example.com"} })
	before, hold := p.count("/token"), make(chan struct{})
	p.set(func() { p.hold = hold })
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() { b.want("while it is refreshed", "/", 200, "X-Mail: new@example.com\r\n") })
	}
	for deadline := time.Now().Add(patience); p.count("/token") == before; time.Sleep(5 * time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatal("nothing is refreshed")
		}
	}
	p.set(func() { p.hold = nil })
	close(hold)
	all.Wait()
	b.want("afterwards", "/", 200, "X-Mail: new@example.com\r\n")
	if n := p.count("/token") - before; n != 1 {
		t.Errorf("%d refreshes", n)
	}
	for name, change := range map[string]func(){
		"refused":        func() { clear(p.tokens) },
		"another person": func() { p.claims = map[string]any{"sub": "eve"} },
		"another issuer": func() { p.claims = map[string]any{"iss": "https://evil.test"} },
		"another login":  func() { p.claims = map[string]any{"nonce": "x"} },
	} {
		p.set(func() { p.claims = nil })
		b := newBrowser(t, g.addr)
		b.loginWithTokensOver(p)
		p.set(change)
		b.want(name, "/", 401, "login_required", "Accept: application/json")
		p.set(func() { p.claims = nil })
		b.want(name+", again", "/", 401, "login_required", "Accept: application/json")
	}
}

// loginWithTokensOver begins a session whose tokens are over at once, and makes those that come next last.
func (b *browser) loginWithTokensOver(p *loginProvider) {
	b.t.Helper()
	back := b.comesBack("/")
	p.set(func() { p.answer = map[string]any{"expires_in": 0} })
	if res, body := b.get(back, true); res.StatusCode != 302 || res.Header.Get("Location") != "/" {
		b.t.Fatalf("%d %s", res.StatusCode, body)
	}
	p.set(func() { p.answer = nil })
}

// TestLoginRevoked: a session that is revoked is worth nothing on any loop, by id, by subject, or by the provider.
func TestLoginRevoked(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, "")
	people := map[string]*browser{}
	login := func(names ...string) {
		for _, name := range names {
			p.set(func() { p.user = strings.TrimRight(name, "2") })
			people[name] = newBrowser(t, g.addr)
			people[name].want(name, "/", 200, "X-User: "+p.user)
		}
	}
	in := func(want string) {
		t.Helper()
		got := ""
		for _, name := range []string{"ann", "ann2", "bob", "cid"} {
			for range 4 { // over several loops
				res, _ := people[name].get("/", true, "Accept: application/json", "Connection: close")
				if res.StatusCode == 200 {
					got += name + " "
					break
				}
			}
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("logged in: %s, want %s", got, want)
		}
	}
	login("ann", "ann2", "bob", "cid")
	in("ann ann2 bob cid")
	if n, err := g.admin.RevokeSessions("ann"); err != nil || n.Revoked != 2 {
		t.Errorf("%+v %v", n, err)
	}
	in("bob cid")
	all, err := g.admin.Sessions()
	if err != nil || len(all[0].Last) != 2 {
		t.Fatalf("%+v %v", all, err)
	}
	if _, err := g.admin.RevokeSessions(all[0].Last[0].ID); err != nil {
		t.Error(err)
	}
	in(all[0].Last[1].Subject)
	if _, err := g.admin.RevokeSessions("nobody"); err == nil {
		t.Error("nobody's session was revoked")
	}
	login("ann", "ann2", "bob", "cid")
	tell := func(name string, other map[string]any, status int) {
		t.Helper()
		claims := map[string]any{"iss": p.server.URL, "aud": "gateway", "sub": "ann", "jti": name, "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
		maps.Copy(claims, other)
		token := p.sign("ES256", `{"alg":"ES256","kid":"e","typ":"logout+jwt"}`, claimsWith(claims))
		res, err := http.PostForm("http://"+g.addr+"/oauth2/backchannel", url.Values{"logout_token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != status || res.Header.Get("Cache-Control") != "no-store" || status == 400 && !strings.Contains(string(body), "logout_token") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	const event = "http://schemas.openid.net/event/backchannel-logout"
	for name, other := range map[string]map[string]any{"no event": {"events": nil}, "another event": {"events": map[string]any{"x": map[string]any{}}},
		"event that is no object": {"events": map[string]any{event: true}}, "nonce": {"nonce": "x"}, "issuer": {"iss": "https://evil.test"}, "audience": {"aud": "other"},
		"no id": {"jti": nil}, "nobody": {"sub": nil}, "old": {"iat": time.Now().Unix() - 3600}, "no iat": {"iat": nil}, "expired": {"exp": time.Now().Unix() - 60},
		"sub that is no text": {"sub": 1}, "sid that is no text": {"sid": 1}} {
		tell(name, other, 400)
	}
	for name, body := range map[string]string{"no token": "a=b", "two": "logout_token=a&logout_token=b", "nonsense": "logout_token=x", "long": "logout_token=" + strings.Repeat("x", 30<<10)} {
		res, err := http.Post("http://"+g.addr+"/oauth2/backchannel", "application/x-www-form-urlencoded", strings.NewReader(body))
		if err != nil || res.StatusCode != 400 && res.StatusCode != 413 {
			t.Errorf("%s: %v %v", name, res, err)
		}
		_ = res.Body.Close()
	}
	in("ann ann2 bob cid")
	tell("of another session", map[string]any{"sid": "s-bob"}, 200)
	in("ann ann2 bob cid")
	tell("by session", map[string]any{"sub": nil, "sid": "s-bob"}, 200)
	in("ann ann2 cid")
	tell("by subject", nil, 200)
	in("cid")
	login("ann")
	tell("by subject", nil, 400) // the same token again
	in("ann cid")
}

// TestLoginFlood: logins under way are bounded, and who has but begun one is kept nowhere.
func TestLoginFlood(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, ", calls: 4, sessions: { most: 2 }, timeout: 1m")
	var backs []string
	for range 40 {
		b := newBrowser(t, g.addr)
		backs = append(backs, b.comesBack("/"))
	}
	if all, err := g.admin.Sessions(); err != nil || all[0].Sessions != 0 {
		t.Errorf("%+v %v", all, err)
	}
	b := newBrowser(t, g.addr)
	var ours []string
	for range 40 {
		ours = append(ours, b.comesBack("/"))
	}
	hold := make(chan struct{})
	p.set(func() { p.hold = hold })
	var all sync.WaitGroup
	answers := make(chan int, len(ours))
	for _, back := range ours {
		all.Go(func() {
			req, _ := http.NewRequest("GET", back, nil)
			res, _ := b.do(req, true)
			answers <- res.StatusCode
		})
	}
	busy := 0
	for range 36 {
		if status := <-answers; status == 503 {
			busy++
		}
	}
	close(hold)
	all.Wait()
	if busy != 36 {
		t.Errorf("%d of 40 logins at once were refused, want 36", busy)
	}
	if all, err := g.admin.Sessions(); err != nil || all[0].Sessions > 2 || all[0].Sessions == 0 {
		t.Errorf("%+v %v", all, err)
	}
	newBrowser(t, g.addr).want("another browser's login", backs[0], 403, "login_state")
}

// TestLoginEvicts: who has been idle longest makes room.
func TestLoginEvicts(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, ", sessions: { most: 2 }")
	var all []*browser
	for range 3 {
		b := newBrowser(t, g.addr)
		b.want("login", "/", 200, "X-User")
		all = append(all, b)
	}
	for i, want := range []int{401, 200, 200} {
		if res, _ := all[i].get("/", true, "Accept: application/json"); res.StatusCode != want {
			t.Errorf("%d: %d, want %d", i, res.StatusCode, want)
		}
	}
}

// TestLoginReload: sessions outlive a reload, under the rules that hold then.
func TestLoginReload(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, "")
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User: ann")
	written, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(written), "\nadmin:")
	for _, c := range []struct {
		change []string
		status int
		sees   string
	}{
		{[]string{"X-User: sub", "X-Plan: plan, X-Who: sub"}, 200, "X-Plan: gold"},
		{[]string{"headers:", "claims: { plan: silver }, headers:"}, 403, "login_claims"},
		{[]string{"headers:", "consumer: roles, headers:"}, 403, "consumer_unknown"},
		{[]string{"id: gateway", "id: another"}, 401, "login_required"},
	} {
		g.write(strings.NewReplacer(c.change...).Replace(text))
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
		b.want(c.change[1], "/", c.status, c.sees, "Accept: application/json")
	}
}

// TestLoginProviderAway: nobody can log in, and sessions go on; whose tokens are over waits for it, or goes on too.
func TestLoginProviderAway(t *testing.T) {
	for onError, status := range map[string]int{"deny": 503, "allow": 200} {
		p := newLoginProvider(t)
		g := loginGate(t, p, ", on_error: "+onError)
		kept, over := newBrowser(t, g.addr), newBrowser(t, g.addr)
		kept.want("login", "/", 200, "X-User")
		over.loginWithTokensOver(p)
		back := newBrowser(t, g.addr)
		to := back.comesBack("/")
		p.set(func() { p.down = true })
		kept.want("a session", "/", 200, "X-User")
		text := map[int]string{200: "X-User", 503: "provider_unavailable"}[status]
		over.want("tokens that are over", "/", status, text)
		over.want("tokens that are over", "/", status, text)
		back.want("a login", to, 503, "provider_unavailable")
		p.set(func() { p.down = false })
		over.want("it is back", "/", 200, "X-User")
	}
}

// TestSessionAllocates shows that a request with a session costs no allocation, also where nodes share sessions.
func TestSessionAllocates(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	for _, store := range []string{"memory", "redis"} {
		t.Run(store, func(t *testing.T) { sessionAllocates(t, store) })
	}
}

func sessionAllocates(t *testing.T, store string) {
	p := newLoginProvider(t)
	u := newFixedUpstream(t, answerOf("hello"), nil, "\r\n\r\n")
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	t.Setenv("SLUICE_TEST_KEY", sharedKey)
	sessions, cluster := "store: memory", ""
	if store == "redis" {
		sessions, cluster = "store: redis, key: env:SLUICE_TEST_KEY", `cluster: { redis: { addresses: "`+newRedisServer(t).addr+`", timeout: 500ms } }`+"\n"
	}
	g := run(t, strings.NewReplacer("UPSTREAM", u.addr(), "to: a }", `use: { oidc: { issuer: "`+p.server.URL+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, `+
		`cookie: { name: session, secure: false }, headers: { X-User: sub }, sessions: { `+sessions+` } } }, to: a }`).Replace(plainConfig)+"tuning: { shed_above: off }\n"+cluster)
	b := newBrowser(t, g.addr)
	for deadline := time.Now().Add(patience); b.sessionCookie() == "" && time.Now().Before(deadline); {
		b.get("/", false) // until the provider is known
	}
	client := newFixedClient(t, g.addr, "hello", strings.Replace(get, "Accept", "Cookie: a=b; session="+b.sessionCookie()+"\r\nX-User: root\r\nAccept", 1))
	if err := client.exchange(warmRequests); err != nil {
		t.Fatal(err)
	}
	if per := mallocs(t, countedRequests, client.exchange); per >= allocsPerRequest {
		t.Errorf("%.4f allocations a request", per)
	}
	if n := p.count("/authorize"); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// TestLoginsMove: sessions, and logins that are under way, outlive an upgrade; what cannot be a session does not come into being.
func TestLoginsMove(t *testing.T) {
	p := newLoginProvider(t)
	g := loginGate(t, p, "")
	written, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(written), "\nadmin:")
	old, next := newGate(t, text), newGate(t, text)
	moves := func(body []byte) error {
		defer onEach(next.loops, func(int) {}) // they serve already, as no process does that takes over
		return next.restoreSessions(next.state.Load().compiled, body)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until both know the provider
		a, b := old.loginsStatus(), next.loginsStatus()
		if a[0].Known && b[0].Known {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the provider is not known")
		}
	}
	ann, bob := newBrowser(t, old.addr), newBrowser(t, old.addr)
	under := bob.comesBack("/deep")
	ann.want("login at the old one", "/", 200, "X-User: ann")
	state, err := old.exportSessions(old.state.Load().compiled)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string]string{"no JSON": "{", "hash": strings.Replace(string(body), `"hash":"`, `"hash":"AAAA`, 1), "claims": strings.Replace(string(body), `"claims":{`, `"claims":{"sub":"x",`, 1),
		"secret": strings.Replace(string(body), `"secret":"`, `"secret":"AAAA`, 1), "of the future": strings.Replace(string(body), `"used":1`, `"used":3`, 1)} {
		if err := moves([]byte(damaged)); err == nil || next.loginsStatus()[0].Sessions != 0 {
			t.Errorf("%s: taken, %v", name, err)
		}
	}
	if err := moves(body); err != nil {
		t.Fatal(err)
	}
	ann.addr, bob.addr = next.addr, next.addr // the cookies are of the host, whatever the port
	ann.want("at the new one", "/", 200, "X-User: ann", "Accept: application/json")
	to, _ := url.Parse(under)
	if res, body := bob.get(to.RequestURI(), true, "Host: "+old.addr); res.StatusCode != 302 {
		t.Errorf("a login that was under way: %d %s", res.StatusCode, body)
	}
	if n, err := next.endSessions("ann"); n != 2 || err != nil {
		t.Errorf("%d sessions were revoked: %v", n, err)
	}
	ann.want("revoked", "/", 401, "login_required", "Accept: application/json")
}
