package compile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// shared is how sessions are shared with other nodes: Redis has them, sealed, and what is kept here are copies, with a bound of their own.
// What becomes of a session anywhere is heard from the journal of Redis, so that a copy that is good needs no question; where something may
// have been missed each copy is looked up again. What could not be told to Redis, ends and refreshed tokens, is kept here and told when it is
// there again, before its word counts.
type shared struct {
	*oidc.Shared
	records *redis.Records
	keys    *sessionKeys
	grace   time.Duration
	wait    time.Duration // for Redis, at most
	space   string        // of whose sessions: of the policy, its issuer and client
	log     *slog.Logger
	cancel  context.CancelFunc
	done    sync.WaitGroup

	// With the lock of the sessions.
	news    uint64                              // that were heard
	recent  [recentNews][sha256.Size]byte       // of which sessions the last were, by their number
	ends    []ending                            // that Redis is to be told
	unsaved map[[sha256.Size]byte]*oidc.Session // whose state Redis is to be told
}

// ending is what ends sessions: one, or those of groups that began until then.
type ending struct {
	hash   [sha256.Size]byte
	groups []string // nil: the one
	match  func(*oidc.Session) bool
	at     int64
}

const (
	recentNews = 1024
	maxEnds    = 4096
	// touchEvery is how often others are told what was used: so much earlier than another node's word a session may be idle too long.
	touchEvery = 10 * time.Second
	// findTries is how often a session is asked for that changes meanwhile.
	findTries = 3
)

var errUnsettled = errors.New("the session changes too fast")

func recordKey(hash [sha256.Size]byte) string { return hex.EncodeToString(hash[:]) }

func hashOf(key string) (hash [sha256.Size]byte, ok bool) {
	if len(key) != 2*sha256.Size {
		return hash, false
	}
	n, err := hex.Decode(hash[:], []byte(key))
	return hash, err == nil && n == sha256.Size
}

// start begins to hear.
func (s *sessions) start() {
	if s.shared == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.shared.cancel = cancel
	f := &redis.Follower{Begin: s.begin, Ended: s.heardEnd, Changed: s.heardChange, Heard: s.shared.Heard, Lost: s.shared.Lost}
	s.shared.done.Go(func() { s.shared.records.Follow(ctx, f) })
	s.shared.done.Go(func() { s.tell(ctx) })
}

// stop ends that. What others were not told of yet they are told, if that can be.
func (s *sessions) stop() {
	if s.shared == nil || s.shared.cancel == nil {
		return
	}
	s.shared.cancel()
	s.shared.done.Wait()
	s.shared.Lost()
	_ = s.deliver(context.Background())
	_ = s.touch(context.Background())
}

// begin makes all copies doubtful, and tells Redis first what it does not know.
func (s *sessions) begin(ctx context.Context) error {
	s.shared.Doubt()
	return s.deliver(ctx)
}

func (s *sessions) heardEnd(key string)    { s.hear(key, s.forget) }
func (s *sessions) heardChange(key string) { s.hear(key, (*oidc.Session).Stale) }

func (s *sessions) hear(key string, do func(*oidc.Session)) {
	hash, ok := hashOf(key)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared.recent[s.shared.news%recentNews] = hash
	s.shared.news++
	if one := s.all[hash]; one != nil {
		do(one)
	}
}

// forget ends a copy. The caller holds s.mu.
func (s *sessions) forget(one *oidc.Session) {
	one.End()
	s.remove(one)
	delete(s.shared.unsaved, one.Hash())
}

// happened says whether a session has changed or ended since so many news. The caller holds s.mu.
func (h *shared) happened(hash [sha256.Size]byte, since uint64) bool {
	if h.news-since > recentNews {
		return true // nobody knows
	}
	for n := since; n < h.news; n++ {
		if h.recent[n%recentNews] == hash {
			return true
		}
	}
	return false
}

