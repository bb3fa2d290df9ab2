package acme

import (
	cryptotls "crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := Options{Email: "ops@gateway.test", Directory: "https://authority.test/dir", Storage: filepath.Join(dir, "new"), Names: []string{"a.test"}}
		change(&o)
		_, err := New(o)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("got error %v, want %q", err, want)
		}
	}
	f("", func(*Options) {})
	f("", func(o *Options) { o.Names, o.OnDemand = nil, allowAll })
	f("", func(o *Options) { o.Names = []string{"a.test", "A.test."} })
	f("without an email address", func(o *Options) { o.Email = "" })
	for _, email := range []string{"ops", "@gateway.test", "ops@", "a@b@c.test", "ops@gateway.test,x@y.test", "ops@gateway.test?subject=x", "ops @gateway.test", "öps@gateway.test", "ops@-x.test"} {
		f("for the ACME account", func(o *Options) { o.Email = email })
	}
	for _, directory := range []string{"", "http://authority.test/dir", "authority.test", "https:///dir", "https://u:secret@authority.test/", "https://authority.test/#x", "https://[::1/"} {
		f("cannot use the ACME directory", func(o *Options) { o.Directory = directory })
	}
	f("without a folder", func(o *Options) { o.Storage = "" })
	f("it is not a folder", func(o *Options) { o.Storage = file })
	f("not a directory", func(o *Options) { o.Storage = filepath.Join(file, "below") })
	f("no such file", func(o *Options) { o.CAFile = filepath.Join(dir, "missing") })
	f("no certificate in it", func(o *Options) { o.CAFile = file })
	f("without names", func(o *Options) { o.Names = nil })
	f("the most are 10000", func(o *Options) { o.Names = make([]string, maxNames+1) })
	f(`"*.a.test" by ACME: a wildcard needs the challenge dns-01`, func(o *Options) { o.Names = []string{"*.a.test"} })
	f("xn--", func(o *Options) { o.Names = []string{"bücher.test"} })
	f("no domain name", func(o *Options) { o.Names = []string{"192.0.2.1"} })
}

func TestFold(t *testing.T) {
	f := func(name, want string) {
		t.Helper()
		got, ok := fold(name)
		if got != want || ok != (want != "") {
			t.Errorf("fold(%q) is %q, %v", name, got, ok)
		}
	}
	f("a.test", "a.test")
	f("A-1.Test.", "a-1.test")
	f("localhost", "localhost")
	f("xn--bcher-kva.test", "xn--bcher-kva.test")
	f("1.a.test", "1.a.test")
	f(strings.Repeat("a", 63)+".test", strings.Repeat("a", 63)+".test")
	for _, name := range []string{"", ".", "..", "a..test", ".test", "a.test..", "-a.test", "a-.test", "a_b.test", "*.test", "a b.test", "a/../b", "192.0.2.1", "::1", "[::1]", "a.123", "ä.test", "a\x00.test",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "test"} {
		f(name, "")
	}
}

func FuzzFold(f *testing.F) {
	for _, s := range []string{"a.test", "A.Test.", "*.x", "192.0.2.1", "a..b", "-", "xn--a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, ok := fold(name)
		if !ok {
			return
		}
		if again, ok := fold(got); !ok || again != got {
			t.Errorf("fold(%q) is %q, of which fold is %q", name, got, again)
		}
		if got != strings.ToLower(strings.TrimSuffix(name, ".")) || len(got) > maxName || strings.ContainsAny(got, "/\\:*_ ") || strings.Contains(got, "..") {
			t.Errorf("fold(%q) is %q", name, got)
		}
	})
}

