package core

import "strings"

// Bearer is how tokens come (RFC 6750) and what becomes of their claims, however they are verified. Immutable.
type Bearer struct {
	Carrier  Carrier
	Hide     bool // the upstream does not get the token
	Optional bool // a request without a token passes
	// Preflight: a token is wanted of CORS preflights too, which browsers make without. Else one without passes, as nobody's.
	Preflight bool
	Revoked   *Revocations // nil: tokens are not withdrawn
	ClaimRules
}

const (
	// MaxTokenBytes bounds a token.
	MaxTokenBytes = 16 << 10

	bearerRealm   = `Bearer realm="sluice"`
	bearerInvalid = bearerRealm + `, error="invalid_token"`
)

// What tokens are refused for. The client is told no more than RFC 6750 (3.1) has a word for, and the reason.
var (
	ErrTokenMalformed = &Error{Status: 401, Reason: "token_malformed"}
	ErrTokenExpired   = &Error{Status: 401, Reason: "token_expired"}
	ErrTokenEarly     = &Error{Status: 401, Reason: "token_not_yet_valid"}
	ErrTokenClaims    = &Error{Status: 401, Reason: "token_claims"}
	ErrTokenBusy      = &Error{Status: 503, Reason: "token_busy", Side: SideInternal}

	errTokenMissing  = &Error{Status: 401, Reason: "token_missing"}
	errTokenSeveral  = &Error{Status: 401, Reason: "token_ambiguous", Detail: "several tokens in one place"}
	errTokenIssuer   = &Error{Status: 401, Reason: "token_issuer"}
	errTokenAudience = &Error{Status: 401, Reason: "token_audience"}
	errTokenScope    = &Error{Status: 403, Reason: "token_scope"}
	errTokenConsumer = &Error{Status: 403, Reason: "consumer_unknown"}
)

// Find gives the token of a request; nil: verdict says what becomes of it without one. What the upstream is told of claims comes from
// tokens alone: the same fields of a client are removed, in whatever spelling.
func (b *Bearer) Find(x *Exchange) (token []byte, verdict Verdict) {
	for i := range b.Headers {
		x.Request.RemoveLike(b.Headers[i].Header)
	}
	token, n := b.Carrier.Find(&x.Request)
	switch {
	case n == 0 && (b.Optional || !b.Preflight && x.Request.preflight()):
		return nil, Continue
	case n == 0:
		return nil, x.Challenge(errTokenMissing, bearerRealm)
	case n > 1:
		return nil, x.Challenge(errTokenSeveral, bearerInvalid)
	case len(token) > MaxTokenBytes || len(token) == 0:
		return nil, x.Challenge(ErrTokenMalformed, bearerInvalid)
	}
	return token, Continue
}

// Refuse fails x because of its token, or of what is needed to verify it.
func (b *Bearer) Refuse(x *Exchange, err *Error) Verdict {
	switch {
	case err == errTokenScope:
		return x.Challenge(err, bearerRealm+`, error="insufficient_scope", scope="`+strings.Join(b.Scopes, " ")+`"`)
	case err.Status == 401:
		return x.Challenge(err, bearerInvalid)
	}
	x.Fail(err)
	return Respond
}

// RefuseGenuine is Refuse of a token whose signature is right, or that its issuer says to be active. The log tells of whom it names, and nobody
// else does: who is nobody's consumer to limits, conditions and upstreams.
func (b *Bearer) RefuseGenuine(x *Exchange, err *Error, who *Consumer) Verdict {
	x.Refused = who
	return b.Refuse(x, err)
}

// Conceal takes the token out of the request that is forwarded, if that is wanted.
func (b *Bearer) Conceal(x *Exchange) {
	if b.Hide {
		b.Carrier.Hide(&x.Request)
	}
}

// Pass lets a request pass with what its token is good for.
func (b *Bearer) Pass(x *Exchange, g *Grant) {
	b.Conceal(x)
	if g.Consumer != nil {
		x.Consumer = g.Consumer
	}
	if g.Claims != nil {
		x.Claims = g.Claims
	}
	for i, v := range g.Values {
		if v == "" {
			continue
		}
		name := b.Headers[i].Header
		line := x.Request.Begin(name)
		line.String(v)
		line.End(LookupField([]byte(name)))
	}
}

// Bytes is about what a grant takes in memory.
func (g *Grant) Bytes() (n int) {
	for _, v := range g.Values {
		n += len(v) + 16
	}
	return n + len(g.ID) + len(g.Subject) + g.Claims.bytes()
}