// find gives a session as Redis has it, and keeps a copy; nil: there is none.
func (s *sessions) find(ctx context.Context, hash [sha256.Size]byte) (*oidc.Session, error) {
	h, key := s.shared, recordKey(hash)
	for range findTries {
		s.mu.Lock()
		since, epoch := h.news, h.Epoch()
		s.mu.Unlock()
		r, err := h.records.Get(ctx, key)
		if err != nil && err != redis.ErrNone {
			return nil, err
		}
		var other *oidc.Session
		now := time.Now().UnixNano()
		if err == nil {
			if other, err = s.opened(hash, &r, now); err != nil {
				h.log.Warn("a shared session is not used", "error", err)
			}
		}
		s.mu.Lock()
		if h.happened(hash, since) {
			s.mu.Unlock()
			continue
		}
		one := s.settle(hash, other, &r, now)
		if one != nil {
			version := r.Version
			if h.unsaved[hash] != nil {
				version = one.Version() // Redis does not know it yet
			}
			one.Copied(version, epoch)
		}
		s.mu.Unlock()
		return one, nil
	}
	return nil, errUnsettled
}

// settle makes the copy of a session what Redis says; nil: there is none. The caller holds s.mu.
func (s *sessions) settle(hash [sha256.Size]byte, other *oidc.Session, r *redis.Record, now int64) *oidc.Session {
	one := s.all[hash]
	if other == nil || s.shared.isEnding(other) {
		if one != nil {
			s.forget(one)
		}
		return nil
	}
	if one == nil {
		s.room(now)
		s.all[hash] = other
		s.table.Put(other)
		return other
	}
	if r.Version != one.Version() && s.shared.unsaved[hash] == nil {
		one.SetState(other.State())
	}
	if r.Used > one.Used() {
		one.SetUsed(r.Used)
		one.Told(r.Used)
	}
	return one
}

// isEnding says whether one has ended, though Redis was not told yet. The caller holds the lock of the sessions.
func (h *shared) isEnding(one *oidc.Session) bool {
	for i := range h.ends {
		if e := &h.ends[i]; e.groups == nil && e.hash == one.Hash() || e.groups != nil && one.Begun <= e.at && e.match(one) {
			return true
		}
	}
	return false
}

// opened makes a session of what Redis has.
func (s *sessions) opened(hash [sha256.Size]byte, r *redis.Record, now int64) (*oidc.Session, error) {
	text, err := s.shared.keys.open(r.Value, recordKey(hash))
	if err != nil {
		return nil, err
	}
	var k KeptSession
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	k.Hash, k.Used = hash[:], max(k.Begun, min(r.Used, now)) // which others may write
	one, err := k.restore(now)
	if err == nil {
		one.Told(k.Used)
	}
	return one, err
}

// sealed is what Redis keeps of a session.
func (s *sessions) sealed(one *oidc.Session) ([]byte, error) {
	k, err := keptSession(one)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	return s.shared.keys.seal(text, recordKey(one.Hash())), nil
}

// share gives a session that has begun to all nodes, and keeps a copy.
func (s *sessions) share(ctx context.Context, one *oidc.Session, now int64) error {
	h := s.shared
	value, err := s.sealed(one)
	if err != nil {
		return err
	}
	groups := []string{h.keys.groups(subjectGroup(one.Subject))[0]}
	if id := one.ProviderID; id != "" {
		groups = append(groups, h.keys.groups(providerGroup(id))[0], h.keys.groups(bothGroup(one.Subject, id))[0])
	}
	s.mu.Lock()
	since, epoch, idle := h.news, h.Epoch(), time.Duration(s.idle)
	s.mu.Unlock()
	if err := h.records.Put(ctx, &redis.NewRecord{Key: recordKey(one.Hash()), Value: value, Groups: groups, Begun: one.Begun, Idle: idle, Until: one.Until}); err != nil {
		return err
	}
	one.Told(now)
	one.Copied(1, epoch)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.happened(one.Hash(), since) && !h.isEnding(one) { // else it has been revoked meanwhile
		s.room(now)
		s.all[one.Hash()] = one
		s.table.Put(one)
	}
	return nil
}

// saved tells all nodes the state of a session, which this one has refreshed. What cannot be told now is told later.
func (s *sessions) saved(ctx context.Context, one *oidc.Session) {
	h, hash := s.shared, one.Hash()
	s.mu.Lock()
	h.unsaved[hash] = one
	s.mu.Unlock()
	_ = s.save(ctx, one)
}

// save tells it. If another state has come to be there, that one counts.
func (s *sessions) save(ctx context.Context, one *oidc.Session) error {
	h, version := s.shared, one.Version()
	epoch := h.Epoch()
	value, err := s.sealed(one)
	if err != nil {
		return err
	}
	done, err := h.records.Swap(ctx, recordKey(one.Hash()), version, value)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(h.unsaved, one.Hash())
	s.mu.Unlock()
	if done {
		one.Copied(version+1, epoch)
		return nil
	}
	one.Stale()
	_, err = s.find(ctx, one.Hash())
	return err
}

