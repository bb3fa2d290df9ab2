package compile

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// KeptSessions are the sessions of one policy for another process, with the secret of the logins that are under way. They are as secret as what
// they hold, and go over a private socket only.
type KeptSessions struct {
	Secret   []byte        `json:"secret"`
	Sessions []KeptSession `json:"sessions"`
}

// KeptSession is one session. Times are Unix time in nanoseconds.
type KeptSession struct {
	Hash         []byte          `json:"hash"`
	Subject      string          `json:"subject"`
	ProviderID   string          `json:"sid,omitempty"`
	Begun        int64           `json:"begun"`
	Used         int64           `json:"used"`
	Until        int64           `json:"until"`
	Claims       json.RawMessage `json:"claims"`
	IDToken      string          `json:"id_token"`
	RefreshToken string          `json:"refresh_token,omitempty"`
	Nonce        string          `json:"nonce"`
	Refresh      int64           `json:"refresh,omitempty"`
}

// maxKeptSessions bounds what is handed over of sessions, in bytes of what they hold.
const maxKeptSessions = 256 << 20

// maxClockStep is by how much the clock may have been set back since a session was used.
const maxClockStep = 24 * time.Hour

var errKeptSession = errors.New("a session that cannot be")

// Sessions gives those of all policies, by policy, issuer and client, for another process. Those that were used last come first; all says
// whether there was room for the rest. It may be called from any goroutine.
func (c *Compiled) Sessions() (kept map[string]KeptSessions, all bool) {
	kept, room := map[string]KeptSessions{}, maxKeptSessions
	for _, key := range slices.Sorted(maps.Keys(c.sessions)) {
		if c.sessions[key].shared != nil {
			continue // the other process finds them where all do
		}
		kept[key] = c.sessions[key].keep(&room)
	}
	return kept, room > 0
}

func (s *sessions) keep(room *int) KeptSessions {
	s.mu.Lock()
	s.sweep(time.Now().UnixNano())
	every := slices.Collect(maps.Values(s.all))
	s.mu.Unlock()
	slices.SortFunc(every, func(a, b *oidc.Session) int { return int(b.Used() - a.Used()) })
	k := KeptSessions{Secret: s.secret}
	for _, one := range every {
		kept, err := keptSession(one)
		if err != nil {
			continue // it was read from JSON
		}
		if *room -= len(kept.Claims) + len(kept.IDToken) + len(kept.RefreshToken) + 512; *room <= 0 {
			*room = 0
			break
		}
		k.Sessions = append(k.Sessions, kept)
	}
	return k
}

// keptSession is one as it is kept elsewhere.
func keptSession(one *oidc.Session) (KeptSession, error) {
	state, hash := one.State(), one.Hash()
	claims, err := json.Marshal(state.Claims)
	return KeptSession{Hash: hash[:], Subject: one.Subject, ProviderID: one.ProviderID, Begun: one.Begun, Used: one.Used(), Until: one.Until,
		Claims: claims, IDToken: state.IDToken, RefreshToken: state.RefreshToken, Nonce: state.Nonce, Refresh: state.Refresh}, err
}

// RestoreSessions takes over what another process gave, before c is in force. Policies that are not known are left out, and what cannot be is
// in the error.
func (c *Compiled) RestoreSessions(kept map[string]KeptSessions) error {
	var failed []error
	now := time.Now().UnixNano()
	for key, s := range c.sessions {
		k, ok := kept[key]
		if !ok || s.shared != nil {
			continue
		}
		sealer, err := oidc.NewSealer(k.Secret)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		*s.sealer, s.secret = *sealer, k.Secret // no loop has it yet
		s.bound(s.most, s.idle)
		lost := 0
		for i := range k.Sessions {
			one := &k.Sessions[i]
			if one.Used <= now+int64(maxClockStep) {
				one.Used = max(one.Begun, min(one.Used, now))
			}
			session, err := one.restore(now)
			if err == nil {
				s.put(session, now)
			} else if lost++; lost == 1 {
				failed = append(failed, fmt.Errorf("%d: %w", i, err))
			}
		}
		if lost > 1 {
			failed = append(failed, fmt.Errorf("%d sessions are lost", lost))
		}
	}
	return errors.Join(failed...)
}

func (k *KeptSession) restore(now int64) (*oidc.Session, error) {
	claims, ok := core.ReadClaims(k.Claims)
	if !ok || len(k.Hash) != sha256.Size || k.Subject == "" || k.Begun <= 0 || k.Begun > k.Used || k.Until <= k.Begun || k.Used > now+int64(time.Minute) {
		return nil, errKeptSession
	}
	one := oidc.NewSession([sha256.Size]byte(k.Hash), k.Subject, k.ProviderID,
		&oidc.State{Claims: claims, IDToken: k.IDToken, RefreshToken: k.RefreshToken, Nonce: k.Nonce, Refresh: k.Refresh}, k.Begun, k.Until)
	one.SetUsed(k.Used)
	return one, nil
}
