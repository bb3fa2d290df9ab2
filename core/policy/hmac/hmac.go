// Package hmac is the policy that knows consumers by HTTP Message Signatures (RFC 9421), by shared secrets and by public keys.
//
// A signature is verified beside the loop. What is signed is what was received: the target as the client wrote it.
package hmac

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says what must be signed, and how long a signature may be used.
type Spec struct {
	Require  []string      // components that a signature must cover
	MaxAge   time.Duration // of a signature, by its parameter created
	Skew     time.Duration // by which clocks may differ
	Nonce    bool          // a signature must have one; one that there is counts once in any case
	Tag      string        // that a signature must have; "": any
	Body     int           // bytes of a body that is held to compare its digest, which must be signed; 0: bodies are not looked at
	Hide     bool          // the upstream does not get the signature
	Optional bool          // a request without a signature passes
}

// Nonces remembers those that were used. It is called beside the loop.
type Nonces interface {
	// Use says whether a nonce is used for the first time. full: it cannot be remembered until then, on the wall clock.
	Use(key, nonce string, until, now int64) (first, full bool)
}

// Policy is immutable but for the lanes, each of which only its loop touches.
type Policy struct {
	spec      Spec
	consumers *core.Consumers
	nonces    Nonces
	lanes     []lane
}

type lane struct{ verifying int }

// New gives the policy for so many loops.
func New(spec Spec, consumers *core.Consumers, nonces Nonces, loops int) *Policy {
	return &Policy{spec: spec, consumers: consumers, nonces: nonces, lanes: make([]lane, loops)}
}

const (
	maxVerifying  = 1024 // of a loop at once
	maxSignatures = 4    // of a request
	maxComponents = 64   // of a signature
	maxInput      = 8 << 10
	challenge     = `Signature realm="sluice"`
)

var (
	errMissing    = &core.Error{Status: 401, Reason: "signature_missing"}
	errMalformed  = &core.Error{Status: 401, Reason: "signature_malformed"}
	errKey        = &core.Error{Status: 401, Reason: "signature_key_unknown"}
	errAlgorithm  = &core.Error{Status: 401, Reason: "signature_algorithm"}
	errComponents = &core.Error{Status: 401, Reason: "signature_components"}
	errExpired    = &core.Error{Status: 401, Reason: "signature_expired"}
	errEarly      = &core.Error{Status: 401, Reason: "signature_not_yet_valid"}
	errTag        = &core.Error{Status: 401, Reason: "signature_tag"}
	errNonce      = &core.Error{Status: 401, Reason: "signature_nonce"}
	errReplay     = &core.Error{Status: 401, Reason: "signature_replayed"}
	errWrong      = &core.Error{Status: 401, Reason: "signature_wrong"}
	errDigest     = &core.Error{Status: 401, Reason: "content_digest"}
	errBusy       = &core.Error{Status: 503, Reason: "signature_busy", Side: core.SideInternal}
)

// OnRequest finds the consumer who has signed the request, as far as is required. Of several signatures one is enough.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	inputs, signatures := lines(&x.Request, fieldNames[0]), lines(&x.Request, fieldNames[1])
	if len(inputs) == 0 && len(signatures) == 0 {
		if p.spec.Optional {
			return core.Continue
		}
		return x.Challenge(errMissing, challenge)
	}
	a := &p.lanes[x.Worker.Loop.Index()]
	if a.verifying >= maxVerifying {
		return p.refuse(x, errBusy)
	}
	a.verifying++
	defer func() { a.verifying-- }()
	d, now := p.consumers.Directory(), time.Unix(0, x.Worker.Loop.Wall())
	var who *core.Consumer
	var err *core.Error
	x.Worker.Loop.Await(func() { who, err = p.verify(x, inputs, signatures, d, now) }) // x is nobody's meanwhile
	if err == nil && p.spec.Body > 0 && (x.Request.Body != nil || len(lines(&x.Request, "Content-Digest")) > 0) {
		err = p.digest(x)
	}
	if err != nil {
		return p.refuse(x, err)
	}
	x.Consumer = who
	p.Conceal(x)
	return core.Continue
}

func (p *Policy) refuse(x *core.Exchange, err *core.Error) core.Verdict {
	if err.Status == 401 {
		return x.Challenge(err, challenge)
	}
	x.Fail(err)
	return core.Respond
}

// lines are the values of a field, as they stand there.
func lines(m *core.Message, name string) (all []string) {
	m.All(func(_ core.FieldID, have, value []byte) bool {
		if core.EqualFold(have, name) {
			all = append(all, string(value))
		}
		return true
	})
	return all
}

// digest compares the whole body with its digest, which was signed.
func (p *Policy) digest(x *core.Exchange) *core.Error {
	body, err := x.HoldBody(p.spec.Body)
	if err != nil {
		return err
	}
	fields, right := lines(&x.Request, "Content-Digest"), false
	x.Worker.Loop.Await(func() { right = matches(fields, body) })
	if !right {
		return errDigest
	}
	return nil
}
