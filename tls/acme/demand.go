package acme

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"time"
)

// ask puts a name to Options.OnDemand.
func (m *Issuer) ask(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, m.timing.rule)
	defer cancel()
	if err := m.options.OnDemand(ctx, name); err != nil {
		return fmt.Errorf("it is not allowed: %w", err)
	}
	return nil
}

// getOnDemand gets the certificate for a name that is not in memory, for a handshake that ends with ctx. The attempt
// outlives the handshake, so that a client that comes back finds the certificate.
func (m *Issuer) getOnDemand(ctx context.Context, name string) (*cryptotls.Certificate, error) {
	r := m.running.Load()
	if r == nil || r.ctx.Err() != nil {
		return nil, fmt.Errorf("%w for %q: none are being obtained", ErrNoCertificate, name)
	}
	if err := m.ask(ctx, name); err != nil {
		return nil, fmt.Errorf("%w for %q: %w", ErrNoCertificate, name, err)
	}
	e, err := m.enlist(r, name)
	if err != nil {
		return nil, fmt.Errorf("%w for %q: %w", ErrNoCertificate, name, err)
	}
	attempt, err := m.join(r, e)
	if err != nil {
		return nil, err
	}
	select {
	case <-attempt:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w for %q yet: %w", ErrNoCertificate, name, ctx.Err())
	case <-r.ctx.Done():
		return nil, fmt.Errorf("%w for %q: none are being obtained", ErrNoCertificate, name)
	}
	if cert := e.cert.Load(); cert != nil {
		e.used.Store(true)
		return cert, nil
	}
	return nil, e.missing()
}

// enlist gives the entry of a name that is allowed. Where there are too many, another is forgotten.
func (m *Issuer) enlist(r *running, name string) (*entry, error) {
	m.demandMu.Lock()
	e, victim := m.demand[name], (*entry)(nil)
	if e == nil && len(m.demand) >= m.mostOnDemand {
		if victim = m.unused(); victim == nil {
			m.demandMu.Unlock()
			return nil, errors.New("too many are being obtained")
		}
		delete(m.demand, victim.name)
		m.live.Delete(victim.name)
	}
	if e == nil {
		e = &entry{name: name}
		m.demand[name] = e
		m.live.Store(name, e)
	}
	m.demandMu.Unlock()
	e.used.Store(true)
	if victim != nil { // not under the lock, since it may wait
		r.unload(victim.name)
	}
	return e, nil
}

// unused finds an entry to forget: of a few, which differ from call to call, one that nobody asked for since it was last
// looked at, or else any. demandMu is held, for so short a time that Cached does not notice.
func (m *Issuer) unused() (victim *entry) {
	looked := 0
	for _, e := range m.demand {
		if looked++; looked > 32 {
			break
		}
		e.mu.Lock()
		busy := e.attempt != nil
		e.mu.Unlock()
		switch {
		case busy:
		case !e.used.Swap(false):
			return e
		case victim == nil:
			victim = e
		}
	}
	return victim
}

// join begins an attempt, or gives the one that is under way. After a failure the pause is kept.
func (m *Issuer) join(r *running, e *entry) (<-chan struct{}, error) {
	e.mu.Lock()
	attempt, failed := e.attempt, e.failure != nil && time.Now().Before(e.next)
	begin := attempt == nil && !failed
	if begin {
		attempt = make(chan struct{})
		e.attempt = attempt
	}
	e.mu.Unlock()
	switch {
	case attempt == nil:
		if e.cert.Load() == nil {
			return nil, e.missing()
		}
		attempt = make(chan struct{})
		close(attempt)
		return attempt, nil
	case !begin:
		return attempt, nil
	}
	end := func() {
		e.mu.Lock()
		e.attempt = nil
		e.mu.Unlock()
		close(attempt)
	}
	started := r.spawn(func() {
		defer end()
		select {
		case r.slots <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		defer func() { <-r.slots }()
		m.attempt(r, e)
	})
	if !started {
		end()
	}
	return attempt, nil
}
