package compile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// sessions are those of one policy of logins. They outlive configurations as long as it is with the same provider. Loops find them in the
// table, without a lock; whatever changes them is done beside the loops. Any goroutine but a loop's may use it.
type sessions struct {
	table   *oidc.Table
	sealer  *oidc.Sealer
	secret  []byte // the sealer's
	used    nonces // logins that were finished, and logout tokens
	refresh joins[oidc.Answer]

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

func newSessions(most int) (*sessions, error) {
	secret := make([]byte, oidc.SecretBytes)
	_, _ = rand.Read(secret) // it cannot fail
	sealer, err := oidc.NewSealer(secret)
	return &sessions{table: oidc.NewTable(most), sealer: sealer, secret: secret, used: nonces{used: map[[sha256.Size]byte]int64{}},
		all: map[[sha256.Size]byte]*oidc.Session{}}, err
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
	if now-s.swept >= sweepEvery || len(s.all) >= s.most {
		s.sweep(now)
	}
	if len(s.all) >= s.most {
		s.evict()
	}
	s.all[one.Hash()] = one
	s.table.Put(one)
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

// evict makes room, for more than one so that it is seldom done. The caller holds s.mu.
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
			one.End()
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

// End ends the session of that id, or all of a subject, and says how many.
func (l *Logins) End(who string) int {
	return l.sessions.end(func(one *oidc.Session) bool { return one.Subject == who || shownID(one) == who })
}

// Problem is why the provider's description could not be had last, "" if it could; known says whether one is in force.
func (l *Logins) Problem() (problem string, known bool) {
	l.provider.mu.Lock()
	defer l.provider.mu.Unlock()
	return l.provider.problem, l.provider.current.Load() != nil
}
