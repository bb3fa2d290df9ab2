package compile

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/compile/signing"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/route"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// identityTokens are the tokens by which upstreams learn of consumers. They outlive configurations that say the same of them, and their keys
// outlive all that want tokens.
type identityTokens struct {
	spec   config.IdentityToken
	keys   *identityKeys
	tokens *upstream.IdentityTokens
}

// identityKeys are keys that rotate on a goroutine of their own.
type identityKeys struct {
	*signing.Keys
	background
}

func (k *identityKeys) start(log *slog.Logger) {
	k.begin(func(ctx context.Context) {
		k.Run(ctx, func(err error) {
			log.Error("keys of identity tokens do not rotate: those known stay in force", "error", err)
		})
	})
}

func (k *identityKeys) stop() {
	if k != nil {
		k.background.stop()
	}
}

func signingSpec(t *config.IdentityToken) signing.Spec {
	s := signing.Spec{Algorithm: signing.Algorithm(t.Algorithm), Every: t.Rotate, Life: t.Lifetime}
	if secret := t.Secret.Reveal(); secret != "" {
		s.Secret = []byte(secret)
	}
	return s
}

// identity makes what c says of how upstreams learn of consumers.
func (r *Registry) identity(c *Compiled) error {
	i := c.Config.Identity
	if i == nil {
		return nil
	}
	f := &core.IdentityFields{Consumer: i.Consumer, User: i.User, Tenant: i.Tenant, Groups: i.Groups, Roles: i.Roles, Tier: i.Tier, KeyID: i.KeyID}
	c.Snapshot.Identity = f
	if i.Token == nil {
		return nil
	}
	f.Token = i.Token.Header
	c.identityTokens = &identityTokens{spec: *i.Token}
	c.identityTokens.spec.Pos = config.Pos{}
	if before := r.identityTokens; before != nil {
		if reflect.DeepEqual(before.spec, c.identityTokens.spec) {
			c.identityTokens = before
			return nil
		}
		c.identityTokens.keys = before.keys
	} else {
		keys, err := signing.New(signingSpec(i.Token), time.Now())
		if err != nil {
			return fmt.Errorf("%s: %w", i.Token.Pos, err)
		}
		c.identityTokens.keys = &identityKeys{Keys: keys}
	}
	spec := upstream.IdentityTokenSpec{Header: i.Token.Header, Issuer: i.Token.Issuer, Claims: i.Token.Claims, Refuse: i.Token.Anonymous == "refuse"}
	signer := &identitySigner{keys: c.identityTokens.keys.Keys, life: i.Token.Lifetime, id: i.Token.ID}
	c.identityTokens.tokens = upstream.NewIdentityTokens(spec, signer, len(r.workers))
	return nil
}

// identityOf is what tells an upstream of consumers; nil: nothing does.
func (c *Compiled) identityOf(upstream string) *upstream.IdentityToken {
	if t := c.identityTokens; t != nil {
		return t.tokens.For(t.spec.AudienceOf(upstream))
	}
	return nil
}

// putIdentity puts the keys of c in force, and forgets those that nothing is signed with any more.
func (r *Registry) putIdentity(c *Compiled) {
	before, now := r.identityTokens, c.identityTokens
	r.identityTokens = now
	switch {
	case before != nil && now == nil:
		r.closing.Go(before.keys.stop)
	case now == nil || before == now:
	case before == nil:
		now.keys.start(r.log)
	default:
		if err := now.keys.Configure(signingSpec(&now.spec), time.Now()); err != nil {
			r.log.Error("keys of identity tokens stay as they were", "error", err)
		}
	}
}

// IdentityKeys are the keys that tokens for upstreams are signed with; nil: none is signed.
func (c *Compiled) IdentityKeys() *signing.Keys {
	if c.identityTokens == nil {
		return nil
	}
	return c.identityTokens.keys.Keys
}

// IdentityTokenCounts are what a loop has counted; called there. false: no tokens are signed.
func (c *Compiled) IdentityTokenCounts(loop int) (upstream.IdentityTokenCounts, bool) {
	if c.identityTokens == nil {
		return upstream.IdentityTokenCounts{}, false
	}
	return c.identityTokens.tokens.Counts(loop), true
}

// KeysContentType is of a set of keys (RFC 7517, 8.5.2).
const KeysContentType = "application/jwk-set+json"

// publish makes the action that gives the keys to whoever verifies tokens.
func (c *Compiled) publish() (core.Action, error) {
	keys := c.IdentityKeys()
	if keys == nil {
		return nil, fmt.Errorf("there are no keys to publish")
	}
	return route.NewPublish(KeysContentType, keys.Current), nil
}

// identitySigner implements upstream.IdentitySigner. Immutable.
type identitySigner struct {
	keys *signing.Keys
	life time.Duration
	id   bool // tokens have a jti
}

// Begin signs beside the loop. A token is sent until a quarter of its life is left: for clocks that differ, and for the time that a request
// waits for its connection.
func (s *identitySigner) Begin(payload string) core.Call[upstream.SignedIdentity] {
	return core.Call[upstream.SignedIdentity]{Cancel: func() {}, Do: func() upstream.SignedIdentity {
		now := time.Now().Truncate(time.Second)
		b := append(make([]byte, 0, len(payload)+96), payload...)
		b = strconv.AppendInt(append(b, `,"iat":`...), now.Unix(), 10)
		b = strconv.AppendInt(append(b, `,"exp":`...), now.Add(s.life).Unix(), 10)
		if s.id {
			b = append(append(append(b, `,"jti":"`...), rand.Text()...), '"')
		}
		token, err := s.keys.Sign(append(b, '}'))
		if err != nil {
			return upstream.SignedIdentity{} // counted there
		}
		return upstream.SignedIdentity{Token: token, From: now.Add(-time.Second).UnixNano(), Until: now.Add(s.life - s.life/4).UnixNano()}
	}}
}
