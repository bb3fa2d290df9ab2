package acme

import (
	"strings"
	"testing"
	"time"
)

// A successor, as after a change of names, gives what its predecessor had from the first moment, asks for the new name only,
// and goes on renewing what clients had asked for.
func TestInherit(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	o := a.options("kept.test", "dropped.test")
	o.OnDemand = allowAll
	o.Counters = &Counters{}
	m := start(t, f, o, nil)
	untilValid(t, m, "kept.test", "dropped.test")
	if _, err := m.GetCertificate(t.Context(), hello("asked.test")); err != nil {
		t.Fatal(err)
	}
	o.Names = []string{"kept.test", "new.test"}
	next := newManager(t, o, nil)
	next.Inherit(m, true)
	if next.Cached("kept.test") != m.Cached("kept.test") || next.Cached("asked.test") != m.Cached("asked.test") || next.Cached("dropped.test") != nil {
		t.Error("before its start it has not what it should")
	}
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	m.Close()
	f.issuer.Store(next)
	untilValid(t, next, "kept.test", "new.test")
	if o.Counters.Obtained.Load() != 4 || a.issued.Load() != 4 || o.Counters.Renewed.Load() != 0 {
		t.Errorf("%d were issued, %d counted", a.issued.Load(), o.Counters.Obtained.Load())
	}
	until(t, "what was inherited is certmagic's concern", func() bool {
		return len(next.running.Load().cache.AllMatchingCertificates("asked.test")) == 1
	})
	other := newManager(t, Options{Email: o.Email, Directory: o.Directory, Storage: t.TempDir(), Names: o.Names, OnDemand: allowAll}, nil)
	other.Inherit(next, true)
	if other.Cached("kept.test") != nil {
		t.Error("it inherits from another folder")
	}
	fresh := newManager(t, o, nil)
	fresh.Inherit(next, false)
	if fresh.Cached("kept.test") == nil || fresh.Cached("asked.test") != nil {
		t.Error("under another rule it must ask again, and for listed names it need not")
	}
}

// A change of configuration is no way around the pause after a failure.
func TestInheritPause(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	a.down.Store(true)
	o := a.options("down.test")
	o.Counters = &Counters{}
	long := func(m *Issuer) { m.timing.firstPause, m.timing.mostPause = time.Hour, time.Hour }
	m := start(t, f, o, long)
	until(t, "a failure", func() bool { return status(t, m, "down.test").State == StateFailed })
	next := newManager(t, o, long)
	next.Inherit(m, false)
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	s := status(t, next, "down.test")
	if s.State != StateFailed || time.Until(s.NextAttempt) < 50*time.Minute || o.Counters.Failures.Load() != 1 {
		t.Errorf("got %+v after %d failures", s, o.Counters.Failures.Load())
	}
}

// After a change of the account, whose certificates another account may not replace, renewal goes on all the same.
func TestRenewByAnotherAccount(t *testing.T) {
	t.Parallel()
	name := fresh("account")
	f := newFront(t, true, false)
	a := newAuthority(t, f, 40*time.Second)
	m := start(t, f, a.options(name), nil)
	untilValid(t, m, name)
	m.Close()
	was := m.Cached(name)
	o := a.options(name)
	o.Email = "other@gateway.test"
	next := newManager(t, o, nil) // renewEvery makes all due at the first look
	next.Inherit(m, false)
	f.issuer.Store(next)
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	until(t, "there is another certificate", func() bool { return id(next.Cached(name)) != id(was) })
	untilValid(t, next, name)
	a.verify(t, next.Cached(name), name)
}

// The authority is offered the challenges that are left, and only these.
func TestChallengesAreChosen(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, true)
	a := newAuthority(t, f, 0)
	o := a.options("http.chosen.test")
	o.NoTLSALPN01 = true
	untilValid(t, start(t, f, o, nil), "http.chosen.test")
	if f.http01.Load() == 0 || f.tlsALPN01.Load() != 0 {
		t.Errorf("answered %d by http-01, %d by tls-alpn-01", f.http01.Load(), f.tlsALPN01.Load())
	}
	was := f.http01.Load()
	o = a.options("alpn.chosen.test")
	o.NoHTTP01 = true
	untilValid(t, start(t, f, o, nil), "alpn.chosen.test")
	if f.http01.Load() != was || f.tlsALPN01.Load() == 0 {
		t.Errorf("answered %d by http-01, %d by tls-alpn-01", f.http01.Load()-was, f.tlsALPN01.Load())
	}
	o.NoTLSALPN01 = true
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "without a challenge") {
		t.Errorf("got %v", err)
	}
}

// The account is bound to one that the authority knows; another key is refused.
func TestExternalAccount(t *testing.T) {
	t.Parallel()
	const kid, key = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	f := newFront(t, true, false)
	a := newBoundAuthority(t, f, map[string]string{kid: key})
	o := a.options("bound.test")
	m := start(t, f, o, nil)
	until(t, "it is refused without", func() bool { return status(t, m, "bound.test").State == StateFailed })
	o.Storage = t.TempDir()
	o.ExternalAccount = &ExternalAccount{KeyID: kid, HMAC: key}
	untilValid(t, start(t, f, o, nil), "bound.test")
	for _, wrong := range []ExternalAccount{{"", key}, {kid, ""}, {kid, "not base64!"}} {
		o.ExternalAccount = &wrong
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "not base64!") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
