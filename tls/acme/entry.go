package acme

import (
	"bytes"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

// maxErrorBytes bounds what is kept of an error, since authorities write into it.
const maxErrorBytes = 1024

// States of a certificate.
const (
	// StateWaiting: there is none yet, and nothing went wrong.
	StateWaiting = "waiting"
	// StateValid: there is one, and nothing went wrong since.
	StateValid = "valid"
	// StateFailed: the last attempt failed, or the certificate expired. There may be a valid one nevertheless: see NotAfter.
	StateFailed = "failed"
)

// CertificateStatus is the state of one name.
type CertificateStatus struct {
	Name     string
	OnDemand bool
	State    string
	// Certificate is what is in memory, with Leaf, and NotAfter its end; nil and zero: there is none.
	Certificate *cryptotls.Certificate
	NotAfter    time.Time
	// LastError is why the last attempt failed, in at most a KiB; empty after one that succeeded.
	LastError string
	// NextAttempt is the earliest time of the next attempt, of a renewal if State is valid; the authority may ask for an earlier
	// one, RFC 9773. Zero: one is under way, or, on demand, is made when a client asks.
	NextAttempt time.Time
}

// Status describes all names, sorted, those got on demand included.
func (m *Issuer) Status() []CertificateStatus {
	now := time.Now()
	all := make([]CertificateStatus, 0, len(m.names))
	for _, e := range m.names {
		all = append(all, e.status(now))
	}
	for _, e := range m.onDemand() {
		s := e.status(now)
		s.OnDemand = true
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b CertificateStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (m *Issuer) onDemand() []*entry {
	m.demandMu.RLock()
	defer m.demandMu.RUnlock()
	return slices.Collect(maps.Values(m.demand))
}

// entry is one name.
type entry struct {
	name string
	cert atomic.Pointer[cryptotls.Certificate] // with Leaf
	// used says that a client asked since the certificate was issued. Not for Options.Names.
	used atomic.Bool

	mu       sync.Mutex // for what follows, and for nothing that waits
	failure  error
	failures int // in a row
	next     time.Time
	// attempt is closed when the on-demand attempt under way ends; nil: there is none.
	attempt chan struct{}
}

// publish makes the certificate the one of the name, unless the present one is newer.
func (e *entry) publish(cert *cryptotls.Certificate) {
	for {
		old := e.cert.Load()
		if old != nil {
			same := bytes.Equal(old.Leaf.Raw, cert.Leaf.Raw)
			if same && bytes.Equal(old.OCSPStaple, cert.OCSPStaple) || !same && cert.Leaf.NotBefore.Before(old.Leaf.NotBefore) {
				return
			}
		}
		if e.cert.CompareAndSwap(old, cert) {
			return
		}
	}
}

func (e *entry) succeed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure, e.failures, e.next = nil, 0, time.Time{}
}

// fail notes a failure, after which pause is waited at least.
func (e *entry) fail(err error, pause time.Duration) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, err.Error())
	if len(text) > maxErrorBytes {
		text = strings.ToValidUTF8(text[:maxErrorBytes-3], "") + "..."
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure, e.next = errors.New(text), time.Now().Add(pause)
	e.failures++
}

// begin says that an attempt is under way.
func (e *entry) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = time.Time{}
}

// pause is how long to wait after one more failure: doubled by each, and up to a fifth longer, so that names that failed
// together are not tried together for ever.
func (e *entry) pause(t timing) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	pause := t.mostPause
	if e.failures < 16 { // beyond, it would overflow
		pause = min(pause, t.firstPause<<e.failures)
	}
	return pause + rand.N(pause/5+1)
}

// missing is the error for a name without certificate.
func (e *entry) missing() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failure != nil {
		return fmt.Errorf("%w for %q yet: %w", ErrNoCertificate, e.name, e.failure)
	}
	return fmt.Errorf("%w for %q yet: it is being obtained", ErrNoCertificate, e.name)
}

func (e *entry) status(now time.Time) CertificateStatus {
	cert := e.cert.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := CertificateStatus{Name: e.name, State: StateWaiting, NextAttempt: e.next}
	if cert != nil {
		from, until := cert.Leaf.NotBefore, cert.Leaf.NotAfter
		s.State, s.Certificate, s.NotAfter = StateValid, cert, until
		switch {
		case now.After(until):
			s.State, s.LastError = StateFailed, "it expired on "+until.UTC().Format(time.RFC3339)
		case e.failure == nil:
			// As certmagic does where the authority says nothing: when a third of the lifetime is left.
			s.NextAttempt = until.Add(-until.Sub(from) / 3)
		}
	}
	if e.failure != nil {
		s.State, s.LastError = StateFailed, e.failure.Error()
	}
	return s
}
