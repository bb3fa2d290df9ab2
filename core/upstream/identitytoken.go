package upstream

import (
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/core"
)

// IdentityTokenSpec says what upstreams learn of consumers by tokens that the gateway signs.
type IdentityTokenSpec struct {
	Header string // that bears the token
	Issuer string
	// Claims are told besides iss, aud and sub, if there are any of that name: consumer, tenant, tier, groups, roles, and others of the token by
	// which the consumer is known.
	Claims []string
	Refuse bool // a request of nobody's is refused, instead of being sent without a token
}

// IdentitySigner signs. Begin runs on a loop and does not wait. payload is a JSON object without its closing brace; what depends on the time
// is the signer's to add.
type IdentitySigner interface {
	Begin(payload string) core.Call[SignedIdentity]
}

// SignedIdentity is a token. Times are nanoseconds of Unix time.
type SignedIdentity struct {
	Token       []byte // nil: it could not be signed
	From, Until int64  // it may be sent
}

// IdentityTokens tells upstreams of consumers. A token is signed beside the loop, once for all who wait for the same, and is kept by the loop
// for the requests that follow. Immutable but for the lanes, each of which only its loop touches.
type IdentityTokens struct {
	spec   IdentityTokenSpec
	signer IdentitySigner
	lanes  []identityLane
}

// identityLane is one loop's. Tokens are kept by their whole payload: who is told of and to whom is all in it, so that nobody can be told of
// by another's token.
type identityLane struct {
	recent  core.Recent[*SignedIdentity]
	calls   core.Calls[SignedIdentity]
	payload []byte // of the exchange that is told of now
	counts  IdentityTokenCounts
	_       [64]byte // keeps the lanes of two loops off one cache line
}

// IdentityTokenCounts are of one loop.
type IdentityTokenCounts struct {
	Signed uint64
	Kept   uint64 // requests that were sent with a token signed before
	Failed uint64 // requests for which none could be signed
}

const (
	// maxIdentityBytes bounds what is said of a consumer: upstreams take heads of 8 KiB, and a token is a third longer.
	maxIdentityBytes = 4 << 10
	// identityCalls bounds the tokens of a loop that are being signed, and those who wait for one of another's.
	identityCalls = 4096
)

var (
	errIdentityMissing     = &core.Error{Status: 403, Reason: "identity_missing"}
	errIdentityTooLarge    = &core.Error{Status: 403, Reason: "identity_too_large", Detail: "what the token would say is longer than 4 KiB"}
	errIdentityUnavailable = &core.Error{Status: 503, Reason: "identity_token_unavailable", Side: core.SideInternal}
)

// NewIdentityTokens gives those for so many loops.
func NewIdentityTokens(spec IdentityTokenSpec, signer IdentitySigner, loops int) *IdentityTokens {
	t := &IdentityTokens{spec: spec, signer: signer, lanes: make([]identityLane, loops)}
	for i := range t.lanes {
		t.lanes[i].calls.Most = identityCalls
	}
	return t
}

// Counts are those of a loop, on which it is called.
func (t *IdentityTokens) Counts(index int) IdentityTokenCounts { return t.lanes[index].counts }

// IdentityToken tells one upstream of consumers. Immutable.
type IdentityToken struct {
	all   *IdentityTokens
	begin []byte // of the payload: what is the same for all consumers
}

// For gives what tells an upstream: the tokens are for that audience alone.
func (t *IdentityTokens) For(audience string) *IdentityToken {
	b := appendMember([]byte{'{'}, "iss", t.spec.Issuer)
	return &IdentityToken{all: t, begin: appendMember(b, "aud", audience)}
}

// tell puts the token of x's consumer into the request, in the place of whatever could be taken for it. It may park the task while one is
// signed, and leaves the client unwatched then.
func (t *IdentityToken) tell(x *core.Exchange) *core.Error {
	s := &t.all.spec
	x.Request.RemoveLike(s.Header)
	if x.Consumer == nil {
		if s.Refuse {
			return errIdentityMissing
		}
		return nil
	}
	a := &t.all.lanes[x.Worker.Loop.Index()]
	a.payload = s.appendIdentity(append(a.payload[:0], t.begin...), x)
	if len(a.payload) > maxIdentityBytes {
		a.payload = nil
		return errIdentityTooLarge
	}
	one, ok := a.recent.Find(a.payload)
	if now := x.Worker.Loop.Time(); ok && now >= one.From && now < one.Until {
		a.counts.Kept++
	} else {
		var err *core.Error
		if one, err = t.all.sign(x, a, string(a.payload)); err != nil {
			return err
		}
	}
	x.Request.AddName(s.Header, one.Token)
	return nil
}

// sign has a token signed, and keeps it.
func (t *IdentityTokens) sign(x *core.Exchange, a *identityLane, payload string) (*SignedIdentity, *core.Error) {
	one, err := a.calls.Ask(x, payload, func() core.Call[SignedIdentity] {
		a.counts.Signed++
		return t.signer.Begin(payload)
	})
	switch {
	case err == core.ErrClientGone || err == core.ErrStopping:
		return nil, err
	case err != nil || one.Token == nil:
		a.counts.Failed++
		return nil, errIdentityUnavailable
	}
	a.recent.Put(payload, &one, len(one.Token)+64)
	return &one, nil
}

// appendIdentity appends what is said of x's consumer.
func (s *IdentityTokenSpec) appendIdentity(b []byte, x *core.Exchange) []byte {
	c := x.Consumer
	subject := c.User
	if subject == "" {
		subject = c.Name
	}
	b = appendMember(b, "sub", subject)
	for _, name := range s.Claims {
		text, items := "", []string(nil)
		switch name {
		case "consumer":
			text = c.Name
		case "tenant":
			text = c.Tenant
		case "tier":
			text = c.Tier
		case "groups":
			items = c.Groups
		case "roles":
			items = c.Roles
		default:
			if items = x.Claims.Items(name); items == nil {
				text, _ = x.Claims.Value(name)
			}
		}
		switch {
		case items != nil:
			b = appendList(b, name, items)
		case text != "":
			b = appendMember(b, name, text)
		}
	}
	return b
}

// appendName appends what comes before a member's value.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendText(b, name), ':')
}

func appendMember(b []byte, name, value string) []byte {
	return appendText(appendName(b, name), value)
}

func appendList(b []byte, name string, items []string) []byte {
	b = append(appendName(b, name), '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, item)
	}
	return append(b, ']')
}

// appendText appends a string as JSON has it (RFC 8259, 7). What is not UTF-8 is replaced.
func appendText(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s { // gives U+FFFD for what is not UTF-8
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
