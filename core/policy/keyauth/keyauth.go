// Package keyauth is the policy that knows consumers by their API keys.
package keyauth

import "github.com/sluice-gateway/sluice/core"

// Spec says where keys are and what becomes of them.
type Spec struct {
	Carrier  core.Carrier
	Prefixes []string // of which a key that is looked up begins with one; empty: every key is
	Hide     bool     // the upstream does not get the key
	Optional bool     // a request without a key passes, and has no consumer
}

// Policy is immutable; loops share it.
type Policy struct {
	spec      Spec
	consumers *core.Consumers
}

// New gives the policy for the keys of consumers.
func New(spec Spec, consumers *core.Consumers) *Policy { return &Policy{spec, consumers} }

// maxKeyBytes bounds what is hashed.
const maxKeyBytes = 1024

// challenge names no registered scheme, since there is none for keys.
const challenge = `ApiKey realm="sluice"`

var (
	errMissing = &core.Error{Status: 401, Reason: "key_missing"}
	errSeveral = &core.Error{Status: 401, Reason: "key_ambiguous", Detail: "several keys in one place"}
	errUnknown = &core.Error{Status: 401, Reason: "key_unknown"}
	errPrefix  = &core.Error{Status: 401, Reason: "key_prefix", Told: "key_unknown", Detail: "a key for something else"}
)

// OnRequest finds the consumer of the request's key. Keys are found by their SHA-256, so that the time it takes tells a guesser
// nothing that brings him nearer to one.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	key, n := p.spec.Carrier.Find(&x.Request)
	switch {
	case n == 0 && p.spec.Optional:
		return core.Continue
	case n == 0:
		return x.Challenge(errMissing, challenge)
	case n > 1:
		return x.Challenge(errSeveral, challenge)
	case len(key) > maxKeyBytes:
		return x.Challenge(errUnknown, challenge)
	case !p.begins(key):
		return x.Challenge(errPrefix, challenge)
	}
	c := p.consumers.Directory().ByKey(key)
	if c == nil {
		return x.Challenge(errUnknown, challenge)
	}
	x.Consumer = c
	p.Conceal(x)
	return core.Continue
}

// begins says whether a key is one of those that are looked up.
func (p *Policy) begins(key []byte) bool {
	for _, prefix := range p.spec.Prefixes {
		if len(key) >= len(prefix) && string(key[:len(prefix)]) == prefix {
			return true
		}
	}
	return len(p.spec.Prefixes) == 0
}

// Conceal takes a key out of the request, if it is hidden.
func (p *Policy) Conceal(x *core.Exchange) {
	if p.spec.Hide {
		p.spec.Carrier.Hide(&x.Request)
	}
}
