// Package basic is the policy that knows consumers by user name and password (RFC 7617).
//
// A password's hash is made to be slow, so it is verified beside the loop, and only a few at a time. What was right is kept by the loop
// for a minute, as a keyed hash, so that the requests that follow cost a lookup.
package basic

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Spec says what becomes of the credentials.
type Spec struct {
	Realm    string // of the challenge; without quotes and backslashes
	Hide     bool   // the upstream does not get them
	Optional bool   // a request without them passes, and has no consumer
}

// Gate bounds the passwords that are verified at the same time, by whomever.
type Gate interface {
	// Enter waits for a turn; false: there is none to be had soon. It is not called on a loop.
	Enter() bool
	Leave()
}

// Policy is immutable but for the caches, each of which only its loop touches.
type Policy struct {
	spec      Spec
	consumers *core.Consumers
	gate      Gate
	challenge string
	caches    []cache
	seed      [32]byte
}

// New gives the policy for so many loops.
func New(spec Spec, consumers *core.Consumers, gate Gate, loops int) *Policy {
	p := &Policy{spec: spec, consumers: consumers, gate: gate, caches: make([]cache, loops),
		challenge: `Basic realm="` + spec.Realm + `", charset="UTF-8"`}
	_, _ = rand.Read(p.seed[:]) // never fails
	return p
}

const (
	maxCredentials = 1024 // bytes in base64
	maxBcrypt      = 72   // bytes of a password that bcrypt looks at
	cacheFor       = int64(time.Minute)
)

var (
	errMissing   = &core.Error{Status: 401, Reason: "password_missing"}
	errSeveral   = &core.Error{Status: 401, Reason: "password_ambiguous", Detail: "several Authorization fields"}
	errMalformed = &core.Error{Status: 401, Reason: "password_malformed"}
	errWrong     = &core.Error{Status: 401, Reason: "password_wrong"}
	errBusy      = &core.Error{Status: 503, Reason: "password_busy", Side: core.SideInternal}

	carrier = core.Carrier{Headers: []string{"Authorization"}, Scheme: "Basic"}
)

// OnRequest finds the consumer of the request's user name and password. A client is not told which of them is wrong.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	text, n := carrier.Find(&x.Request)
	switch {
	case n == 0 && p.spec.Optional:
		return core.Continue
	case n == 0:
		return x.Challenge(errMissing, p.challenge)
	case n > 1:
		return x.Challenge(errSeveral, p.challenge)
	case len(text) > maxCredentials:
		return x.Challenge(errMalformed, p.challenge)
	}
	d, now := p.consumers.Directory(), x.Worker.Loop.Wall()
	c := &p.caches[x.Worker.Loop.Index()]
	key := p.key(text)
	who := c.find(key, d, now)
	if who == nil {
		var err *core.Error
		who, err = p.await(x, bytes.Clone(text), d)
		switch {
		case err == errBusy:
			x.Fail(err)
			return core.Respond
		case err != nil:
			return x.Challenge(err, p.challenge)
		}
		if c.directory == d { // it is the same after the wait
			c.put(key, entry{who, now + cacheFor})
		}
	}
	x.Consumer = who
	p.Conceal(x)
	return core.Continue
}

// Conceal takes the password out of the request, if it is hidden.
func (p *Policy) Conceal(x *core.Exchange) {
	if p.spec.Hide {
		carrier.Hide(&x.Request)
	}
}

// await verifies beside the loop.
func (p *Policy) await(x *core.Exchange, text []byte, d *core.Directory) (who *core.Consumer, err *core.Error) {
	x.Worker.Loop.Await(func() { who, err = p.verify(text, d) })
	return who, err
}

// key stands for credentials in a cache, so that none are kept in memory.
func (p *Policy) key(text []byte) [sha256.Size]byte {
	var b [len(p.seed) + maxCredentials]byte
	n := copy(b[:], p.seed[:])
	n += copy(b[n:], text)
	return sha256.Sum256(b[:n])
}

// verify compares a password. Of a user who is not known some password is compared too, so that both take their time.
func (p *Policy) verify(text []byte, d *core.Directory) (*core.Consumer, *core.Error) {
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	user, password, ok := bytes.Cut(b[:n], []byte{':'})
	if err != nil || !ok || bytes.ContainsAny(text, "\r\n") {
		return nil, errMalformed
	}
	if !p.gate.Enter() {
		return nil, errBusy
	}
	defer p.gate.Leave()
	l := d.Login(user)
	if l == nil {
		matches(&nobody, password)
		return nil, errWrong
	}
	if !matches(&l.Password, password) {
		return nil, errWrong
	}
	return l.Consumer, nil
}

// nobody is the password of users who are not known: it costs what those cost that sluice hash makes, and is nothing's hash.
var nobody = core.Password{MemoryKiB: 19 << 10, Rounds: 2, Lanes: 1, Salt: make([]byte, 16), Sum: make([]byte, 32)}

func matches(p *core.Password, password []byte) bool {
	if p.Bcrypt != "" {
		return len(password) <= maxBcrypt && bcrypt.CompareHashAndPassword([]byte(p.Bcrypt), password) == nil
	}
	sum := argon2.IDKey(password, p.Salt, p.Rounds, p.MemoryKiB, p.Lanes, uint32(len(p.Sum)))
	return subtle.ConstantTimeCompare(sum, p.Sum) == 1
}
