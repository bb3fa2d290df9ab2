package compile

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// sessions are those of one policy of logins. They outlive configurations as long as it is with the same provider. Loops find them in the
// table, without a lock; whatever changes them is done beside the loops. Any goroutine but a loop's may use it.
type sessions struct {
	table   *oidc.Table
	sealer  *oidc.Sealer
	secret  []byte // the sealer's; nil where sessions are shared
	used    nonces // logins that were finished, and logout tokens
	refresh joins[oidc.Answer]
	finds   joins[oidc.Answer]
	shared  *shared // nil: they are this node's alone

	mu      sync.Mutex
	all     map[[sha256.Size]byte]*oidc.Session
	most    int
	idle    int64
	swept   int64 // when those that have ended were last taken out, as Unix time in nanoseconds
	evicted uint64
}

const (
	sweepEvery = int64(time.Minute)
	// evictShare is the part of a full table that makes room for one more: who is idle longest goes.
	evictShare = 128
)

func newSessions(most int, with *shared) (*sessions, error) {
	s := &sessions{table: oidc.NewTable(most), used: nonces{used: map[[sha256.Size]byte]int64{}}, all: map[[sha256.Size]byte]*oidc.Session{}, shared: with}
	if with != nil {
		s.sealer, with.unsaved = with.keys.sealer, map[[sha256.Size]byte]*oidc.Session{}
		return s, nil
	}
	s.secret = make([]byte, oidc.SecretBytes)
	_, _ = rand.Read(s.secret) // it cannot fail
	var err error
	s.sealer, err = oidc.NewSealer(s.secret)
	return s, err
}

// standing is what loops know of the place where sessions are shared; nil: they are not.
func (s *sessions) standing() *oidc.Shared {
	if s.shared == nil {
		return nil
	}
	return s.shared.Shared
}

// bound says how many there may be, and for how long they may be idle.
func (s *sessions) bound(most int, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most, s.idle = most, int64(idle)
}

// put adds one.
func (s *sessions) put(one *oidc.Session, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room(now)
	s.all[one.Hash()] = one
	s.table.Put(one)
}

// room makes room for one more, if there is none. The caller holds s.mu.
func (s *sessions) room(now int64) {
	if now-s.swept >= sweepEvery || len(s.all) >= s.most {
		s.sweep(now)
	}
	if len(s.all) >= s.most {
		s.evict()
	}
}

// sweep takes out those that have ended. The caller holds s.mu.
func (s *sessions) sweep(now int64) {
	s.swept = now
	for _, one := range s.all {
		if one.Over(now, s.idle) {
			s.remove(one)
		}
	}
}

// evict makes room, for more than one so that it is seldom done. A copy of a shared session has not ended with that. The caller holds s.mu.
func (s *sessions) evict() {
	used := make([]int64, 0, len(s.all))
	for _, one := range s.all {
		used = append(used, one.Used())
	}
	slices.Sort(used)
	leave := len(used) - s.most + 1 + s.most/evictShare
	until := used[min(leave, len(used))-1]
	for _, one := range s.all {
		if leave > 0 && one.Used() <= until {
			if s.shared == nil {
				one.End()
			}
			s.remove(one)
			s.evicted++
			leave--
		}
	}
}

func (s *sessions) remove(one *oidc.Session) {
	delete(s.all, one.Hash())
	s.table.Remove(one)
}

// end ends those that match, at once for all loops, and says how many there were.
func (s *sessions) end(match func(*oidc.Session) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(time.Now().UnixNano())
	for _, one := range s.all {
		if match(one) {
			one.End()
			s.remove(one)
			n++
		}
	}
	return n
}

// SessionStatus is one session, as operators see it.
type SessionStatus struct {
	ID                 string // made of what is kept of the browser's, which nobody can be shown
	Subject            string
	Begun, Used, Until time.Time
}

// idShown is how many bytes of an id's hash an operator sees.
const idShown = 8

func shownID(one *oidc.Session) string {
	hash := one.Hash()
	return hex.EncodeToString(hash[:idShown])
}

// list gives those that were used last, at most so many, and how many there are.
func (s *sessions) list(most int) (some []SessionStatus, all int, evicted uint64) {
	s.mu.Lock()
	s.sweep(time.Now().UnixNano())
	all, evicted = len(s.all), s.evicted
	var every []*oidc.Session
	if most > 0 {
		every = slices.Collect(maps.Values(s.all))
	}
	s.mu.Unlock()
	for _, one := range every {
		some = append(some, SessionStatus{ID: shownID(one), Subject: one.Subject, Begun: time.Unix(0, one.Begun), Used: time.Unix(0, one.Used()), Until: time.Unix(0, one.Until)})
	}
	slices.SortFunc(some, func(a, b SessionStatus) int { return b.Used.Compare(a.Used) })
	return some[:min(most, len(some))], all, evicted
}

// Logins is a policy that has people log in, with the name that it is counted under.
type Logins struct {
	Name     string
	Policy   *oidc.Policy
	Issuer   string
	sessions *sessions
	provider *provider
}

// Sessions gives those that were used last, at most so many, how many there are, and how many had to make room for others.
func (l *Logins) Sessions(most int) (some []SessionStatus, all int, evicted uint64) {
	return l.sessions.list(most)
}

// Shared says whether several nodes share the sessions, and whether what becomes of them elsewhere is heard now.
func (l *Logins) Shared() (shared, heard bool) {
	h := l.sessions.standing()
	return h != nil, h != nil && h.Certain(time.Now().UnixNano())
}

// End ends the session of that id, or all of a subject, and says how many: of all nodes that share them. An error says that other nodes do not
// know of it; they are told when they can be, those that are known here have ended. It waits for Redis, at most a second.
func (l *Logins) End(who string) (int, error) {
	s := l.sessions
	if s.shared == nil {
		return s.end(func(one *oidc.Session) bool { return one.Subject == who || shownID(one) == who }), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	n, err := s.revoke(ctx, ending{groups: s.shared.keys.groups(subjectGroup(who)), at: time.Now().UnixNano(),
		match: func(one *oidc.Session) bool { return one.Subject == who }})
	if len(who) != 2*idShown || strings.Trim(who, "0123456789abcdef") != "" {
		return n, err
	}
	keys, failed := s.shown(ctx, who)
	err = errors.Join(err, failed)
	for _, hash := range keys {
		more, failed := s.revoke(ctx, ending{hash: hash, at: time.Now().UnixNano()})
		n, err = n+more, errors.Join(err, failed)
	}
	return n, err
}

const (
	// endWithin is how long an operator waits until all nodes know what has ended.
	endWithin = time.Second
	// maxShown bounds the sessions that are known by one id: more than one is a freak.
	maxShown = 16
)

// shown gives the hashes of what operators see as that id, here and elsewhere.
func (s *sessions) shown(ctx context.Context, id string) (found [][sha256.Size]byte, err error) {
	s.mu.Lock()
	for hash, one := range s.all {
		if shownID(one) == id {
			found = append(found, hash)
		}
	}
	s.mu.Unlock()
	if len(found) > 0 {
		return found, nil
	}
	keys, err := s.shared.records.Keys(ctx, id, maxShown)
	for _, key := range keys {
		if hash, ok := hashOf(key); ok {
			found = append(found, hash)
		}
	}
	return found, err
}

// Problem is why the provider's description could not be had last, "" if it could; known says whether one is in force.
func (l *Logins) Problem() (problem string, known bool) {
	l.provider.mu.Lock()
	defer l.provider.mu.Unlock()
	return l.provider.problem, l.provider.current.Load() != nil
}
