package tls

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	// maxAsking is how many responders are asked at the same time, by all stores that share Staples.
	maxAsking = 8
	// maxStapleError bounds what is kept of an error.
	maxStapleError = 512
)

// fingerprint is the SHA-256 of a certificate.
type fingerprint [sha256.Size]byte

func fingerprintOf(c *x509.Certificate) fingerprint { return sha256.Sum256(c.Raw) }

// stapleTiming is apart so that tests need not wait.
type stapleTiming struct {
	look                  time.Duration // between two looks for what is due
	ask                   time.Duration // the longest wait for a responder
	firstPause, mostPause time.Duration // after the first failure; doubled by each further one up to the most
	leastPause            time.Duration // between two responses
	forget                time.Duration // after which a certificate is gone from all stores
}

func defaultStapleTiming() stapleTiming {
	return stapleTiming{look: time.Second, ask: 10 * time.Second, firstPause: time.Minute, mostPause: time.Hour, leastPause: time.Minute, forget: time.Hour}
}

// Staples are the OCSP responses of certificates, RFC 6960, which servers staple to them, RFC 6066, section 8. They outlive
// stores, so that a change of configuration neither loses them nor asks again. Memory is bounded by the certificates of the
// stores of the last hour, at 64 KiB each. All methods may be called at any time by any goroutine.
type Staples struct {
	timing stapleTiming
	client *http.Client
	slots  chan struct{}

	good, revoked, failed atomic.Uint64

	mu    sync.Mutex // for what follows, and for nothing that waits
	all   map[fingerprint]*staple
	swept time.Time
}

// staple is what is known of one certificate. It is guarded by Staples.mu.
type staple struct {
	response []byte // valid until until; nil: there is none
	from     time.Time
	until    time.Time
	revoked  time.Time // zero: it is not
	problem  string    // why the last question was in vain
	failures int       // in a row
	next     time.Time // when to ask
	asking   bool
	seen     time.Time // when a store last had it
}

// NewStaples gives none. Responders are asked through the proxy of the environment.
func NewStaples() *Staples {
	return &Staples{
		timing: defaultStapleTiming(),
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		slots: make(chan struct{}, maxAsking),
		all:   map[fingerprint]*staple{},
	}
}

// Counts are the questions by what came of them; they only grow.
func (s *Staples) Counts() (good, revoked, failed uint64) {
	return s.good.Load(), s.revoked.Load(), s.failed.Load()
}

// current gives the response to staple now, nil for none.
func (s *Staples) current(id fingerprint, now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.all[id]; e != nil && now.Before(e.until) {
		return e.response
	}
	return nil
}

// staple gives l with the present response stapled to it, or l itself if that is so.
func (s *Staples) staple(l *loaded, now time.Time) *loaded {
	if s == nil || !l.status.can() {
		return l
	}
	response := s.current(l.status.id, now)
	if bytes.Equal(response, l.cert.OCSPStaple) {
		return l
	}
	next, cert := *l, *l.cert
	cert.OCSPStaple = response
	next.cert = &cert
	return &next
}

// begin says whether it is time to ask about a certificate, and if so that it is being asked.
func (s *Staples) begin(id fingerprint, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[id]
	if e == nil {
		e = &staple{}
		s.all[id] = e
	}
	e.seen = now
	if e.asking || now.Before(e.next) {
		return false
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return false
	}
	e.asking = true
	return true
}

