package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

// tokens makes the policy of kind jwt.
func tokens(r *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
	j := p.JWT
	spec := jwt.Spec{Bearer: r.bearer(c, &j.Bearer), Algorithms: j.Algorithms, Types: j.Types, KeyClaim: j.KeyClaim, Leeway: j.Leeway,
		MaximumLifetime: j.MaximumLifetime, CacheFor: j.Cache}
	for _, s := range j.Sources {
		spec.Issuers = append(spec.Issuers, s.Issuer)
	}
	keys, err := r.tokenKeys(c, j)
	if err != nil {
		return core.Step{}, err
	}
	return core.Step{Writes: told(&j.Bearer), Request: jwt.New(spec, keys, c.consumers.directory, len(r.workers))}, nil
}

// bearer is where tokens are and what their claims mean.
func (r *Registry) bearer(c *Compiled, from *config.Bearer) core.Bearer {
	b := core.Bearer{Carrier: carrierOf(from.Carrier, "Bearer"), Hide: from.Hide, Optional: from.Optional, Preflight: from.Preflight,
		Revoked: &r.revoker.inUse, ClaimRules: core.ClaimRules{Issuers: from.Issuers,
			Audiences: from.Audiences, Scopes: from.Scopes, Consumer: from.Consumer, Tier: from.Tier, Tenant: from.Tenant, Groups: from.Groups, Roles: from.Roles, Keep: c.Config.AskedClaims()}}
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
	sources := j.Sources
	switch {
	case j.JWKS == "discover":
		for _, name := range j.Issuers {
			sources = append(sources, config.IssuerKeys{Issuer: name, JWKS: j.JWKS})
		}
	case j.JWKS != "":
		sources = append(sources, config.IssuerKeys{JWKS: j.JWKS})
	}
	var parts []part
	for _, from := range sources {
		place := from.JWKS
		if place == "discover" {
			place = discoverPrefix + from.Issuer
		}
		s, err := r.keySource(c, place)
		if err != nil {
			return nil, err
		}
		c.keepAtMost(place, j.Stale)
		parts = append(parts, part{from.Issuer, s})
	}
	switch {
	case len(parts) == 0:
		return jwt.Fixed{Set: fixed}, nil
	case len(parts) == 1 && parts[0].issuer == "" && fixed.Len() == 0:
		return parts[0].source, nil
	}
	return newJoined(fixed, parts), nil
}
