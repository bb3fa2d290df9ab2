package core

import (
	"sync/atomic"
	"time"
)

// Revoked is tokens that were withdrawn at run time, before they expire. It is immutable; nil has none.
type Revoked struct {
	IDs      map[string]time.Time      // by jti: until when it is kept
	Subjects map[string]RevokedSubject // by sub
}

// RevokedSubject withdraws the tokens that a subject was given up to a time. Those that he gets afterwards count.
type RevokedSubject struct{ At, Until time.Time }

// Revocations are those in force. A token is looked for with each request, also one that was verified before.
type Revocations struct{ now atomic.Pointer[Revoked] }

// Switch puts r in force, for the requests from now on.
func (r *Revocations) Switch(to *Revoked) { r.now.Store(to) }

// Current gives those in force, nil for none.
func (r *Revocations) Current() *Revoked { return r.now.Load() }

// ErrTokenRevoked is what a token is refused for that was withdrawn.
var ErrTokenRevoked = &Error{Status: 401, Reason: "token_revoked"}

// Withdrawn says whether the token of a grant was withdrawn. now is nanoseconds of Unix time. It neither locks nor allocates.
func (b *Bearer) Withdrawn(g *Grant, now int64) bool {
	if b.Revoked == nil {
		return false
	}
	r := b.Revoked.Current()
	if r == nil {
		return false
	}
	if until, ok := r.IDs[g.ID]; ok && g.ID != "" && now < until.UnixNano() {
		return true
	}
	s, ok := r.Subjects[g.Subject]
	return ok && g.Subject != "" && now < s.Until.UnixNano() && g.Issued <= s.At.Unix()
}

// preflight says whether a request is one by which a browser asks whether a page may make another (the Fetch standard, CORS-preflight
// request). It never bears a credential. One that names another method than its own, for upstreams that would execute that, is none.
func (m *Message) preflight() bool {
	if string(m.MethodBytes()) != "OPTIONS" || !m.Has(FieldOrigin) {
		return false
	}
	for _, name := range [...]string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		if m.hasLike(name) {
			return false
		}
	}
	_, ok := m.Lookup("Access-Control-Request-Method")
	return ok
}

func (h *Header) hasLike(name string) bool {
	for i := range h.fields {
		if f := &h.fields[i]; !f.removed && looksLike(h.name(f), name) {
			return true
		}
	}
	return false
}
