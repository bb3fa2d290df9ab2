package acme

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The authority moves the time of renewal, as after an incident, RFC 9773, section 4.2: the certificate is replaced at once,
// and the order says what it replaces.
func TestRenewWhenAuthoritySays(t *testing.T) {
	t.Parallel()
	name := fresh("ari")
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	a.again.Store(true)
	m := start(t, f, a.options(name), func(m *Issuer) { m.timing.renewEvery = 200 * time.Millisecond })
	untilValid(t, m, name)
	was := m.Cached(name)
	now := time.Now().UTC()
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, now.Add(-2*time.Hour).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339))
	if err := a.db.SetARIResponse(was.Leaf.SerialNumber, window); err != nil {
		t.Fatal(err)
	}
	until(t, "the certificate is another", func() bool { return id(m.Cached(name)) != id(was) })
	is := m.Cached(name)
	a.verify(t, is, name)
	order, err := a.db.GetOrderByIssuedSerial(fmt.Sprintf("%x", is.Leaf.SerialNumber.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if order.Replaces == "" {
		t.Error("the order does not say which certificate it replaces")
	}
	if s := status(t, m, name); s.State != StateValid || !s.NotAfter.Equal(is.Leaf.NotAfter) {
		t.Errorf("got %+v", s)
	}
}

// Certificates of a few seconds are renewed before they expire; clients never get an expired one.
func TestRenewShortLived(t *testing.T) {
	t.Parallel()
	name := fresh("short")
	f := newFront(t, true, true)
	a := newAuthority(t, f, 15*time.Second)
	m := start(t, f, a.options(name), func(m *Issuer) { m.timing.renewEvery = 300 * time.Millisecond })
	untilValid(t, m, name)
	was := m.Cached(name).Leaf
	until(t, "a client gets another certificate", func() bool {
		leaf, err := a.connect(f, name)
		if err != nil {
			t.Fatal(err)
		}
		return !leaf.Equal(was)
	})
}

// While the authority cannot be reached the status says so, and so do handshakes; then all comes right by itself.
func TestDirectoryDown(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	a.down.Store(true)
	begun := time.Now()
	m := start(t, f, a.options("down.test"), nil)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the start took %v", took)
	}
	until(t, "a failure", func() bool { return status(t, m, "down.test").State == StateFailed })
	s := status(t, m, "down.test")
	if !strings.Contains(s.LastError, a.url) || !s.NotAfter.IsZero() {
		t.Errorf("got %+v", s)
	}
	_, err := m.GetCertificate(t.Context(), hello("down.test"))
	wantsNone(t, err, a.url)
	a.down.Store(false)
	untilValid(t, m, "down.test")
	if s := status(t, m, "down.test"); s.LastError != "" {
		t.Errorf("got %+v", s)
	}
	m.Close()
	r, requests := m.running.Load(), a.requests.Load()
	_, err = r.issuer.GetRenewalInfo(t.Context(), r.cache.AllMatchingCertificates("down.test")[0])
	if err == nil || a.requests.Load() != requests {
		t.Errorf("closed, it still asks the authority: %v", err)
	}
}

// A renewal fails: the last certificate is kept, and the next look renews it.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	name := fresh("kept")
	f := newFront(t, true, true)
	a := newAuthority(t, f, 40*time.Second)
	m := start(t, f, a.options(name), nil)
	untilValid(t, m, name)
	m.Close()
	was := m.Cached(name)
	a.down.Store(true)
	again := start(t, f, a.options(name), func(m *Issuer) { m.timing.renewEvery = 8 * time.Second })
	until(t, "a failure", func() bool { return status(t, again, name).State == StateFailed })
	s := status(t, again, name)
	if !s.NotAfter.Equal(was.Leaf.NotAfter) || !strings.Contains(s.LastError, a.url) || time.Until(s.NextAttempt) > 8*time.Second || s.NextAttempt.IsZero() {
		t.Errorf("got %+v", s)
	}
	time.Sleep(200 * time.Millisecond) // in which it would be counted by whoever else hears of it
	if n := again.options.Counters.Failures.Load(); n != 1 {
		t.Errorf("one attempt that came to nothing is counted as %d", n)
	}
	a.down.Store(false)
	leaf, err := a.connect(f, name)
	if err != nil || !leaf.Equal(was.Leaf) {
		t.Errorf("the last certificate is not kept: %v", err)
	}
	untilValid(t, again, name)
	if id(again.Cached(name)) == id(was) {
		t.Error("the certificate is valid and the same")
	}
}
