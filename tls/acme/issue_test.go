package acme

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The challenge comes to a listener for HTTP, which asks the Issuer for the answer.
func TestIssueByHTTP01(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	m := newManager(t, a.options("One.Http.TEST.", "two.http.test"), nil)
	f.issuer.Store(m)
	_, err := m.GetCertificate(t.Context(), hello("one.http.test"))
	wantsNone(t, err, `"one.http.test" yet: it is being obtained`)
	if s := status(t, m, "one.http.test"); s.State != StateWaiting || !s.NotAfter.IsZero() || s.LastError != "" {
		t.Errorf("got %+v before the start", s)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	untilValid(t, m, "one.http.test", "two.http.test")
	for _, asked := range []string{"one.http.test", "ONE.http.test."} {
		cert, err := m.GetCertificate(t.Context(), hello(asked))
		if err != nil {
			t.Fatal(err)
		}
		a.verify(t, cert, "one.http.test")
		if m.Cached(asked) != cert {
			t.Errorf("Cached gives another certificate for %q than GetCertificate", asked)
		}
	}
	a.verify(t, m.Cached("two.http.test"), "two.http.test")
	if f.http01.Load() == 0 || f.wrong.Load() > 0 || a.issued.Load() != 2 {
		t.Errorf("%d challenges were answered, %d wrongly, %d certificates issued", f.http01.Load(), f.wrong.Load(), a.issued.Load())
	}
	s := status(t, m, "one.http.test")
	if days := time.Until(s.NotAfter).Hours() / 24; days < 89 || days > 90 || s.LastError != "" || s.OnDemand {
		t.Errorf("got %+v", s)
	}
	if days := time.Until(s.NextAttempt).Hours() / 24; days < 59 || days > 61 {
		t.Errorf("renewal is due in %.1f days, want 60", days)
	}
	_, err = m.GetCertificate(t.Context(), hello("three.http.test"))
	wantsNone(t, err, `"three.http.test", which is not managed`)
	if m.Cached("three.http.test") != nil || m.Cached("") != nil {
		t.Error("there is a certificate for another name")
	}
}

// The challenge comes to the listener for TLS, which offers acme-tls/1.
func TestIssueByTLSALPN01(t *testing.T) {
	t.Parallel()
	f := newFront(t, false, true)
	a := newAuthority(t, f, 0)
	m := start(t, f, a.options("alpn.test"), nil)
	untilValid(t, m, "alpn.test")
	leaf, err := a.connect(f, "alpn.test")
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.Equal(m.Cached("alpn.test").Leaf) || f.tlsALPN01.Load() == 0 {
		t.Errorf("the client got another certificate, or none of %d challenges was answered", f.tlsALPN01.Load())
	}
	if _, err := a.connect(f, "other.test"); err == nil {
		t.Error("a client got a certificate for a name that is not managed")
	}
}

// A Issuer that starts anew takes what is stored, and asks the authority for nothing.
func TestRestartUsesStored(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	m := start(t, f, a.options("restart.test"), nil)
	untilValid(t, m, "restart.test")
	m.Close()
	was := m.Cached("restart.test")
	a.down.Store(true)
	requests := a.requests.Load()
	again := start(t, f, a.options("restart.test"), nil)
	untilValid(t, again, "restart.test")
	if id(again.Cached("restart.test")) != id(was) || a.requests.Load() != requests {
		t.Errorf("another certificate, after %d requests", a.requests.Load()-requests)
	}
	err := filepath.WalkDir(a.storage, func(name string, at os.DirEntry, err error) error {
		if err != nil || at.IsDir() {
			return err
		}
		if info, err := at.Info(); err == nil && strings.HasSuffix(name, ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of two Managers with one folder one issues, the other waits for it.
func TestTwoManagersIssueOnce(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, true)
	a := newAuthority(t, f, 0)
	one, two := start(t, f, a.options("once.test"), nil), start(t, f, a.options("once.test"), nil)
	untilValid(t, one, "once.test")
	untilValid(t, two, "once.test")
	if id(one.Cached("once.test")) != id(two.Cached("once.test")) || a.issued.Load() != 1 {
		t.Errorf("%d certificates were issued", a.issued.Load())
	}
}

// Another process begins the challenge; this one, to which the authority connects, finds it in the folder.
func TestChallengeOfAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		overHTTP, overTLS  bool
		wantHTTP, wantALPN bool
	}{{"http-01", true, false, true, false}, {"tls-alpn-01", false, true, false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, c.overHTTP, c.overTLS)
			f.stored = true
			a := newAuthority(t, f, 0)
			name := c.name + ".process.test"
			text, err := json.Marshal(struct {
				Email, Directory, CAFile, Storage string
				Names                             []string
			}{"ops@gateway.test", a.url, a.caFile, a.storage, []string{name}})
			if err != nil {
				t.Fatal(err)
			}
			o := a.options()
			o.OnDemand = refuseAll
			start(t, f, o, nil)
			other := exec.CommandContext(t.Context(), os.Args[0])
			other.Env = append(os.Environ(), otherProcess+"="+string(text))
			if out, err := other.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if f.http01.Load() > 0 != c.wantHTTP || f.tlsALPN01.Load() > 0 != c.wantALPN {
				t.Errorf("answered %d by http-01, %d by tls-alpn-01", f.http01.Load(), f.tlsALPN01.Load())
			}
		})
	}
}

// What a crash left, a new certificate beside the old key, is replaced.
func TestTornFilesAreReplaced(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	m := start(t, f, a.options("torn.test", "whole.test"), nil)
	untilValid(t, m, "torn.test", "whole.test")
	m.Close()
	keys, err := filepath.Glob(filepath.Join(a.storage, "certificates", "*", "*", "*.key"))
	if err != nil || len(keys) != 2 {
		t.Fatalf("got %q, %v", keys, err)
	}
	slices.Sort(keys)
	key, err := os.ReadFile(keys[1])
	if err == nil {
		err = os.WriteFile(keys[0], key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	was := m.Cached("torn.test")
	again := start(t, f, a.options("torn.test", "whole.test"), nil)
	untilValid(t, again, "torn.test", "whole.test")
	if id(again.Cached("torn.test")) == id(was) || a.issued.Load() != 3 {
		t.Errorf("the certificate is the old one, or %d were issued", a.issued.Load())
	}
	a.verify(t, again.Cached("torn.test"), "torn.test")
}
