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
	core.Bearer
	Algorithms      []string      // empty: all that the keys are for
	Types           []string      // of which typ must be one, in lower case and without "application/"; empty: any, or none
	KeyClaim        string        // claim that names the key where the header has no kid; "": none
	Leeway          time.Duration // by which clocks may differ
	MaximumLifetime time.Duration // 0: any
	CacheFor        time.Duration // at most
}

// Keys are the keys as they are now.
type Keys interface {
	// Current gives them, at once; never nil.
	Current() *KeySet
	// Refresh gives others than have, if there are any to be had of an issuer within a bounded time. It is not called on a loop.
	Refresh(have *KeySet, issuer string) *KeySet
}

// Policy is immutable but for the caches, each of which only its loop touches.
type Policy struct {
	spec      Spec
	keys      Keys
	consumers *core.Consumers
	caches    []cache
	tokens    reader
}

// New gives the policy for so many loops.
func New(spec Spec, keys Keys, consumers *core.Consumers, loops int) *Policy {
	return &Policy{spec: spec, keys: keys, consumers: consumers, caches: make([]cache, loops)}
}

const (
	maxTries     = 8    // signatures that are verified for one token
	maxVerifying = 1024 // tokens of a loop at once
)

// What tokens are refused for, besides what all are.
var (
	errAlgorithm = &core.Error{Status: 401, Reason: "token_algorithm"}
	errType      = &core.Error{Status: 401, Reason: "token_type"}
	errKey       = &core.Error{Status: 401, Reason: "token_key_unknown"}
	errSignature = &core.Error{Status: 401, Reason: "token_signature"}
	errEndless   = &core.Error{Status: 401, Reason: "token_without_exp"}
	errLifetime  = &core.Error{Status: 401, Reason: "token_lifetime"}
	errNoKeys    = &core.Error{Status: 503, Reason: "token_keys_unavailable", Side: core.SideInternal}
)

// OnRequest lets a request pass whose token is right.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	text, verdict := p.spec.Find(x)
	if text == nil {
		return verdict
	}
	keys, d := p.keys.Current(), p.consumers.Directory()
	c := &p.caches[x.Worker.Loop.Index()]
	g := c.find(text, keys, d, x.Worker.Loop.Time())
	if g == nil {
		var err *core.Error
		if g, err = p.await(x, c, string(text), keys, d); err != nil && g != nil {
			return p.spec.RefuseGenuine(x, err, g.Consumer)
		} else if err != nil {
			return p.spec.Refuse(x, err)
		}
	}
	if p.spec.Withdrawn(g.Grant, x.Worker.Loop.Time()) {
		return p.spec.RefuseGenuine(x, core.ErrTokenRevoked, g.Consumer)
	}
	p.spec.Pass(x, g.Grant)
	return core.Continue
}

// Conceal takes a token out of a request that another policy has let pass, if it is hidden.
func (p *Policy) Conceal(x *core.Exchange) { p.spec.Conceal(x) }

// await verifies a token beside the loop and keeps what it is good for. With an error g says whom the token names, as with verify.
func (p *Policy) await(x *core.Exchange, c *cache, text string, keys *KeySet, d *core.Directory) (g *grant, err *core.Error) {
	if c.verifying >= maxVerifying {
		return nil, core.ErrTokenBusy
	}
	now := time.Unix(0, x.Worker.Loop.Time())
	c.verifying++
	with := keys
	defer func() { c.verifying-- }()
	x.Worker.Loop.Await(func() { g, with, err = p.verify(text, keys, d, now) })
	if err != nil {
		return g, err
	}
	if c.keys == with && c.directory == d && p.spec.CacheFor > 0 { // nothing has changed meanwhile
		c.put(g)
	}
	return g, nil
}

// verify judges a token. with is the keys that were looked at last. With an error g is nil, or if the signature is right, says whom the token
// names and no more.
func (p *Policy) verify(text string, keys *KeySet, d *core.Directory, now time.Time) (g *grant, with *KeySet, err *core.Error) {
	t, ok := p.tokens.read(text)
	if !ok {
		return nil, keys, core.ErrTokenMalformed
	}
	if method(t.alg) == nil || len(p.spec.Algorithms) > 0 && !slices.Contains(p.spec.Algorithms, t.alg) {
		return nil, keys, errAlgorithm
	}
	if len(p.spec.Types) > 0 && !slices.Contains(p.spec.Types, strings.TrimPrefix(strings.ToLower(t.typ), "application/")) {
		return nil, keys, errType
	}
	if t.kid == "" && p.spec.KeyClaim != "" {
		if t.kid, ok = t.claims[p.spec.KeyClaim].(string); !ok || t.kid == "" || len(t.kid) > maxKeyID {
			return nil, keys, errKey
		}
	}
	issuer, _ := t.claims["iss"].(string)
	if !keys.has(issuer, t.kid) {
		keys = p.keys.Refresh(keys, issuer)
	}
	if keys.Len() == 0 {
		return nil, keys, errNoKeys
	}
	if err := p.signed(&t, issuer, keys); err != nil {
		return nil, keys, err
	}
	if g, err = p.judge(&t, d, now); err != nil {
		return &grant{Grant: &core.Grant{Consumer: p.spec.Named(t.claims, d)}}, keys, err
	}
	g.token = text
	return g, keys, nil
}

// signed tries the keys that the token may be signed with: those of its issuer, id and algorithm.
func (p *Policy) signed(t *token, issuer string, keys *KeySet) *core.Error {
	m, tries, named := method(t.alg), 0, false
	for i := range keys.keys {
		k := &keys.keys[i]
		if k.issuer != "" && k.issuer != issuer || t.kid != "" && k.id != "" && k.id != t.kid {
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

// Fixed is keys that never change.
type Fixed struct{ Set *KeySet }

// Current gives them.
func (f Fixed) Current() *KeySet { return f.Set }

// Refresh knows no others.
func (f Fixed) Refresh(*KeySet, string) *KeySet { return f.Set }