func TestChallengeRefuses(t *testing.T) {
	m, err := New(Options{Email: "ops@gateway.test", Directory: "https://127.0.0.1:1/dir", Storage: t.TempDir(), Names: []string{"a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, path := range []string{"", "/", ChallengePath, ChallengePath + "x", ChallengePath + "../x", ChallengePath + "x/y", ChallengePath + strings.Repeat("x", 300), "/.well-known/acme-challengex"} {
		for _, host := range []string{"a.test", "a.test:80", "b.test", "", "../..", "[::1]:80"} {
			if body, ok := m.Challenge(host, path); ok || body != "" {
				t.Errorf("Challenge(%q, %q) is %q", host, path, body)
			}
			if body, ok := m.StoredChallenge(t.Context(), host, path); ok || body != "" {
				t.Errorf("StoredChallenge(%q, %q) is %q", host, path, body)
			}
		}
	}
	a, b := connected(t)
	defer a.Close()
	defer b.Close()
	for _, name := range []string{"a.test", "b.test"} {
		h := hello(name, ALPN)
		h.Conn = a
		_, err := m.GetCertificate(t.Context(), h)
		wantsNone(t, err, "for the challenge")
		if !m.MayBlock(h) {
			t.Errorf("MayBlock is wrong for a challenge for %q", name)
		}
	}
	_, err = m.GetCertificate(t.Context(), hello("a.test", ALPN))
	wantsNone(t, err, "for the challenge")
	for _, name := range []string{"", "192.0.2.1", "../a"} {
		_, err := m.GetCertificate(t.Context(), hello(name))
		wantsNone(t, err, "the client asks for")
		if m.MayBlock(hello(name)) {
			t.Errorf("MayBlock is wrong for %q", name)
		}
	}
	if m.MayBlock(hello("a.test")) || m.MayBlock(hello("b.test")) {
		t.Error("names that are not got on demand may block")
	}
}

func TestPause(t *testing.T) {
	e := &entry{name: "a.test"}
	timing := defaultTiming()
	var hour time.Duration
	for i := range 40 {
		want := min(timing.firstPause<<min(i, 16), timing.mostPause)
		got := e.pause(timing)
		if got < want || got > want+want/5 {
			t.Errorf("pause %d is %v, want %v to a fifth more", i, got, want)
		}
		if hour += want; i == 4 && hour < time.Hour {
			t.Errorf("the sixth attempt comes after %v", hour)
		}
		e.fail(errors.New("x"), got)
	}
	e.fail(errors.New("a\x1b[31m\nb"+strings.Repeat("ä", 2000)), 0)
	if s := e.status(time.Now()); len(s.LastError) > maxErrorBytes || !strings.HasPrefix(s.LastError, "a [31m b") {
		t.Errorf("got %d bytes: %.20q", len(s.LastError), s.LastError)
	}
	e.succeed()
	if got := e.pause(timing); got > timing.firstPause*6/5 {
		t.Errorf("the pause after a success is %v", got)
	}
}

// Nothing is older in memory than it was, whatever order renewals are heard of in.
func TestPublish(t *testing.T) {
	made := func(from time.Time) *cryptotls.Certificate { return selfSigned(t, from) }
	now := time.Now()
	old, young := made(now.Add(-2*time.Hour)), made(now.Add(-time.Hour))
	e := &entry{}
	e.publish(young)
	e.publish(old)
	if e.cert.Load() != young {
		t.Error("an older certificate was taken")
	}
	same := *young
	e.publish(&same)
	if e.cert.Load() != young {
		t.Error("the same certificate was taken")
	}
	stapled := *young
	stapled.OCSPStaple = []byte{1}
	e.publish(&stapled)
	if e.cert.Load() != &stapled {
		t.Error("a staple was not taken")
	}
	if s := e.status(now.Add(100 * 24 * time.Hour)); s.State != StateFailed || !strings.Contains(s.LastError, "expired") {
		t.Errorf("got %+v", s)
	}
}

func TestLogIsBounded(t *testing.T) {
	var w window
	now, lines := time.Unix(6_000, 0), 0
	for range 1000 {
		if w.allows(now) {
			lines++
		}
	}
	if lines != maxLinesPerMinute || !w.allows(now.Add(time.Minute)) {
		t.Errorf("%d lines in a minute", lines)
	}
	var out strings.Builder
	m := &Issuer{options: Options{Log: slog.New(slog.NewTextHandler(&out, nil))}}
	l := m.zapLogger()
	l.Named("obtain").Error("step")
	l.Info("small print")
	l.Named("maintenance").Sugar().With("name", "a.test").Errorw("trouble", "error", "x")
	if got := out.String(); strings.Contains(got, "step") || strings.Contains(got, "small print") || !strings.Contains(got, `level=WARN msg="acme: trouble" from=maintenance name=a.test error=x`) {
		t.Errorf("got %s", got)
	}
}

func TestCachedAllocatesNothing(t *testing.T) {
	m := cachedManager(t)
	h := hello("a.test", "h2", "http/1.1")
	if n := testing.AllocsPerRun(100, func() {
		if m.Cached("a.test") == nil || m.Cached("b.test") == nil || m.MayBlock(h) {
			t.Fatal("not in memory")
		}
		if _, err := m.GetCertificate(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCached(b *testing.B) {
	m := cachedManager(b)
	for name, n := range map[string]string{"managed": "a.test", "on-demand": "b.test"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if m.Cached(n) == nil {
					b.Fatal("not in memory")
				}
			}
		})
	}
}

// cachedManager has a.test, which is managed, and b.test, on demand.
func cachedManager(t testing.TB) *Issuer {
	m, err := New(Options{Email: "ops@gateway.test", Directory: "https://127.0.0.1:1/dir", Storage: t.TempDir(), Names: []string{"a.test"}, OnDemand: refuseAll})
	if err != nil {
		t.Fatal(err)
	}
	cert := selfSigned(t, time.Now())
	m.names["a.test"].publish(cert)
	m.demand["b.test"] = &entry{name: "b.test"}
	m.demand["b.test"].publish(cert)
	m.live.Store("b.test", m.demand["b.test"])
	return m
}
