package acme

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func refuseAll(context.Context, string) error { return errors.New("no customer of ours") }

func allowAll(context.Context, string) error { return nil }

// Clients that come at the same time get one certificate, and none for names that the rule refuses.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	f := newFront(t, false, true)
	a := newAuthority(t, f, 0)
	o := a.options()
	o.OnDemand = func(ctx context.Context, name string) error {
		if name != "customer.test" {
			return refuseAll(ctx, name)
		}
		return nil
	}
	m := start(t, f, o, nil)
	if _, err := a.connect(f, "stranger.test"); err == nil {
		t.Error("a refused name got a certificate")
	}
	_, err := m.GetCertificate(t.Context(), hello("stranger.test"))
	wantsNone(t, err, "it is not allowed: no customer of ours")
	if len(m.Status()) != 0 || a.requests.Load() != 0 {
		t.Errorf("a refused name is kept, or %d requests were made", a.requests.Load())
	}
	if !m.MayBlock(hello("customer.test")) {
		t.Error("MayBlock denies that a name is got on demand")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := a.connect(f, "Customer.test"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if a.issued.Load() != 1 || m.MayBlock(hello("customer.test")) || m.Cached("customer.test") == nil {
		t.Errorf("%d were issued, or the certificate is not in memory", a.issued.Load())
	}
	if s := status(t, m, "customer.test"); !s.OnDemand || s.State != StateValid {
		t.Errorf("got %+v", s)
	}
	m.Close()
	requests := a.requests.Load()
	start(t, f, o, nil)
	if _, err := a.connect(f, "customer.test"); err != nil || a.requests.Load() != requests {
		t.Errorf("after a restart: %v, %d requests", err, a.requests.Load()-requests)
	}
}

// A client that goes away does not stop what it began; a failure is not repeated before its time.
func TestOnDemandOutlivesClient(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	o := a.options()
	o.OnDemand = allowAll
	m := start(t, f, o, func(m *Issuer) { m.timing.firstPause, m.timing.mostPause = time.Hour, time.Hour })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.getOnDemand(gone, "gone.test")
	wantsNone(t, err, "canceled")
	until(t, "there is a certificate", func() bool { return m.Cached("gone.test") != nil })

	a.down.Store(true)
	_, err = m.GetCertificate(t.Context(), hello("failed.test"))
	wantsNone(t, err, a.url)
	a.down.Store(false)
	issued := a.issued.Load()
	_, err = m.GetCertificate(t.Context(), hello("failed.test"))
	wantsNone(t, err, a.url)
	if s := status(t, m, "failed.test"); a.issued.Load() != issued || s.State != StateFailed || time.Until(s.NextAttempt) < 59*time.Minute {
		t.Errorf("got %+v after %d more", s, a.issued.Load()-issued)
	}
}

// When renewal is due, names that the rule refuses by now, and those that nobody used, are forgotten.
func TestOnDemandRenewal(t *testing.T) {
	t.Parallel()
	refused, unused, used := fresh("refused"), fresh("unused"), fresh("used")
	f := newFront(t, true, false)
	a := newAuthority(t, f, 20*time.Second)
	var refuse atomic.Bool
	o := a.options()
	o.OnDemand = func(ctx context.Context, name string) error {
		if refuse.Load() && name == refused {
			return refuseAll(ctx, name)
		}
		return nil
	}
	m := start(t, f, o, func(m *Issuer) { m.timing.renewEvery = 5 * time.Second }) // all is due at the first look
	was := map[string][32]byte{}
	for _, name := range []string{refused, unused, used} {
		cert, err := m.GetCertificate(t.Context(), hello(name))
		if err != nil {
			t.Fatal(err)
		}
		was[name] = id(cert)
	}
	refuse.Store(true)
	m.entry(unused).used.Store(false)
	until(t, "the names are forgotten", func() bool { return m.entry(refused) == nil && m.entry(unused) == nil })
	until(t, "the other is renewed", func() bool { c := m.Cached(used); return c != nil && id(c) != was[used] })
	if m.Cached(refused) != nil || m.Cached(unused) != nil || len(m.Status()) != 1 {
		t.Errorf("there is %+v", m.Status())
	}
	if got := len(m.running.Load().cache.AllMatchingCertificates(unused)); got != 0 {
		t.Errorf("%d certificates of a forgotten name are in memory", got)
	}
}

// Names are many, memory is not.
func TestOnDemandIsBounded(t *testing.T) {
	t.Parallel()
	f := newFront(t, true, false)
	a := newAuthority(t, f, 0)
	o := a.options()
	o.OnDemand = allowAll
	m := start(t, f, o, func(m *Issuer) { m.mostOnDemand = 2 })
	for i := range 4 {
		if _, err := m.GetCertificate(t.Context(), hello(fmt.Sprintf("n%d.bounded.test", i))); err != nil {
			t.Fatal(err)
		}
		if got := len(m.Status()); got > 2 {
			t.Fatalf("%d names are kept", got)
		}
	}
	if m.Cached("n3.bounded.test") == nil {
		t.Error("the last one was not kept")
	}
	in := 0
	for i := range 4 {
		in += len(m.running.Load().cache.AllMatchingCertificates(fmt.Sprintf("n%d.bounded.test", i)))
	}
	if in != 2 {
		t.Errorf("%d certificates are in memory", in)
	}
	r := m.running.Load()
	m.attempt(r, &entry{name: "n0.bounded.test"}) // one that had begun before the name was forgotten
	if len(r.cache.AllMatchingCertificates("n0.bounded.test"))+len(r.cache.AllMatchingCertificates("n1.bounded.test")) > 0 {
		t.Error("a name that was forgotten is in memory again")
	}
	m.demandMu.Lock()
	for _, e := range m.demand {
		e.mu.Lock()
		e.attempt = make(chan struct{})
		e.mu.Unlock()
	}
	m.demandMu.Unlock()
	_, err := m.GetCertificate(t.Context(), hello("n5.bounded.test"))
	wantsNone(t, err, "too many")
}

// What is not started, or closed, gets nothing, and says so.
func TestOnDemandWithoutStart(t *testing.T) {
	t.Parallel()
	m, err := New(Options{Email: "ops@gateway.test", Directory: "https://127.0.0.1:1/dir", Storage: t.TempDir(), OnDemand: allowAll})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.GetCertificate(t.Context(), hello("early.test"))
	wantsNone(t, err, "none are being obtained")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Close()
	m.Close()
	_, err = m.GetCertificate(t.Context(), hello("late.test"))
	wantsNone(t, err, "none are being obtained")
	if err := m.Start(t.Context()); err != nil || m.running.Load().ctx.Err() == nil {
		t.Errorf("it started again: %v", err)
	}
	if s := m.Status(); len(s) != 0 {
		t.Errorf("got %+v", s)
	}
}
