package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// boundSessions are sessions with the bounds that a configuration gives them.
type boundSessions struct {
	*sessions
	most int
	idle time.Duration
}

// sessionsOf gives the sessions of a policy: those in force if they are kept in the same way, or new ones.
func (r *Registry) sessionsOf(c *Compiled, o *config.OIDC, name string) (*sessions, error) {
	key := name + "\x00" + o.URL + "\x00" + o.Client.ID
	var with *shared
	if o.Sessions.Store == "redis" {
		sum := sha256.Sum256([]byte(key))
		space := hex.EncodeToString(sum[:16])
		keys, err := newSessionKeys(space, o.Sessions.Keys)
		if err != nil {
			return nil, fmt.Errorf("cannot derive the keys of sessions: %w", err)
		}
		client := c.sharing.client
		with = &shared{Shared: oidc.NewShared(keys.marker, client.Away), records: client.NewRecords(space, o.Sessions.Most), keys: keys, grace: o.Sessions.Grace,
			wait: client.Timeout(), log: r.log.With("policy", name), space: space}
		key += fmt.Sprintf("\x00redis %d %s %d %s", c.sharing.serial, keys.print, o.Sessions.Most, o.Sessions.Grace)
	}
	s := r.sessions[key]
	if s == nil {
		var err error
		if s, err = newSessions(o.Sessions.Most, with); err != nil {
			return nil, err
		}
	}
	c.sessions[key] = boundSessions{s, o.Sessions.Most, o.Idle}
	return s, nil
}

// putSessions puts the bounds of c in force. Sessions of policies that it has not are forgotten, but for what Redis has of them.
func (r *Registry) putSessions(c *Compiled) {
	before := r.sessions
	r.sessions, r.loginCounts = map[string]*sessions{}, c.loginCounts
	for key, s := range c.sessions {
		s.bound(s.most, s.idle)
		r.sessions[key] = s.sessions
		if before[key] == nil {
			s.inherit(before)
			s.start()
		}
	}
	for key, s := range before {
		if r.sessions[key] == nil {
			r.closing.Go(s.stop)
		}
	}
}

// inherit takes over what sessions that were shared in another way, or by another Redis, have not told yet of who has ended: whoever has logged
// out must not be let in again because of a reload.
func (s *sessions) inherit(before map[string]*sessions) {
	if s.shared == nil {
		return
	}
	for _, old := range before {
		if old.shared != nil && old.shared.space == s.shared.space {
			old.mu.Lock()
			s.shared.ends = append(s.shared.ends, old.shared.ends...)
			old.mu.Unlock()
		}
	}
}
