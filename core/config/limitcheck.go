package config

import (
	"maps"
	"slices"
)

// AskedClaims are the claims of tokens that policies other than jwt, and keys of balancing, ask for, in the order of their names.
func (c *Config) AskedClaims() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	each := func(p *Policy) {
		for _, key := range p.limitKeys() {
			for _, part := range key {
				if part.Kind == "claim" {
					add(part.Name)
				}
			}
		}
		if p.RateLimit != nil {
			add(p.RateLimit.TierClaim)
		}
		for one := range p.parts {
			if one.Access != nil {
				for _, name := range one.Access.asked() {
					add(name)
				}
			}
		}
	}
	if c.Identity != nil && c.Identity.Token != nil {
		for _, name := range c.Identity.Token.askedOfTokens() {
			add(name)
		}
	}
	for i := range c.Policies {
		each(&c.Policies[i])
	}
	for i := range c.Routes {
		for _, u := range c.Routes[i].Use {
			if u.Inline != nil {
				each(u.Inline)
			}
		}
		keyClaims(c.Routes[i].SplitBy, add)
		if k := c.Routes[i].Canary; k != nil {
			keyClaims(k.Keys, add)
		}
	}
	for i := range c.Upstreams {
		keyClaims(c.Upstreams[i].Balance.Keys, add)
	}
	slices.Sort(names)
	return names
}

// keyClaims adds the claims that keys of balancing are made of.
func keyClaims(keys []BalanceKey, add func(name string)) {
	for i := range keys {
		if keys[i].From == "claim" {
			add(keys[i].Name)
		}
	}
}

// limitKeys are the keys of a policy of limits.
func (p *Policy) limitKeys() (keys [][]KeyPart) {
	switch {
	case p.RateLimit != nil:
		for i := range p.RateLimit.Levels {
			keys = append(keys, p.RateLimit.Levels[i].Key)
		}
	case p.Concurrency != nil:
		keys = append(keys, p.Concurrency.Key)
	}
	return keys
}

// known is what the policies before a limit have found out.
type known struct{ consumer, token bool }

func (k *known) add(p *Policy) {
	k.consumer, k.token = k.consumer || p.Authenticates(), k.token || p.derives()
}

// checkLimits refuses limits whose key no request of a route can have, and warns of tiers that mean nothing.
func (l *loader) checkLimits() {
	shared := false
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		var k known
		l.policies(r, func(u *Use, p *Policy) {
			k.add(p)
			for _, key := range p.limitKeys() {
				l.checkKey(r, u.Pos, key, k)
			}
			shared = shared || p.sharesSessions()
			if p.RateLimit != nil {
				l.checkOwnRates(p.RateLimit, u.Pos, k)
				shared = shared || p.RateLimit.Mode != "local"
				if p.RateLimit.Mode != "local" && l.cfg.Cluster == nil {
					l.problemAt(u.Pos, "add cluster: { redis: { addresses: ... } }", "mode %s has nobody to share with: there is no %q", p.RateLimit.Mode, "cluster")
				}
			}
		})
	}
	if c := l.cfg.Cluster; c != nil && !shared {
		l.warnAt(c.Pos, "add mode: lease to a rate_limit, or store: redis to the sessions of oidc", "no route uses a limit or sessions of the cluster")
	}
	l.checkTiers()
}

// checkKey refuses a key that a route which uses the policy does not have.
func (l *loader) checkKey(r *Route, at Pos, key []KeyPart, k known) {
	names := map[string]int{}
	for i := range r.Matches {
		countParameters(r.Matches[i].Path, names)
	}
	for _, p := range key {
		switch {
		case p.Kind == "path" && names[p.Name] < max(1, len(r.Matches)):
			l.problemAt(at, "write {"+p.Name+"} into the path of every match", "%q cannot be the key here: it is not a parameter of every match of this route", p)
		case (p.Kind == "consumer" || p.Kind == "tenant") && !k.consumer:
			l.problemAt(at, "put keyauth, or another policy that finds a consumer, before it",
				"%q cannot be the key here: no policy before it finds out who a consumer is", p)
		case p.Kind == "claim" && !k.token:
			l.problemAt(at, "put jwt before it", "%q cannot be the key here: no policy before it verifies a token", p)
		case p.Kind == "upstream" && len(r.To) != 1:
			l.problemAt(at, "", "%q cannot be the key here: the route has %d upstreams, and which it will be is not known yet", p, len(r.To))
		}
	}
}

// checkOwnRates refuses rates by consumer or tier where nobody is known.
func (l *loader) checkOwnRates(r *RateLimit, at Pos, k known) {
	byConsumer := false
	for i := range r.Levels {
		byConsumer = byConsumer || len(r.Levels[i].Consumers) > 0
	}
	switch {
	case (byConsumer || r.tiered() && r.TierClaim == "") && !k.consumer:
		l.problemAt(at, "put keyauth, or another policy that finds a consumer, before it",
			"nobody has a rate of his own here: no policy before it finds out who a consumer is")
	case r.tiered() && r.TierClaim != "" && !k.token:
		l.problemAt(at, "put jwt before it", "nobody has a tier here: no policy before it verifies a token")
	}
}

// checkTiers warns of consumers whose tier is in no policy, where some policy goes by tiers.
func (l *loader) checkTiers() {
	named := map[string]bool{}
	each := func(p *Policy) {
		for one := range p.parts {
			if one.Access != nil {
				for _, t := range slices.Concat(one.Access.Allow.Tiers, one.Access.Deny.Tiers) {
					named[t] = true
				}
			}
		}
		if p.RateLimit == nil {
			return
		}
		for i := range p.RateLimit.Levels {
			for _, t := range p.RateLimit.Levels[i].Tiers {
				named[t.Name] = true
			}
		}
	}
	for i := range l.cfg.Policies {
		each(&l.cfg.Policies[i])
	}
	for i := range l.cfg.Routes {
		for _, u := range l.cfg.Routes[i].Use {
			if u.Inline != nil {
				each(u.Inline)
			}
		}
	}
	if len(named) == 0 {
		return
	}
	for i := range l.cfg.Consumers {
		if c := &l.cfg.Consumers[i]; c.Tier != "" && !named[c.Tier] {
			named[c.Tier] = true // told once
			l.warnAt(c.Pos, l.hint(c.Tier, maps.Keys(named)), "no policy names the tier %q", c.Tier)
		}
	}
}
