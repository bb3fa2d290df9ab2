package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

const (
	idBytes = 32 // of the id of a session, and of what a browser is known by while it logs in
	idText  = 43 // characters of it
)

// NewID gives an id that nobody can guess.
func NewID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // it cannot fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashID gives what is kept of an id; false: it is none. It allocates nothing.
func HashID(id []byte) (hash [sha256.Size]byte, ok bool) {
	if len(id) != idText {
		return hash, false
	}
	var b [idBytes]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], id); err != nil || n != idBytes {
		return hash, false
	}
	return sha256.Sum256(b[:]), true
}

// Session is what is kept of somebody who has logged in, until it has ended. Any goroutine may read it. State and end may be changed
// while loops look.
type Session struct {
	Begun, Until int64  // as Unix time in nanoseconds; Until is the end whatever happens
	Subject      string // as the provider knows him
	ProviderID   string // the provider's name of its own session, sid; "": it says none

	hash   [sha256.Size]byte
	next   atomic.Pointer[Session] // of its slot
	state  atomic.Pointer[State]
	judged atomic.Pointer[judged]
	used   atomic.Int64
	ended  atomic.Bool
	copied copied // where nodes share sessions
}

// State is what the provider has said last. Immutable.
type State struct {
	Claims       core.Claims
	IDToken      string // for the provider, when the session ends
	RefreshToken string // "": none
	Nonce        string // of the login
	Refresh      int64  // when the tokens are to be refreshed, as Unix time in nanoseconds; 0: never
}

// judged is what a session is good for, by the word of a policy.
type judged struct {
	by        *Policy
	directory *core.Directory
	of        *State
	grant     *core.Grant
	err       *core.Error
}

// NewSession gives one that begins now, for who has the id of that hash.
func NewSession(hash [sha256.Size]byte, subject, providerID string, state *State, now, until int64) *Session {
	s := &Session{Begun: now, Until: until, Subject: subject, ProviderID: providerID, hash: hash}
	s.state.Store(state)
	s.used.Store(now)
	return s
}

// usedEvery is how often a use is noted: all loops share the note.
const usedEvery = int64(time.Second)

// use notes that a session is used; false: it has ended.
func (s *Session) use(now, idle int64) bool {
	used := s.used.Load()
	if s.ended.Load() || now >= s.Until || now-used >= idle {
		return false
	}
	if now-used >= usedEvery {
		s.used.Store(now)
	}
	return true
}

// Hash is what is kept of its id.
func (s *Session) Hash() [sha256.Size]byte { return s.hash }

// State is what the provider has said last.
func (s *Session) State() *State { return s.state.Load() }

// SetState puts another in force. One goroutine at a time does.
func (s *Session) SetState(to *State) { s.state.Store(to) }

// Used is when it was used last, to the second, as Unix time in nanoseconds.
func (s *Session) Used() int64 { return s.used.Load() }

// SetUsed says when it was used last. A use on a loop at the same time may be lost.
func (s *Session) SetUsed(at int64) { s.used.Store(at) }

// End ends it, for all loops at once.
func (s *Session) End() { s.ended.Store(true) }

// Ended says whether it was ended.
func (s *Session) Ended() bool { return s.ended.Load() }

// Over says whether it has ended, by whatever.
func (s *Session) Over(now, idle int64) bool {
	return s.ended.Load() || now >= s.Until || now-s.used.Load() >= idle
}

// Table finds sessions by the hashes of their ids. Any goroutine may ask it, at any time, and none waits; one at a time changes it.
type Table struct {
	slots []atomic.Pointer[Session]
	shift int
}

// NewTable gives one for about so many.
func NewTable(most int) *Table {
	n := bits.Len(uint(max(most, 2) - 1))
	return &Table{slots: make([]atomic.Pointer[Session], 1<<n), shift: 64 - n}
}

// slot is where sessions of a hash are. Nobody can choose a part of it who does not know the whole id.
func (t *Table) slot(hash *[sha256.Size]byte) *atomic.Pointer[Session] {
	return &t.slots[binary.BigEndian.Uint64(hash[:])>>t.shift]
}

// Find gives the session of a hash, also one that has ended; nil: there is none.
func (t *Table) Find(hash [sha256.Size]byte) *Session {
	for s := t.slot(&hash).Load(); s != nil; s = s.next.Load() {
		if s.hash == hash {
			return s
		}
	}
	return nil
}

// Put adds a session that has never been in a table.
func (t *Table) Put(s *Session) {
	slot := t.slot(&s.hash)
	s.next.Store(slot.Load())
	slot.Store(s)
}

// Remove takes one out. Whoever is looking at it finds its way from there.
func (t *Table) Remove(s *Session) {
	for at := t.slot(&s.hash); at.Load() != nil; at = &at.Load().next {
		if at.Load() == s {
			at.Store(s.next.Load())
			return
		}
	}
}
