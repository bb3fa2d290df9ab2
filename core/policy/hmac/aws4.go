package hmac

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// AWS4Spec says what must be signed, and how long a signature may be used.
type AWS4Spec struct {
	Region, Service string        // that signatures must be made for
	Require         []string      // fields in lower case that must be signed, besides host, x-amz-date and whatever else begins with x-amz-
	MaxAge          time.Duration // of a signature in a header, by X-Amz-Date
	Skew            time.Duration // by which clocks may differ
	Presigned       time.Duration // that a signature in the query may be good for at most, by its X-Amz-Expires; 0: none is looked for there
	Body            int           // bytes of a body that is held to compare its hash, which is signed; 0: bodies are not looked at
	Hide            bool          // the upstream does not get the signature
	Optional        bool          // a request without a signature passes
}

// AWS4 knows consumers by AWS Signature Version 4 (AWS4-HMAC-SHA256), in the field Authorization or in the query, with a shared secret.
//
// Nothing in it counts once: within its time a request that was overheard can be sent again. Signed alike are queries that differ in the order
// of arguments of one name, and, but for s3, paths that differ in empty segments. It is immutable but for the lanes, each of which only its
// loop touches.
type AWS4 struct {
	spec      AWS4Spec
	consumers *core.Consumers
	lanes     []aws4Lane
}

type aws4Lane struct {
	verifying int
	of        *core.Directory // whose signers days has
	days      map[day][sha256.Size]byte
}

// day is what a key is derived for. Region and service are the policy's own.
type day struct {
	signer *core.Signer
	date   string
}

// maxDays bounds the derived keys of a loop: those that sign, of two days at midnight.
const maxDays = 1024

// NewAWS4 gives the policy for so many loops.
func NewAWS4(spec AWS4Spec, consumers *core.Consumers, loops int) *AWS4 {
	return &AWS4{spec: spec, consumers: consumers, lanes: make([]aws4Lane, loops)}
}

var (
	errScope    = &core.Error{Status: 401, Reason: "signature_scope"}    // for another region, service or day
	errLifetime = &core.Error{Status: 401, Reason: "signature_lifetime"} // good for longer than it may be

	aws4Carrier = core.Carrier{Headers: []string{"Authorization"}, Scheme: aws4Algorithm}
)

// OnRequest finds the consumer who has signed the request. A body whose hash the client does not tell is taken before the signature can be
// verified, though not before its key and its date are right; any other after.
func (p *AWS4) OnRequest(x *core.Exchange) core.Verdict {
	s, err := p.find(&x.Request)
	switch {
	case err == errMissing && p.spec.Optional:
		return core.Continue
	case err != nil:
		return x.Challenge(err, aws4Algorithm)
	}
	who, err := p.admit(x, &p.lanes[x.Worker.Loop.Index()], s)
	switch {
	case err != nil && err.Status == 401:
		return x.Challenge(err, aws4Algorithm)
	case err != nil:
		x.Fail(err)
		return core.Respond
	}
	x.Consumer = who
	p.Conceal(x)
	return core.Continue
}

// Conceal takes the signature out of the request that is forwarded, if that is wanted.
func (p *AWS4) Conceal(x *core.Exchange) {
	if !p.spec.Hide {
		return
	}
	aws4Carrier.Hide(&x.Request) // of several lines of Authorization those that are ours
	if p.spec.Presigned > 0 {
		x.Request.RemoveArgument(aws4Signature)
	}
}

// admit judges a signature that was found, and the body.
func (p *AWS4) admit(x *core.Exchange, a *aws4Lane, s *aws4) (*core.Consumer, *core.Error) {
	if a.verifying >= maxVerifying {
		return nil, errBusy
	}
	a.verifying++
	defer func() { a.verifying-- }()
	d := p.consumers.Directory()
	signer, secret, err := p.signer(d, s, x.Worker.Loop.Wall()/int64(time.Second))
	if err != nil {
		return nil, err
	}
	if err := p.payload(x, s); err != nil {
		return nil, err
	}
	var body []byte
	held := s.payload == "" && x.Request.Body != nil
	if held {
		if body, err = x.HoldBody(p.spec.Body); err != nil {
			return nil, err
		}
	}
	if a.of != d { // secrets of those who are gone are not kept
		a.of, a.days = d, map[day][sha256.Size]byte{}
	}
	key, known := a.days[day{signer, s.date}]
	x.Worker.Loop.Await(func() { // x is nobody's meanwhile
		if s.payload == "" {
			sum := sha256.Sum256(body)
			s.payload = hex.EncodeToString(sum[:])
		}
		if !known {
			key = s.key(secret)
		}
		err = p.verify(x, s, &key)
	})
	if err != nil {
		return nil, err
	}
	if !known && a.of == d {
		if len(a.days) >= maxDays {
			clear(a.days)
		}
		a.days[day{signer, s.date}] = key
	}
	if !held && s.payload != unsignedPayload && p.spec.Body > 0 {
		return signer.Consumer, p.compare(x, s)
	}
	return signer.Consumer, nil
}

// signer finds whose key it is, if it may be used now, in seconds, for what it was made for.
func (p *AWS4) signer(d *core.Directory, s *aws4, now int64) (*core.Signer, []byte, *core.Error) {
	signer := d.Signer(s.keyID)
	if signer == nil {
		return nil, nil, errKey
	}
	secret, shared := signer.Key.([]byte)
	skew, life := int64(p.spec.Skew/time.Second), int64(p.spec.MaxAge/time.Second)
	if s.presigned {
		life = s.life
	}
	switch {
	case !shared:
		return nil, nil, errAlgorithm
	case s.region != p.spec.Region || s.service != p.spec.Service || s.date != s.time[:len(s.date)]:
		return nil, nil, errScope
	case s.presigned && life > int64(p.spec.Presigned/time.Second):
		return nil, nil, errLifetime
	case s.at > now+skew:
		return nil, nil, errEarly
	case s.at+life < now-skew:
		return nil, nil, errExpired
	}
	return signer, secret, nil
}

// payload judges what is said of a body before it is looked at. What says nothing is the hash of the body, but for s3 in a query.
func (p *AWS4) payload(x *core.Exchange, s *aws4) *core.Error {
	if s.payload == "" && s.presigned && p.spec.Service == serviceS3 {
		s.payload = unsignedPayload
	}
	switch some := x.Request.Body != nil; {
	case p.spec.Body == 0 && s.payload == "" && some: // nothing to verify it by
		return errDigest
	case p.spec.Body > 0 && s.payload == unsignedPayload && (some || !s.presigned):
		return errDigest
	}
	return nil
}

// compare holds the whole body against the hash that was signed.
func (p *AWS4) compare(x *core.Exchange, s *aws4) *core.Error {
	body, err := x.HoldBody(p.spec.Body)
	if err != nil {
		return err
	}
	right := false
	x.Worker.Loop.Await(func() {
		sum := sha256.Sum256(body)
		right = hex.EncodeToString(sum[:]) == s.payload
	})
	if !right {
		return errDigest
	}
	return nil
}