// revoke ends sessions everywhere, here at once whatever becomes of the rest, and says how many there were. An error says that the others will
// be told later, or not at all.
func (s *sessions) revoke(ctx context.Context, e ending) (n int, err error) {
	h := s.shared
	s.mu.Lock()
	if len(h.ends) >= maxEnds {
		h.log.Warn("too many sessions have ended while Redis is away: other nodes will not be told of the first")
		h.ends = h.ends[1:]
	}
	h.ends = append(h.ends, e)
	here := 0
	if one := s.all[e.hash]; e.groups == nil && one != nil {
		s.forget(one)
		here++
	}
	for _, one := range s.all {
		if e.groups != nil && e.match(one) {
			s.forget(one)
			here++
		}
	}
	s.mu.Unlock()
	n, err = s.told(ctx, &e)
	if err != nil {
		return here, err
	}
	s.settleEnd(&e)
	return n, nil
}

// told has Redis end what is to end.
func (s *sessions) told(ctx context.Context, e *ending) (n int, err error) {
	h := s.shared
	if e.groups == nil {
		was, err := h.records.End(ctx, recordKey(e.hash))
		if was {
			n = 1
		}
		return n, err
	}
	for _, g := range e.groups {
		more, err := h.records.EndGroup(ctx, g, e.at)
		if err != nil {
			return n, err
		}
		n += more
	}
	return n, nil
}

// settleEnd forgets an ending of which Redis knows.
func (s *sessions) settleEnd(e *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.shared.ends {
		if x := &s.shared.ends[i]; x.hash == e.hash && x.at == e.at && (x.groups == nil) == (e.groups == nil) {
			s.shared.ends = append(s.shared.ends[:i:i], s.shared.ends[i+1:]...)
			return
		}
	}
}

// deliver tells Redis what it does not know.
func (s *sessions) deliver(ctx context.Context) error {
	s.mu.Lock()
	ends := append([]ending(nil), s.shared.ends...)
	var unsaved []*oidc.Session
	for _, one := range s.shared.unsaved {
		unsaved = append(unsaved, one)
	}
	s.mu.Unlock()
	for i := range ends {
		if _, err := s.told(ctx, &ends[i]); err != nil {
			return err
		}
		s.settleEnd(&ends[i])
	}
	for _, one := range unsaved {
		if err := s.save(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// tell tells others from time to time what was used here, until ctx ends.
func (s *sessions) tell(ctx context.Context) {
	each(ctx, touchEvery, func() {
		if err := s.deliver(ctx); err == nil {
			_ = s.touch(ctx) // who cannot be told is told the next time
		}
	})
}

func (s *sessions) touch(ctx context.Context) error {
	var of []*oidc.Session
	var all []redis.Touch
	s.mu.Lock()
	for hash, one := range s.all {
		if used, ok := one.Untold(); ok {
			of, all = append(of, one), append(all, redis.Touch{Key: recordKey(hash), Used: used, Idle: time.Duration(s.idle)})
		}
	}
	s.mu.Unlock()
	if err := s.shared.records.Touch(ctx, all); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range of {
		one.Told(all[i].Used)
	}
	return nil
}

// BeginFind looks for a session, once for all loops.
func (q *relying) BeginFind(hash [sha256.Size]byte) core.Call[oidc.Answer] {
	ctx, cancel := context.WithTimeout(context.Background(), findTries*q.shared.wait)
	return core.Call[oidc.Answer]{Cancel: cancel, Do: func() oidc.Answer {
		answer, ok := q.finds.do(ctx, string(hash[:]), func() oidc.Answer {
			one, err := q.find(ctx, hash)
			if err != nil {
				return oidc.Answer{Err: oidc.ErrStore}
			}
			return oidc.Answer{Session: one}
		})
		if !ok {
			answer.Err = oidc.ErrStore
		}
		return answer
	}}
}

// BeginEnd ends a session on all nodes.
func (q *relying) BeginEnd(one *oidc.Session) core.Call[oidc.Answer] {
	return q.finish(func(ctx context.Context, now time.Time) oidc.Answer {
		if _, err := q.revoke(ctx, ending{hash: one.Hash(), at: now.UnixNano()}); err != nil {
			return oidc.Answer{Err: oidc.ErrStore}
		}
		return oidc.Answer{}
	})
}
