package compile

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

// cacheTokens is how long a verified token is believed without another look: so long a key that was withdrawn may still count.
const cacheTokens = time.Minute

// tokens makes the policy of kind jwt.
func tokens(r *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
	j := p.JWT
	spec := jwt.Spec{Bearer: bearer(c, &j.Bearer), Algorithms: j.Algorithms, Leeway: j.Leeway, MaximumLifetime: j.MaximumLifetime, CacheFor: cacheTokens}
	keys, err := r.tokenKeys(c, j)
	if err != nil {
		return core.Step{}, err
	}
	return core.Step{Writes: told(&j.Bearer), Request: jwt.New(spec, keys, c.consumers.directory, len(r.workers))}, nil
}

// bearer is where tokens are and what their claims mean.
func bearer(c *Compiled, from *config.Bearer) core.Bearer {
	b := core.Bearer{Carrier: carrierOf(from.Carrier), Hide: from.Hide, Optional: from.Optional, ClaimRules: core.ClaimRules{Issuers: from.Issuers,
		Audiences: from.Audiences, Scopes: from.Scopes, Consumer: from.Consumer, Tier: from.Tier, Tenant: from.Tenant, Groups: from.Groups, Keep: c.Config.AskedClaims()}}
	if strings.EqualFold(b.Carrier.Header, "Authorization") {
		b.Carrier.Scheme = "Bearer"
	}
	for _, r := range from.Claims {
		b.Claims = append(b.Claims, core.RequiredClaim(r))
	}
	for _, h := range from.Headers {
		b.Headers = append(b.Headers, core.ClaimHeader(h))
	}
	return b
}

// told are the fields by which upstreams learn of claims.
func told(b *config.Bearer) (names []string) {
	for _, h := range b.Headers {
		names = append(names, h.Header)
	}
	return names
}

// tokenKeys gives the keys that are written in the configuration, and those of its source.
func (r *Registry) tokenKeys(c *Compiled, j *config.JWT) (jwt.Keys, error) {
	var sets []*jwt.KeySet
	if s := j.Secret.Reveal(); s != "" {
		set, err := jwt.Secret([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("cannot use the secret: %w", err)
		}
		sets = append(sets, set)
	}
	for i, s := range j.Keys {
		set, err := jwt.ParsePEM([]byte(s.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("cannot read key %d: %w", i+1, err)
		}
		sets = append(sets, set)
	}
	fixed, err := jwt.NewKeySet(sets...)
	if err != nil {
		return nil, fmt.Errorf("cannot use the keys: %w", err)
	}
	if j.JWKS == "" {
		return jwt.Fixed{Set: fixed}, nil
	}
	s, err := r.keySource(c, j.JWKS)
	if err != nil {
		return nil, err
	}
	if fixed.Len() > 0 {
		return newJoined(fixed, s), nil
	}
	return s, nil
}