// ask asks once, and notes what came of it, unless ctx ended it. first says that it is the first failure in a row.
func (s *Staples) ask(ctx context.Context, of *stapling) (first bool, err error) {
	defer func() { <-s.slots }()
	limited, cancel := context.WithTimeout(ctx, s.timing.ask)
	defer cancel()
	answer, err := ask(limited, s.client, of)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, now := s.all[of.id], time.Now()
	e.asking = false
	if err != nil && ctx.Err() != nil {
		return false, err
	}
	if err == nil && answer.ThisUpdate.Before(e.from) {
		err = fmt.Errorf("cannot use the answer of %q: it is older than the last one", of.responder)
	}
	if err != nil {
		s.failed.Add(1)
		e.fail(err, now, &s.timing)
		return e.failures == 1, err
	}
	e.response, e.from, e.until, e.revoked = nil, answer.ThisUpdate, answer.NextUpdate, time.Time{}
	e.problem, e.failures = "", 0
	e.next = s.timing.refresh(answer, now)
	if answer.Status == ocsp.Revoked {
		s.revoked.Add(1)
		e.revoked = answer.RevokedAt
		e.problem = "the certificate was revoked on " + day(answer.RevokedAt)
		return true, errors.New(e.problem)
	}
	s.good.Add(1)
	e.response = answer.Raw
	return false, nil
}

func (e *staple) fail(err error, now time.Time, t *stapleTiming) {
	e.problem = err.Error()
	if len(e.problem) > maxStapleError {
		e.problem = e.problem[:maxStapleError] + "..."
	}
	pause := t.mostPause
	if e.failures < 16 { // beyond, it would overflow
		pause = min(pause, t.firstPause<<e.failures)
	}
	e.failures++
	e.next = now.Add(pause + rand.N(pause/5+1))
}

// refresh is when to ask again: in the middle of the response's life, or of what is left of it, a tenth earlier or later, so
// that certificates that began together do not stay so.
func (t *stapleTiming) refresh(answer *ocsp.Response, now time.Time) time.Time {
	from := answer.ThisUpdate
	half := answer.NextUpdate.Sub(from) / 2
	if from.Add(half).Before(now) {
		from, half = now, answer.NextUpdate.Sub(now)/2
	}
	half = max(half, 0) // it may have ended since it was verified
	half += rand.N(half/5+1) - half/10
	next := from.Add(half)
	if least := now.Add(t.leastPause); next.Before(least) {
		return least
	}
	return next
}

// sweep forgets certificates that no store has had for long.
func (s *Staples) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.swept) < s.timing.forget {
		return
	}
	s.swept = now
	for id, e := range s.all {
		if !e.asking && now.Sub(e.seen) > s.timing.forget {
			delete(s.all, id)
		}
	}
}

// States of a staple.
const (
	// StapleOff: it is turned off, or the certificate cannot have one.
	StapleOff = "off"
	// StapleWaiting: nobody has answered yet.
	StapleWaiting = "waiting"
	// StapleGood: there is one.
	StapleGood = "good"
	// StapleRevoked: there is none, since the certificate was revoked.
	StapleRevoked = "revoked"
	// StapleFailed: there is none, and the last question was in vain.
	StapleFailed = "failed"
)

// StapleStatus is the state of a certificate's OCSP staple. The zero value is that of one that names no responder.
type StapleStatus struct {
	State string
	// Until is the end of the staple; zero: there is none.
	Until time.Time
	// Next is when the responder is asked again.
	Next time.Time
	// Problem says why the last question was in vain; there may be a staple nevertheless.
	Problem string
}

// of describes a certificate's staple. s may be nil.
func (s *Staples) of(c *stapling, now time.Time) StapleStatus {
	switch {
	case c.responder == "" && !c.must:
		return StapleStatus{}
	case s == nil || c.responder == "":
		return StapleStatus{State: StapleOff}
	case c.issuer == nil:
		return StapleStatus{State: StapleOff, Problem: "the certificate of its issuer is missing after it"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[c.id]
	if e == nil {
		return StapleStatus{State: StapleWaiting}
	}
	status := StapleStatus{State: StapleWaiting, Next: e.next, Problem: e.problem}
	switch {
	case !e.revoked.IsZero():
		status.State = StapleRevoked
	case e.response != nil && now.Before(e.until):
		status.State, status.Until = StapleGood, e.until
	case e.problem != "":
		status.State = StapleFailed
	}
	return status
}
