package compile

import (
	"context"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

const (
	// lockLonger is for how long a lock outlives the time that a refresh may take: its node has gone.
	lockLonger = 2 * time.Second
	// lockLook is how often a node looks whether another has done it.
	lockLook = 50 * time.Millisecond
)

// renewShared gets other tokens for a session that several nodes know: one of them does, for two that show the same refresh token to a provider
// that rotates them would lose the session. The others wait for what comes of it. A node that ends on the way loses the lock when its time has
// passed. While Redis is away nobody refreshes.
func (q *relying) renewShared(ctx context.Context, one *oidc.Session) *core.Error {
	key, holder := recordKey(one.Hash()), oidc.NewID()
	for {
		locked, err := q.shared.records.Lock(ctx, key, holder, q.timeout+lockLonger)
		if err != nil {
			return q.later(one)
		}
		if locked {
			defer func() { // also after ctx is over
				_ = q.shared.records.Unlock(context.WithoutCancel(ctx), key, holder)
			}()
		}
		now := time.Now()
		if failed := q.catchUp(ctx, one); failed != nil || now.UnixNano() < one.State().Refresh || one.State().Refresh == 0 {
			return failed // somebody else has done it, or it has ended
		}
		if locked {
			return q.renewLocked(ctx, one, now)
		}
		select {
		case <-ctx.Done():
			return oidc.ErrUnavailable
		case <-time.After(lockLook):
		}
	}
}

// renewLocked asks the provider, and tells all nodes what came of it.
func (q *relying) renewLocked(ctx context.Context, one *oidc.Session, now time.Time) *core.Error {
	before := one.State()
	failed := q.renew(ctx, one, now)
	told := context.WithoutCancel(ctx) // what came must not be lost, each step is bounded anyway
	switch after := one.State(); {
	case one.Ended():
		_, _ = q.revoke(told, ending{hash: one.Hash(), at: now.UnixNano()})
	case after != before && (after.RefreshToken != before.RefreshToken || failed == nil):
		q.saved(told, one)
	}
	return failed
}

// catchUp gives a session the state that all nodes know.
func (q *relying) catchUp(ctx context.Context, one *oidc.Session) *core.Error {
	other, err := q.find(ctx, one.Hash())
	switch {
	case err != nil:
		return q.later(one)
	case other == nil:
		one.End()
		return oidc.ErrEnded
	case other != one: // the copy has made room for others meanwhile
		one.SetState(other.State())
		one.Copied(other.Version(), q.shared.Epoch())
	}
	return nil
}

// later puts a refresh off because Redis is away, where sessions go on meanwhile.
func (q *relying) later(one *oidc.Session) *core.Error {
	if q.shared.grace > 0 {
		after := *one.State()
		after.Refresh = time.Now().Add(refreshAgain).UnixNano()
		one.SetState(&after)
	}
	return oidc.ErrStore
}
