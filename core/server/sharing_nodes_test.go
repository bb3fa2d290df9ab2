package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

const sharedKey = "a key of sessions that all of these nodes know"

// heardWithin is how soon a node that hears others must know what has ended there.
const heardWithin = time.Second

// sharingConfig has a login whose sessions are shared; sessions is added to what is said of them, more to the policy.
func sharingConfig(t *testing.T, p *loginProvider, r *redisServer, sessions, more string) string {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	t.Setenv("SLUICE_TEST_KEY", sharedKey)
	return strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", `cluster: { redis: { addresses: "`+r.addr+`", timeout: 500ms } }
policies:
  people: { oidc: { issuer: "`+p.server.URL+`", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false }, headers: { X-User: sub, X-Mail: email },
    sessions: { store: redis, key: env:SLUICE_TEST_KEY`+sessions+` }`+more+` } }
routes: [{ match: "/*", use: people, to: a }]
`, 1)
}

// node is one of those that share sessions.
type node struct{ *gate }

// sharingGates are nodes that share the sessions of one policy.
func sharingGates(t *testing.T, p *loginProvider, r *redisServer, n int, sessions, more string) (all []node) {
	t.Helper()
	for range n {
		g := node{newGate(t, sharingConfig(t, p, r, sessions, more))}
		g.hears(true)
		all = append(all, g)
	}
	return all
}

// hear says whether a policy knows its provider, and hears what becomes of sessions, or does not.
func hear(all []admin.LoginsStatus, it bool) bool {
	return len(all) > 0 && all[0].Known && all[0].Shared && all[0].Heard == it
}

func (n node) hears(it bool) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("what becomes of sessions is heard: %t", it), func() bool { return hear(n.loginsStatus(), it) })
}

func (n node) eventually(what string, ok func() bool) {
	n.t.Helper()
	if !comesToPass(ok) {
		n.t.Fatalf("it never came to pass: %s", what)
	}
}

// revokes wants so many sessions to end.
func (n node) revokes(who string, want int) {
	n.t.Helper()
	if got, err := n.endSessions(who); got != want || err != nil {
		n.t.Errorf("%d sessions of %q were revoked, want %d: %v", got, who, want, err)
	}
}

// number is the value of a series.
func (n node) number(series string) int {
	n.t.Helper()
	var text bytes.Buffer
	_ = n.observer.WriteMetrics(&text)
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			v, _ := strconv.Atoi(value)
			return v
		}
	}
	return 0
}

// at is the same browser, that goes to another node.
func (b *browser) at(g node) *browser {
	other := *b
	other.addr = g.addr
	return &other
}

// soon wants a status for what is no browser, within heardWithin, and gives the time until then.
func (b *browser) soon(what string, status int) time.Duration {
	b.t.Helper()
	start := time.Now()
	for {
		res, body := b.get("/", true, "Accept: application/json")
		switch took := time.Since(start); {
		case res.StatusCode == status:
			return took
		case took > heardWithin:
			b.t.Fatalf("%s: %d %s after %v, want %d", what, res.StatusCode, body, took, status)
		}
	}
}

// shownOf is what operators call the session of somebody.
func shownOf(l admin.LoginsStatus, subject string) string {
	for _, one := range l.Last {
		if one.Subject == subject {
			return one.ID
		}
	}
	return ""
}

func (b *browser) url() *url.URL { return &url.URL{Scheme: "http", Host: b.addr} }

func (b *browser) cookies() []*http.Cookie { return b.client.Jar.Cookies(b.url()) }

// leaves logs out, and keeps the cookie.
func (b *browser) leaves() {
	b.t.Helper()
	kept := b.cookies()
	if res, body := b.get("/oauth2/logout", true); res.StatusCode != 303 {
		b.t.Errorf("logout: %d %s", res.StatusCode, body)
	}
	if b.client.Jar.SetCookies(b.url(), kept); b.sessionCookie() == "" {
		b.t.Error("there was no session")
	}
}

// command asks Redis itself, and gives what it says as text.
func (r *redisServer) command(words ...string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	text := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	text += "*1\r\n$4\r\nQUIT\r\n"
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(strings.TrimSuffix(string(all), "+OK\r\n")) {
		if line[0] != '$' && line[0] != '*' && !strings.HasPrefix(line, "-WRONGTYPE") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func (r *redisServer) pause()  { _ = r.cmd.Process.Signal(syscall.SIGSTOP) }
func (r *redisServer) resume() { _ = r.cmd.Process.Signal(syscall.SIGCONT) }
