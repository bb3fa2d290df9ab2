package server

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const program = "Accept: application/json"

// TestSharedSessions: who has logged in with one node is known to the other, and who has ended at one has at the other, however he has.
func TestSharedSessions(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 2, "", "")
	login := func(user string) *browser {
		t.Helper()
		p.set(func() { p.user = user })
		b := newBrowser(t, g[0].addr)
		b.want("login", "/", 200, "X-User: "+user)
		b.at(g[1]).want("the other node", "/", 200, "X-User: "+user, program)
		return b
	}
	ann := login("ann")
	before := g[1].number("sluice_redis_commands_total")
	for range 50 {
		ann.at(g[1]).want("known", "/", 200, "X-User: ann", program)
	}
	if n := g[1].number(`sluice_session_lookups_total{policy="people",result="answered"}`); n != 1 {
		t.Errorf("%d lookups for one session (%d commands before)", n, before)
	}
	ann.at(g[1]).leaves()
	t.Logf("a logout is known to the other node after %v", ann.soon("logged out elsewhere", 401))

	for name, end := range map[string]func(){
		"revoked by subject": func() {
			g[1].revokes("bob", 1)
		},
		"revoked by id": func() {
			g[0].revokes(shownOf(g[1].loginsStatus()[0], "bob"), 1)
		},
		"told by the provider": func() {
			claims := map[string]any{"iss": p.server.URL, "aud": "gateway", "sub": nil, "sid": "s-bob", "jti": "x", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
			token := p.sign("ES256", `{"alg":"ES256","kid":"e","typ":"logout+jwt"}`, claimsWith(claims))
			res, err := http.PostForm("http://"+g[1].addr+"/oauth2/backchannel", url.Values{"logout_token": {token}})
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v %v", res, err)
			}
			_ = res.Body.Close()
		},
	} {
		bob, cid := login("bob"), login("cid")
		end()
		t.Logf("%s: known to both nodes after %v and %v", name, bob.soon(name, 401), bob.at(g[1]).soon(name, 401))
		cid.want("another", "/", 200, "X-User: cid", program)
		cid.leaves()
		cid.at(g[1]).soon("logged out", 401)
	}
	bob := login("bob")
	unknown := sharingGates(t, p, r, 1, "", "")[0] // a node that has not seen him
	unknown.revokes("bob", 1)
	bob.soon("revoked by a stranger", 401)
	bob = login("bob")
	unknown.revokes(shownOf(g[0].loginsStatus()[0], "bob"), 1)
	bob.at(g[1]).soon("revoked by a stranger, by id", 401)
	unknown.revokes("nobody", 0)
	first := login("ann")
	kept := first.cookies()
	res, _ := first.at(g[1]).get("/", true, program)
	back := first.at(g[1]).comesBack("/")
	first.client.Jar.SetCookies(first.url(), kept)
	first.at(g[1]).want("a second login", back, 200, "GET /")
	if first.sessionCookie() == kept[0].Value || res.StatusCode != 200 {
		t.Errorf("%d, and the session is the same", res.StatusCode)
	}
	again := newBrowser(t, g[0].addr)
	again.client.Jar.SetCookies(again.url(), kept)
	again.soon("the session before", 401)
}

// TestSharedStore: nothing that Redis has can be read there, or used under another name; what was changed there is no session.
func TestSharedStore(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 1, "", "")[0]
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User: ann")
	raw, err := base64.RawURLEncoding.DecodeString(b.sessionCookie())
	if err != nil {
		t.Fatal(err)
	}
	dump := ""
	var value string
	for key := range strings.FieldsSeq(r.command("KEYS", "*")) {
		dump += key + "\n" + r.command("HGETALL", key) + r.command("ZRANGE", key, "0", "-1") + r.command("XRANGE", key, "-", "+")
		if strings.Contains(key, ":v:") {
			value = key
		}
	}
	for _, secret := range []string{"ann", "access-", b.sessionCookie(), string(raw), "eyJ", "nonce", "plan", "s-ann"} {
		if strings.Contains(dump, secret) {
			t.Errorf("Redis has %q:\n%q", secret, dump)
		}
	}
	if value == "" {
		t.Fatalf("there is no session:\n%q", dump)
	}
	p.set(func() { p.user = "eve" })
	eve := newBrowser(t, g.addr)
	eve.want("login", "/", 200, "X-User: eve")
	other := ""
	for key := range strings.FieldsSeq(r.command("KEYS", "*:v:*")) {
		if key != value {
			other = key
		}
	}
	next := sharingGates(t, p, r, 1, "", "")[0]
	r.command("DEL", other)
	r.command("COPY", value, other)
	eve.at(next).want("the session of another under her name", "/", 401, "login_required", program)
	r.command("HSET", value, "v", "damaged")
	b.at(next).want("damaged", "/", 401, "login_required", program)
}

