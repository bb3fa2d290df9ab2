package oidc

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Shared is what is known of the place where nodes share sessions: whether copies that are kept here can be trusted. Loops ask it, without a
// lock; one goroutine beside them changes it.
//
// A copy is good without a question as long as everything that became of sessions is heard. Each time when something may have been missed a
// new epoch begins, and each copy is looked up once more before it is good again.
type Shared struct {
	Marker *Marker

	epoch   atomic.Uint64
	heard   atomic.Int64 // all that became of sessions until then is known, as Unix time in nanoseconds
	hearing atomic.Bool
	away    func() bool
}

// CertainFor is how long copies are good after the moment of which it is known that nothing was missed until then: a session that was ended
// by another node is good here no longer than that, whatever becomes of the way to it.
const CertainFor = 2 * time.Second

// NewShared gives one that has heard nothing yet. Away says that nobody is to wait for the place; it is called on loops.
func NewShared(m *Marker, away func() bool) *Shared { return &Shared{Marker: m, away: away} }

// Epoch is the one that copies must be of.
func (h *Shared) Epoch() uint64 { return h.epoch.Load() }

// Doubt begins another epoch.
func (h *Shared) Doubt() { h.epoch.Add(1) }

// Heard says that all that became of sessions until then is known.
func (h *Shared) Heard(at int64) {
	h.heard.Store(at)
	h.hearing.Store(true)
}

// Lost says that nothing is heard.
func (h *Shared) Lost() { h.hearing.Store(false) }

// Certain says whether copies of this epoch are good without a question.
func (h *Shared) Certain(now int64) bool {
	return h.hearing.Load() && now-h.heard.Load() < int64(CertainFor)
}

// copied says of what epoch and version a copy is, and whether it has changed since.
type copied struct {
	epoch   atomic.Uint64
	version atomic.Uint64
	stale   atomic.Bool
	told    int64 // the last use that others were told of; only its teller touches it
}

// Copied says that a session is as others know it, in that version, and of which epoch that is known.
func (s *Session) Copied(version, epoch uint64) {
	s.copied.version.Store(version)
	s.copied.stale.Store(false)
	s.copied.epoch.Store(epoch)
}

// Version is that of the state that others know too.
func (s *Session) Version() uint64 { return s.copied.version.Load() }

// Stale says that others know a newer state.
func (s *Session) Stale() { s.copied.stale.Store(true) }

// Untold gives the last use if others were not told of it. One goroutine at a time asks, and tells by Told.
func (s *Session) Untold() (used int64, ok bool) {
	used = s.used.Load()
	return used, used > s.copied.told
}

// Told says that others know of a use.
func (s *Session) Told(used int64) { s.copied.told = max(s.copied.told, used) }

// good says whether a copy may be used without a question; alone: it may be used while there is nobody to ask.
func (h *Shared) good(s *Session, now, grace int64) (good, alone bool) {
	if s.Ended() || s.copied.epoch.Load() != h.epoch.Load() {
		return false, false
	}
	return !s.copied.stale.Load() && h.Certain(now), now-h.heard.Load() < grace
}

// Why a session is not found.
var (
	// ErrStore says that the place where sessions are does not answer.
	ErrStore     = &core.Error{Status: 503, Reason: "sessions_unavailable", Side: core.SideInternal}
	errStoreBusy = &core.Error{Status: 503, Reason: "sessions_busy", Side: core.SideInternal}
)

// findShared finds a session that several nodes know: here, where a copy is good, else where all are. What cannot be a session's id, or was looked
// for in vain just now, is not looked for.
func (p *Policy) findShared(x *core.Exchange, a *lane, id []byte, hash [sha256.Size]byte) (*Session, *core.Error) {
	now, idle := x.Worker.Loop.Time(), int64(p.spec.Idle)
	s := p.sessions.Find(hash)
	alone := false
	if s != nil {
		var good bool
		if good, alone = p.shared.good(s, now, int64(p.spec.Grace)); good && s.use(now, idle) {
			return s, nil
		}
		alone = alone && p.spec.Grace > 0
	}
	switch {
	case s == nil && !p.shared.Marker.Genuine(id):
		a.counts.Forged++
		return nil, nil
	case a.absent.has(&hash, now):
		return nil, nil
	}
	found, err := p.look(x, a, hash, now)
	switch {
	case err == nil && found == nil:
		a.absent.put(&hash, now)
		return nil, nil
	case err == nil && !found.use(now, idle):
		return nil, nil
	case err == nil:
		return found, nil
	case (err == ErrStore || err == errStoreBusy) && alone && s.use(now, idle):
		a.counts.Alone++
		return s, nil
	}
	return nil, err
}

// look asks where all sessions are, once for all of this loop who look for the same.
func (p *Policy) look(x *core.Exchange, a *lane, hash [sha256.Size]byte, now int64) (*Session, *core.Error) {
	if p.shared.away() {
		a.counts.Missed++
		return nil, ErrStore
	}
	if !a.lookups.take(now) {
		a.counts.Crowded++
		return nil, errStoreBusy
	}
	answer, err := a.finds.Ask(x, string(hash[:]), func() core.Call[Answer] { return p.provider.BeginFind(hash) })
	switch {
	case err == core.ErrCallsFull:
		a.counts.Crowded++
		return nil, errStoreBusy
	case err == core.ErrInternal, err == nil && answer.Err == ErrStore:
		a.counts.Missed++
		return nil, ErrStore
	case err != nil:
		return nil, err
	}
	a.counts.Looked++
	return answer.Session, answer.Err
}

const (
	// lookupsPerSecond bounds how often a node looks for sessions that it does not know, over all loops: as many as come when another node has
	// gone, and few enough that Redis has time for others.
	lookupsPerSecond = 10_000
	// findsAtOnce bounds the lookups that are under way from one loop.
	findsAtOnce = 512
)

// pace is a bucket of lookups that fills again within a second. One loop touches it.
type pace struct {
	every int64 // nanoseconds for each
	ahead int64 // until when those taken fill the time
}

func newPace(perSecond int) pace { return pace{every: int64(time.Second) / int64(max(perSecond, 1))} }

func (p *pace) take(now int64) bool {
	at := max(p.ahead, now)
	if at-now > int64(time.Second)-p.every {
		return false
	}
	p.ahead = at + p.every
	return true
}

const (
	absentSlots = 1024
	absentFor   = int64(10 * time.Second)
)

// absent are sessions that were looked for in vain: an id is used once, so none of them comes to be. One loop touches it.
type absent struct {
	slots []absence // allocated when the first is put
}

type absence struct {
	hash  [sha256.Size]byte
	until int64
}

func (n *absent) has(hash *[sha256.Size]byte, now int64) bool {
	if n.slots == nil {
		return false
	}
	s := &n.slots[binary.BigEndian.Uint16(hash[:])%absentSlots]
	return now < s.until && s.hash == *hash
}

func (n *absent) put(hash *[sha256.Size]byte, now int64) {
	if n.slots == nil {
		n.slots = make([]absence, absentSlots)
	}
	n.slots[binary.BigEndian.Uint16(hash[:])%absentSlots] = absence{*hash, now + absentFor}
}
