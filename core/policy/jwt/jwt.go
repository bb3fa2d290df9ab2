// Package jwt is the policy that knows consumers by signed tokens (RFC 7519, 7515; RFC 8725 for what must not be believed).
//
// A token is verified beside the loop. What it was good for is kept by the loop until it expires, a minute at most, so that the requests
// that follow cost a lookup.
package jwt

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says which tokens are accepted, where they are, and what becomes of them.
type Spec struct {
	Carrier  core.Carrier
	Hide     bool // the upstream does not get the token
	Optional bool // a request without a token passes

	Issuers         []string      // empty: any
	Audiences       []string      // any of them; empty: any
	Algorithms      []string      // empty: all that the keys are for
	Leeway          time.Duration // by which clocks may differ
	MaximumLifetime time.Duration // 0: any
	CacheFor        time.Duration // at most
	Claims          []Required
	Scopes          []string // all of them
	Headers         []HeaderClaim
	Consumer        string   // claim that names the consumer; "": sub, if there is one
	Tier            string   // claim that names the consumer's tier; "": none
	Tenant          string   // claim that names the consumer's tenant; "": none
	Keep            []string // claims that policies behind this one ask for
}

// Keys are the keys as they are now.
type Keys interface {
	// Current gives them, at once; never nil.
	Current() *KeySet
	// Refresh gives others than have, if there are any to be had within a bounded time. It is not called on a loop.
	Refresh(have *KeySet) *KeySet
}

// Policy is immutable but for the caches, each of which only its loop touches.
type Policy struct {
	spec      Spec
	keys      Keys
	consumers *core.Consumers
	caches    []cache
	scope     string // the challenge for want of scopes
}

// New gives the policy for so many loops.
func New(spec Spec, keys Keys, consumers *core.Consumers, loops int) *Policy {
	return &Policy{spec: spec, keys: keys, consumers: consumers, caches: make([]cache, loops),
		scope: realm + `, error="insufficient_scope", scope="` + strings.Join(spec.Scopes, " ") + `"`}
}

const (
	maxTries     = 8    // signatures that are verified for one token
	maxVerifying = 1024 // tokens of a loop at once

	realm   = `Bearer realm="sluice"`
	invalid = realm + `, error="invalid_token"`
)

// What tokens are refused for. The client is told no more than RFC 6750 (3.1) has a word for, and the reason.
var (
	errMissing   = &core.Error{Status: 401, Reason: "token_missing"}
	errSeveral   = &core.Error{Status: 401, Reason: "token_ambiguous", Detail: "several tokens in one place"}
	errMalformed = &core.Error{Status: 401, Reason: "token_malformed"}
	errAlgorithm = &core.Error{Status: 401, Reason: "token_algorithm"}
	errKey       = &core.Error{Status: 401, Reason: "token_key_unknown"}
	errSignature = &core.Error{Status: 401, Reason: "token_signature"}
	errExpired   = &core.Error{Status: 401, Reason: "token_expired"}
	errEndless   = &core.Error{Status: 401, Reason: "token_without_exp"}
	errEarly     = &core.Error{Status: 401, Reason: "token_not_yet_valid"}
	errLifetime  = &core.Error{Status: 401, Reason: "token_lifetime"}
	errIssuer    = &core.Error{Status: 401, Reason: "token_issuer"}
	errAudience  = &core.Error{Status: 401, Reason: "token_audience"}
	errClaims    = &core.Error{Status: 401, Reason: "token_claims"}
	errScope     = &core.Error{Status: 403, Reason: "token_scope"}
	errConsumer  = &core.Error{Status: 403, Reason: "consumer_unknown"}
	errNoKeys    = &core.Error{Status: 503, Reason: "token_keys_unavailable", Side: core.SideInternal}
	errBusy      = &core.Error{Status: 503, Reason: "token_busy", Side: core.SideInternal}
)