// TestSharedLogin: a login that was begun with one node is finished by another, once.
func TestSharedLogin(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 2, "", "")
	b := newBrowser(t, g[0].addr)
	back, _ := url.Parse(b.comesBack("/deep?a=b"))
	res, body := b.at(g[1]).get(back.RequestURI(), true, "Host: "+g[0].addr)
	if res.StatusCode != 302 || res.Header.Get("Location") != "/deep?a=b" {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	b.client.Jar.SetCookies(&url.URL{Scheme: "http", Host: g[0].addr}, res.Cookies())
	b.want("the first node", "/", 200, "X-User: ann", program)
	p.set(func() { p.twice = true })
	back, _ = url.Parse(b.comesBack("/deep?a=b"))
	for i, status := range []int{302, 401} {
		if res, body := b.at(g[i]).get(back.RequestURI(), true, "Host: "+g[0].addr); res.StatusCode != status || i == 1 && !strings.Contains(body, "login_replayed") {
			t.Errorf("%d: %d %s", i, res.StatusCode, body)
		}
	}
}

// TestSharedRefresh: however many nodes find that tokens are over, one of them gets others, for the provider takes a refresh token once.
func TestSharedRefresh(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 2, "", ", calls: 200")
	for round := range 3 {
		b := newBrowser(t, g[0].addr)
		b.loginWithTokensOver(p)
		before, hold := p.count("/token"), make(chan struct{})
		p.set(func() { p.hold, p.claims = hold, map[string]any{"email": fmt.Sprint(round)} })
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() { b.at(g[i%2]).want("while it is refreshed", "/", 200, fmt.Sprintf("X-Mail: %d\r\n", round)) })
		}
		g[0].eventually("a refresh", func() bool { return p.count("/token") > before })
		time.Sleep(200 * time.Millisecond) // in which the other node would ask too
		p.set(func() { p.hold = nil })
		close(hold)
		all.Wait()
		if n := p.count("/token") - before; n != 1 {
			t.Errorf("%d refreshes", n)
		}
		for i := range 4 {
			b.at(g[i%2]).want("afterwards", "/", 200, fmt.Sprintf("X-Mail: %d\r\n", round), program)
		}
	}
	b := newBrowser(t, g[0].addr)
	b.loginWithTokensOver(p)
	p.set(func() { clear(p.tokens); p.claims = nil })
	b.at(g[1]).want("refused", "/", 401, "login_required", program)
	b.soon("refused at the other node", 401)
}

// TestSharedAway: while Redis is away sessions that are known go on, or nobody has one, as is configured; nobody logs in. Who was ended
// meanwhile has ended when it is there again.
func TestSharedAway(t *testing.T) {
	for onError, status := range map[string]int{"local": 200, "deny": 503} {
		p, r := newLoginProvider(t), newRedisServer(t)
		g := sharingGates(t, p, r, 2, ", on_error: "+onError, "")
		people := map[string]*browser{}
		for _, name := range []string{"ann", "bob"} {
			p.set(func() { p.user = name })
			people[name] = newBrowser(t, g[0].addr)
			people[name].want("login", "/", 200, "X-User: "+name)
			people[name].at(g[1]).want("the other node", "/", 200, "X-User: "+name, program)
		}
		r.pause() // as a network does that swallows packets
		start := time.Now()
		for _, one := range g {
			one.hears(false)
		}
		if took := time.Since(start); took > 3*time.Second { // oidc.CertainFor, and what admin takes
			t.Errorf("a Redis that is silent is noticed after %v", took)
		}
		for _, one := range g {
			people["ann"].at(one).want(onError+": a session", "/", status, map[int]string{200: "X-User: ann", 503: "sessions_unavailable"}[status], program)
			newBrowser(t, one.addr).want(onError+": a login", "/", 503, "sessions_unavailable")
		}
		if _, err := g[0].endSessions("bob"); err == nil {
			t.Error("a revocation that the others do not know of is said to be done")
		}
		if res, body := people["bob"].get("/", true, program); res.StatusCode != 503 {
			t.Errorf("%s: revoked: %d %s", onError, res.StatusCode, body)
		}
		r.resume()
		for _, one := range g {
			one.hears(true)
		}
		people["bob"].want("revoked meanwhile", "/", 401, "login_required", program)
		people["bob"].at(g[1]).soon("revoked meanwhile", 401)
		people["ann"].at(g[1]).want("Redis is back", "/", 200, "X-User: ann", program)
		r.kill()
		for _, one := range g {
			one.hears(false)
		}
		r.start() // with nothing in it
		for _, one := range g {
			one.hears(true)
			people["ann"].at(one).want("Redis has forgotten her", "/", 401, "login_required", program)
		}
	}
}

