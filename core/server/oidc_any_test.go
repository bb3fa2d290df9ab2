package server

import (
	"net/http"
	"strings"
	"testing"
)

// TestLoginOrToken: who has a session passes, and so does who has a token; only a browser that has neither is sent to log in.
func TestLoginOrToken(t *testing.T) {
	p := newLoginProvider(t)
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	for _, order := range []string{"[{ LOGIN }, { KEY }]", "[{ KEY }, { LOGIN }]"} {
		t.Run(order, func(t *testing.T) { // one gateway after the other: signals are the process's
			g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `consumers: { robot: { keys: ["`+keyHash("k3y-of-a-robot-that-is-long")+`"] } }
policies:
  people: { any: `+strings.NewReplacer("LOGIN", `oidc: { issuer: "`+p.server.URL+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false }, headers: { X-User: sub } }`,
				"KEY", "keyauth: { header: X-Key }").Replace(order)+` }
routes: [{ match: "/*", use: people, to: a }]
`, 1))
			g.eventually("the provider is known", func() bool {
				all, err := g.admin.Sessions()
				return err == nil && len(all) == 1 && all[0].Known
			})
			b := newBrowser(t, g.addr)
			b.want("a login", "/deep?a=b", 200, "GET /deep?a=b ")
			body := b.want("a session", "/", 200, "X-User: ann\r\n", "X-Key: wrong")
			if strings.Contains(body, "session=") || strings.Contains(body, "wrong") {
				t.Errorf("the upstream has got credentials:\n%s", body)
			}
			body = b.want("a key, and a session that nobody knows", "/", 200, "X-Consumer-Name: robot\r\n", "X-Key: k3y-of-a-robot-that-is-long", "Cookie: session="+strings.Repeat("A", 43), "X-User: root")
			if strings.Contains(body, "AAAA") || strings.Contains(body, "root") {
				t.Errorf("the upstream has got what is not for it:\n%s", body)
			}
			stranger := newBrowser(t, g.addr)
			stranger.want("a program", "/", 401, "", "Accept: application/json")
			stranger.want("a program with a wrong key", "/", 401, "key_", "Accept: application/json", "X-Key: wrong")
			if res, body := stranger.get("/", true); res.StatusCode != http.StatusFound || !strings.Contains(res.Header.Get("Location"), "/authorize") {
				t.Errorf("%s: a browser: %d %s", order, res.StatusCode, body)
			}
			b.want("logout", "/oauth2/logout", 200, "provider /end")
			b.want("afterwards", "/", 401, "", "Accept: application/json")
		})
	}
}

// TestLoginProviders: a gateway has people log in with several providers, and the session of one is none of another.
func TestLoginProviders(t *testing.T) {
	one, other := newLoginProvider(t), newLoginProvider(t)
	one.user, other.user = "ann", "bob"
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	login := func(p *loginProvider, name string) string {
		return name + `: { oidc: { issuer: "` + p.server.URL + `", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, callback: /` + name + `/callback, logout: /` + name +
			`/logout, backchannel_logout: off, cookie: { name: ` + name + `, secure: false }, headers: { X-User: sub } } }`
	}
	g := run(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", "policies:\n  "+login(one, "staff")+"\n  "+login(other, "guests")+`
routes: [{ match: /staff/*, use: staff, to: a }, { match: /guests/*, use: guests, to: a }]
`, 1))
	g.eventually("the providers are known", func() bool {
		all, err := g.admin.Sessions()
		return err == nil && len(all) == 2 && all[0].Known && all[1].Known
	})
	b := newBrowser(t, g.addr)
	b.want("the first", "/staff/x", 200, "X-User: ann\r\n")
	b.want("its session elsewhere", "/guests/x", 401, "login_required", "Accept: application/json")
	b.want("the second", "/guests/x", 200, "X-User: bob\r\n")
	b.want("both", "/staff/x", 200, "X-User: ann\r\n", "Accept: application/json")
	b.want("logout of one", "/staff/logout", 200, "provider /end")
	b.want("the other goes on", "/guests/x", 200, "X-User: bob\r\n", "Accept: application/json")
	b.want("the one has ended", "/staff/x", 401, "login_required", "Accept: application/json")
}
