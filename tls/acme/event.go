package acme

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// onEvent hears from certmagic what it does, on the goroutine that does it. An error forbids what is about to be done.
func (m *Issuer) onEvent(ctx context.Context, r *running, event string, data map[string]any) error {
	if event == "cached_managed_cert" {
		names, _ := data["sans"].([]string)
		for _, name := range names {
			if e := m.entry(name); e != nil {
				m.refresh(r, e)
			}
		}
		return nil
	}
	name, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	e := m.entry(name)
	switch event {
	case "cert_obtaining":
		if renewal && m.names[name] == nil {
			return m.allowRenewal(ctx, r, name, e)
		}
	case "cert_obtained":
		if renewal {
			m.options.Counters.Renewed.Add(1)
		} else {
			m.options.Counters.Obtained.Add(1)
		}
		if e == nil {
			return nil
		}
		e.used.Store(false)
		if err := m.publishStored(ctx, e, data); err != nil {
			return err
		}
		e.succeed()
		if cert := e.cert.Load(); cert != nil {
			m.options.Log.Info("certificate obtained", "name", name, "renewal", renewal, "not_after", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	case "cert_failed":
		// Other failures are noted by who waits for the attempt. For a renewal that certmagic has begun nobody does.
		if err, _ := data["error"].(error); e != nil && renewal && err != nil {
			if ctx.Value(attemptKey{}) == nil {
				m.options.Counters.Failures.Add(1)
				e.fail(err, m.timing.renewEvery)
			}
			if ctx.Value(unlinkedKey{}) == nil && refusesLink(err) {
				r.spawn(func() { m.renewUnlinked(r, name) })
			}
		}
	}
	return nil
}

// attemptKey marks the context of an attempt, whose failure is noted by who makes it.
type attemptKey struct{}

// unlinkedKey marks the context of an order that does not say which certificate it replaces.
type unlinkedKey struct{}

// refusesLink says whether a renewal may have failed because of what its order said: that it replaces a certificate, which
// the authority refuses for one that another account got, RFC 9773, section 5, or fails at if it knows it no more. The former
// is so after the account's email changed; either would be so at each renewal.
func refusesLink(err error) bool {
	var problem acme.Problem
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "creating new order") {
		return false
	}
	switch problem.Type {
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeMalformed, acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeServerInternal:
		return true
	}
	return false
}

// renewUnlinked renews by an order of its own. What comes of it is told by events, as of every renewal.
func (m *Issuer) renewUnlinked(r *running, name string) {
	ctx, cancel := context.WithTimeout(context.WithValue(r.ctx, unlinkedKey{}, true), m.timing.attempt)
	defer cancel()
	if err := r.unlinked.RenewCertSync(ctx, name, false); err != nil {
		m.options.Log.Debug("cannot renew as if it were a first certificate", "name", name, "error", err)
	}
}

// publishStored makes a certificate known that was just stored. certmagic takes a renewed one into memory without an event.
func (m *Issuer) publishStored(ctx context.Context, e *entry, data map[string]any) error {
	certKey, _ := data["certificate_path"].(string)
	keyKey, _ := data["private_key_path"].(string)
	certText, err := m.storage.Load(ctx, certKey)
	var keyText []byte
	if err == nil {
		keyText, err = m.storage.Load(ctx, keyKey)
	}
	var cert cryptotls.Certificate
	if err == nil {
		cert, err = cryptotls.X509KeyPair(certText, keyText)
	}
	if err != nil {
		return fmt.Errorf("cannot load the new certificate for %q: %w", e.name, err)
	}
	e.publish(&cert)
	return nil
}

// allowRenewal decides about a certificate got on demand: names that nobody asked for since, and that Options.OnDemand
// refuses by now, are forgotten.
func (m *Issuer) allowRenewal(ctx context.Context, r *running, name string, e *entry) error {
	err := errors.New("it is not managed any more")
	if e != nil {
		err = nil
		if !e.used.Load() {
			err = errors.New("nobody asked for it since it was issued")
		} else if refused := m.ask(ctx, name); refused != nil {
			err = refused
		}
	}
	if err == nil {
		return nil
	}
	m.forget(r, name)
	return fmt.Errorf("cannot renew the certificate for %q: %w", name, err)
}

// forget takes a name got on demand out of memory. What is stored stays.
func (m *Issuer) forget(r *running, name string) {
	m.demandMu.Lock()
	delete(m.demand, name)
	m.live.Delete(name)
	m.demandMu.Unlock()
	r.unload(name)
}

// unload takes the certificates of a name out of certmagic's memory.
func (r *running) unload(name string) {
	r.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
}

// entry gives that of a folded name, nil if there is none.
func (m *Issuer) entry(name string) *entry {
	if e := m.names[name]; e != nil {
		return e
	}
	m.demandMu.RLock()
	defer m.demandMu.RUnlock()
	return m.demand[name]
}