// TestSharedGrace: sessions that are known here go on for as long as is configured, and no longer, while Redis is away.
func TestSharedGrace(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 1, ", grace: 4s", "")[0]
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User")
	r.kill()
	start := time.Now()
	g.hears(false)
	b.want("at first", "/", 200, "X-User", program)
	g.eventually("the session is of no use", func() bool {
		res, _ := b.get("/", true, program)
		return res.StatusCode == 503
	})
	if took := time.Since(start); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("it went on for %v", took)
	}
}

// TestSharedFlood: ids that no node has made are not looked for, and one that has ended is not each time.
func TestSharedFlood(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 1, "", "")[0]
	flood := func(cookie func(i int) string) {
		c := newHTTPClient(t)
		for i := range 500 {
			req, _ := http.NewRequest("GET", "http://"+g.addr+"/", nil)
			req.Header.Set("Cookie", "session="+cookie(i))
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if _ = res.Body.Close(); res.StatusCode != 401 {
				t.Fatalf("%d", res.StatusCode)
			}
		}
	}
	const looked = `sluice_session_lookups_total{policy="people",result="answered"}`
	flood(func(i int) string { return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%032d", i)) })
	if n := g.number(looked); n != 0 {
		t.Errorf("%d lookups for ids that cannot be", n)
	}
	if n := g.number(`sluice_session_lookups_total{policy="people",result="forged"}`); n != 500 {
		t.Errorf("%d of 500 are counted as forged", n)
	}
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User")
	cookie := b.sessionCookie()
	b.leaves()
	flood(func(int) string { return cookie })
	if n := g.number(looked); n < 1 || n > 4 { // one for each loop
		t.Errorf("%d lookups for a session that has ended", n)
	}
}

// TestSharedReload: keys are replaced without an end of any session; bounds hold for all nodes together.
func TestSharedReload(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	t.Setenv("SLUICE_TEST_KEY2", "another key, by which the first is replaced")
	text := sharingConfig(t, p, r, "", "")
	g := run(t, text)
	hears := func() {
		g.eventually("what becomes of sessions is heard", func() bool {
			all, err := g.admin.Sessions()
			return err == nil && hear(all, true)
		})
	}
	hears()
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User: ann")
	for i, key := range []string{"[env:SLUICE_TEST_KEY2, env:SLUICE_TEST_KEY]", "env:SLUICE_TEST_KEY2"} {
		g.write(strings.Replace(text, "key: env:SLUICE_TEST_KEY", "key: "+key, 1))
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
		hears()
		b.want(key, "/", []int{200, 401}[i], []string{"X-User: ann", "login_required"}[i], program)
	}
	g.write(strings.Replace(text, "store: redis", "store: redis, most: 2", 1))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	hears()
	var all []*browser
	for range 4 {
		one := newBrowser(t, g.addr)
		one.want("login", "/", 200, "X-User")
		all = append(all, one)
	}
	for i, status := range []int{401, 401, 200, 200} {
		all[i].soon(fmt.Sprint("session ", i), status)
	}
}

// TestSharedIdle: what is used on one node is not idle on the other, and what nobody uses ends in Redis too.
func TestSharedIdle(t *testing.T) {
	p, r := newLoginProvider(t), newRedisServer(t)
	g := sharingGates(t, p, r, 1, "", ", idle: 1m, lifetime: 1h")[0]
	b := newBrowser(t, g.addr)
	b.want("login", "/", 200, "X-User")
	key := strings.TrimSpace(r.command("KEYS", "*:v:*"))
	left := func() int {
		n, _ := strconv.Atoi(strings.Trim(r.command("PTTL", key), ":\r\n"))
		return n
	}
	if n := left(); n <= 50_000 || n > 60_000 {
		t.Errorf("it ends in %d ms", n)
	}
	r.command("PEXPIRE", key, "30000") // as if nobody had used it for long
	g.eventually("its use is told", func() bool {
		b.want("use", "/", 200, "X-User", program)
		return left() > 50_000
	})
}
