package upstream

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
)

// Authorizer puts a token of the gateway's own in the place of the Authorization that clients send. Immutable.
type Authorizer struct {
	Tokens *Tokens
	Allow  bool // without a token requests are sent without Authorization, instead of being refused
}

// Tokens has the token that is good now, for all loops and for all upstreams that want the same. Somebody else fetches the next one ahead
// of need.
type Tokens struct {
	current  atomic.Pointer[Token]
	rejected func()
}

// Token is one of them. Immutable but for what was said of it.
type Token struct {
	line  []byte // of the field
	end   int64  // on the wall clock, in nanoseconds
	blame atomic.Bool
}

// NewTokens gives a place without a token. rejected is told, once for each token, that an upstream does not take it. It is called on a
// loop, and must not wait.
func NewTokens(rejected func()) *Tokens { return &Tokens{rejected: rejected} }

// Put makes a bearer token the one that is used until end, on the wall clock in nanoseconds. It may be called from anywhere. The token must
// hold nothing that cannot stand in a field.
func (t *Tokens) Put(token string, end int64) {
	t.current.Store(&Token{line: []byte("Bearer " + token), end: end})
}

// errUnauthorized is that there is no token to authorize requests with.
var errUnauthorized = &core.Error{Status: 503, Reason: "authorization_unavailable", Side: core.SideInternal}

// authorize changes the request, and gives the token that it bears; nil: none.
func (a *Authorizer) authorize(x *core.Exchange) (*Token, *core.Error) {
	t := a.Tokens.current.Load()
	if t == nil || x.Worker.Loop.Wall() >= t.end {
		if !a.Allow {
			return nil, errUnauthorized
		}
		x.Request.RemoveLike("Authorization")
		return nil, nil
	}
	x.Request.RemoveLike("Authorization")
	x.Request.Add(core.FieldAuthorization, t.line)
	return t, nil
}

// hear notes that an upstream has not taken a token. One that is not the current one has been exchanged already.
func (a *Authorizer) hear(t *Token, status int) {
	if t != nil && status == 401 && a.Tokens.current.Load() == t && t.blame.CompareAndSwap(false, true) {
		a.Tokens.rejected()
	}
}
