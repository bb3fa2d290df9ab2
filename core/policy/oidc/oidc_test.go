package oidc

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// TestSessionEnds: a session ends when nobody uses it, when its time is over, or when it is ended, whichever is first.
func TestSessionEnds(t *testing.T) {
	const idle, life = int64(30 * time.Minute), int64(12 * time.Hour)
	now := time.Now().UnixNano()
	s := NewSession(sha256.Sum256(nil), "ann", "", &State{}, now, now+life)
	at := now
	for at+idle-1 < now+life {
		at += idle - 1
		if s.Over(at, idle) || !s.use(at, idle) || s.Used() != at {
			t.Fatalf("it has ended after %v", time.Duration(at-now))
		}
	}
	if s.use(now+life, idle) || !s.Over(now+life, idle) {
		t.Error("it outlives its time")
	}
	s = NewSession(sha256.Sum256(nil), "ann", "", &State{}, now, now+life)
	if s.use(now+idle, idle) || !s.Over(now+idle, idle) {
		t.Error("it is used after it was idle")
	}
	if s.use(now+1, idle); s.Used() != now {
		t.Error("each use is noted")
	}
	s.End()
	if s.use(now, idle) || !s.Over(now, idle) {
		t.Error("it is used after its end")
	}
}

// TestTable finds what was put, also next to others and after those were removed.
func TestTable(t *testing.T) {
	table := NewTable(3) // four slots
	var all []*Session
	for i := range 100 {
		var hash [sha256.Size]byte
		binary.BigEndian.PutUint64(hash[24:], uint64(i)) // most in one slot
		hash[0] = byte(i % 5)
		all = append(all, NewSession(hash, "", "", &State{}, 0, 1))
		table.Put(all[i])
	}
	for n := range all {
		for i, s := range all {
			found := table.Find(s.Hash())
			if i < n && found != nil || i >= n && found != s {
				t.Fatalf("after %d removals %d is found as %p", n, i, found)
			}
		}
		table.Remove(all[n])
		table.Remove(all[n])
	}
}

// TestAttempt: a state is good for what it was sealed for, and as it was.
func TestAttempt(t *testing.T) {
	s, err := NewSealer(make([]byte, SecretBytes))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSealer(make([]byte, 31)); err == nil {
		t.Error("a short secret is taken")
	}
	a := newAttempt(12345, "/a?b")
	with := bound("p", "browser", "https://a/callback")
	state := s.seal(a, with)
	if got, ok := s.open([]byte(state), with); !ok || got != *a {
		t.Errorf("%+v %v, want %+v", got, ok, a)
	}
	if s.seal(a, with) == state {
		t.Error("two states are the same")
	}
	for _, other := range [][]byte{bound("q", "browser", "https://a/callback"), bound("p", "Browser", "https://a/callback"), bound("p", "browser", "https://b/callback"), nil} {
		if _, ok := s.open([]byte(state), other); ok {
			t.Errorf("it is opened with %q", other)
		}
	}
	for i := range state {
		changed := []byte(state)
		if changed[i] ^= 1; changed[i] == state[i] {
			continue
		}
		if _, ok := s.open(changed, with); ok {
			t.Errorf("it is opened with byte %d changed", i)
		}
		if _, ok := s.open([]byte(state[:i]), with); ok {
			t.Errorf("%d bytes of it are opened", i)
		}
	}
	if len(s.seal(newAttempt(0, strings.Repeat("x", maxLink)), with)) > maxState {
		t.Error("the longest state is too long")
	}
	one, other := newAttempt(0, "/"), newAttempt(0, "/")
	if s.derived("nonce", "b", one) == s.derived("nonce", "b", other) || s.derived("nonce", "b", one) == s.derived("verifier", "b", one) ||
		s.derived("nonce", "b", one) == s.derived("nonce", "c", one) {
		t.Error("what is derived is the same for two")
	}
	if got := challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" { // RFC 7636, appendix B
		t.Errorf("challenge %s", got)
	}
}

// TestLinks: a link leads to a path of this host, whatever reads it.
func TestLinks(t *testing.T) {
	f := func(path, query, want string) {
		t.Helper()
		var q []byte
		if query != "-" {
			q = []byte(query)
		}
		if got := linkOf([]byte(path), q); got != want {
			t.Errorf("%q %q leads to %q, want %q", path, query, got, want)
		}
	}
	f("/", "-", "/")
	f("/a", "", "/a?")
	f("/a", "b=//c", "/a?b=//c")
	f("*", "-", "/")
	f("", "-", "/")
	f("//evil.test", "-", "/")
	f("/\\evil.test", "-", "/")
	f("/a\\b", "-", "/")
	f("https://evil.test", "-", "/")
	f("/a", "\r\nSet-Cookie: x", "/")
	f("/\t/evil.test", "-", "/")
	f("/a", "\">", "/")
	f("/\xff", "-", "/")
	f("/"+strings.Repeat("a", maxLink), "-", "/")
}

// TestCookies shows the lines, with the names and attributes that browsers hold a site to.
func TestCookies(t *testing.T) {
	s := Spec{Path: "/", SameSite: "lax", Secure: true, Lifetime: time.Hour}
	s.Cookie = "__Host-session"
	c := newCookies(&s)
	for got, want := range map[string]string{
		c.start + "X" + c.attributes:    "__Host-session=X; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=3600",
		c.clear:                         "__Host-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
		c.loginLine + "X" + c.loginRest: "__Host-session-login=X; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600",
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	s.Cookie, s.Domain, s.SameSite, s.Path = "sso", "example.com", "strict", "/app"
	if got, want := newCookies(&s).attributes, "; Path=/app; Domain=example.com; Secure; HttpOnly; SameSite=Strict; Max-Age=3600"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c := newCookies(&s); strings.Contains(c.loginRest, "Domain") || !strings.Contains(c.loginRest, "SameSite=Lax") {
		t.Errorf("the login's cookie is not the host's own: %s", c.loginRest)
	}
}

func TestAcceptsHTML(t *testing.T) {
	for accept, want := range map[string]bool{"": false, "*/*": false, "text/*": false, "application/json": false, "text/html": true,
		"application/json, Text/HTML;q=0.1": true, "application/xhtml+xml": true, "text/htmlx": false} {
		if got := acceptsHTML([]byte(accept)); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

// FuzzOpen: nothing that was not sealed here is opened.
func FuzzOpen(f *testing.F) {
	s, _ := NewSealer(make([]byte, SecretBytes))
	f.Add([]byte("AAAA"))
	f.Fuzz(func(t *testing.T, state []byte) {
		if a, ok := s.open(state, nil); ok {
			t.Errorf("%q is opened: %+v", state, a)
		}
	})
}

// BenchmarkFind is what a session costs each request: the hash of its id, among 100,000 others.
func BenchmarkFind(b *testing.B) {
	const n = 100_000
	table, now := NewTable(n), time.Now().UnixNano()
	ids := make([][]byte, n)
	for i := range ids {
		ids[i] = []byte(NewID())
		hash, _ := HashID(ids[i])
		table.Put(NewSession(hash, "", "", &State{}, now, now+int64(time.Hour)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		hash, _ := HashID(ids[i%n])
		if s := table.Find(hash); s == nil || !s.use(now, int64(time.Hour)) {
			b.Fatal("it is not found")
		}
	}
}