// OnRequest lets a request pass whose token is right. What the upstream is told of claims comes from here alone, in whatever
// spelling a client sends the same fields.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	for i := range p.spec.Headers {
		x.Request.RemoveLike(p.spec.Headers[i].Header)
	}
	text, n := p.spec.Carrier.Find(&x.Request)
	switch {
	case n == 0 && p.spec.Optional:
		return core.Continue
	case n == 0:
		return x.Challenge(errMissing, realm)
	case n > 1:
		return x.Challenge(errSeveral, invalid)
	case len(text) > maxTokenBytes:
		return x.Challenge(errMalformed, invalid)
	}
	keys, d := p.keys.Current(), p.consumers.Directory()
	c := &p.caches[x.Worker.Loop.Index()]
	g := c.find(text, keys, d, x.Worker.Loop.Time())
	if g == nil {
		var err *core.Error
		if g, err = p.await(x, c, string(text), keys, d); err != nil {
			return p.refuse(x, err)
		}
	}
	p.pass(x, g)
	return core.Continue
}

// await verifies a token beside the loop and keeps what it is good for.
func (p *Policy) await(x *core.Exchange, c *cache, text string, keys *KeySet, d *core.Directory) (g *grant, err *core.Error) {
	if c.verifying >= maxVerifying {
		return nil, errBusy
	}
	now := time.Unix(0, x.Worker.Loop.Time())
	c.verifying++
	with := keys
	defer func() { c.verifying-- }()
	x.Worker.Loop.Await(func() { g, with, err = p.verify(text, keys, d, now) })
	if err != nil {
		return nil, err
	}
	if c.keys == with && c.directory == d { // nothing has changed meanwhile
		c.put(g)
	}
	return g, nil
}

// verify judges a token. with is the keys that were looked at last.
func (p *Policy) verify(text string, keys *KeySet, d *core.Directory, now time.Time) (g *grant, with *KeySet, err *core.Error) {
	t, ok := read(text)
	if !ok {
		return nil, keys, errMalformed
	}
	if method(t.alg) == nil || len(p.spec.Algorithms) > 0 && !slices.Contains(p.spec.Algorithms, t.alg) {
		return nil, keys, errAlgorithm
	}
	if !keys.has(t.kid) {
		keys = p.keys.Refresh(keys)
	}
	if keys.Len() == 0 {
		return nil, keys, errNoKeys
	}
	if err := p.signed(&t, keys); err != nil {
		return nil, keys, err
	}
	if g, err = p.judge(&t, d, now); err != nil {
		return nil, keys, err
	}
	g.token = text
	return g, keys, nil
}

// signed tries the keys that the token may be signed with: those of its id, and of its algorithm.
func (p *Policy) signed(t *token, keys *KeySet) *core.Error {
	m, tries, named := method(t.alg), 0, false
	for i := range keys.keys {
		k := &keys.keys[i]
		if t.kid != "" && k.id != "" && k.id != t.kid {
			continue
		}
		named = true
		if !slices.Contains(k.algorithms, t.alg) {
			continue
		}
		if m.Verify(t.signed, t.signature, k.public) == nil {
			return nil
		}
		if tries++; tries == maxTries {
			break
		}
	}
	switch {
	case tries > 0:
		return errSignature
	case named:
		return errAlgorithm
	}
	return errKey
}

func (p *Policy) refuse(x *core.Exchange, err *core.Error) core.Verdict {
	switch err {
	case errNoKeys, errBusy, errConsumer:
		x.Fail(err)
		return core.Respond
	case errScope:
		return x.Challenge(err, p.scope)
	}
	return x.Challenge(err, invalid)
}

func (p *Policy) pass(x *core.Exchange, g *grant) {
	if p.spec.Hide {
		p.spec.Carrier.Hide(&x.Request)
	}
	if g.consumer != nil {
		x.Consumer = g.consumer
	}
	if g.claims != nil {
		x.Claims = g.claims
	}
	for i, v := range g.values {
		if v == "" {
			continue
		}
		line := x.Request.Begin(p.spec.Headers[i].Header)
		line.String(v)
		line.End(core.LookupField([]byte(p.spec.Headers[i].Header)))
	}
}

// Fixed is keys that never change.
type Fixed struct{ Set *KeySet }

// Current gives them.
func (f Fixed) Current() *KeySet { return f.Set }

// Refresh knows no others.
func (f Fixed) Refresh(*KeySet) *KeySet { return f.Set }
