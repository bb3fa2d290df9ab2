package config

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// IdentityToken is a token (RFC 7519) that the gateway signs, by which upstreams learn who a consumer is, and can verify it.
type IdentityToken struct {
	Pos       Pos
	Header    string        // X-Identity-Token
	Algorithm string        // ES256 or EdDSA; ES256
	Issuer    string        // iss
	Audience  string        // aud, with {upstream} for the upstream's name; {upstream}
	Lifetime  time.Duration // 1m, 10s..1h; it is sent while a quarter of that is left at least
	Claims    []string      // consumer, tenant, tier, groups, roles, or claims of the client's own token; the five
	ID        bool          // each token has a jti; requests share tokens
	Rotate    time.Duration // how long a key signs; 24h, 1m..30 days
	Secret    Secret        // that keys are derived from, the same on all nodes; at least 32 bytes, by reference; "": keys are random and this node's alone
	Anonymous string        // what becomes of requests that nobody is known for: pass or refuse; pass
}

const (
	identityTokenKeys   = "header algorithm issuer audience lifetime claims jti rotate secret anonymous"
	maxIdentityClaims   = 16
	minIdentityRotation = time.Minute
	maxIdentityRotation = 30 * 24 * time.Hour

	// registeredClaims are the gateway's own (RFC 7519, 4.1).
	registeredClaims = "iss sub aud exp nbf iat jti"
	// consumerClaims are what is told of a consumer himself, whatever the client's own token has under these names.
	consumerClaims = "consumer tenant tier groups roles"
	upstreamName   = "{upstream}"
)

// identityToken reads one.
func (d *decoder) identityToken(key string, n ast.Node) *IdentityToken {
	t := &IdentityToken{Header: "X-Identity-Token", Algorithm: "ES256", Audience: upstreamName, Lifetime: time.Minute,
		Claims: strings.Fields(consumerClaims), Rotate: 24 * time.Hour, Anonymous: "pass"}
	if n = d.resolve(n); n == nil {
		return t
	}
	t.Pos = d.at(n)
	before := d.errors
	ok := d.mapping(key, n, identityTokenKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "header":
			d.identityField(key, v, nil, &t.Header)
		case "algorithm":
			d.word(key, v, "ES256 EdDSA", &t.Algorithm)
		case "issuer":
			d.clientText(key, v, &t.Issuer)
		case "audience":
			d.clientText(key, v, &t.Audience)
			if rest := strings.ReplaceAll(t.Audience, upstreamName, ""); strings.ContainsAny(rest, "{}") {
				d.problem(v, "write a text, in which "+upstreamName+" is the upstream's name", "%q holds a brace", key)
			}
		case "lifetime":
			d.durationUpTo(key, v, 10*time.Second, time.Hour, &t.Lifetime)
		case "claims":
			t.Claims = nil
			d.list(key, v, func(v ast.Node) { d.toldClaim(key, v, t) })
		case "jti":
			d.boolean(key, v, &t.ID)
		case "rotate":
			d.durationUpTo(key, v, minIdentityRotation, maxIdentityRotation, &t.Rotate)
		case "secret":
			d.referred(key, v, minJWTSecret, maxJWTSecret, &t.Secret)
		case "anonymous":
			d.word(key, v, "pass refuse", &t.Anonymous)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && t.Issuer == "" {
		d.problem(n, "add issuer: https://gateway.example.com", "%q has no %q: nobody could tell whose word it is", key, "issuer")
	}
	return t
}

// toldClaim reads the name of a claim that the token has.
func (d *decoder) toldClaim(key string, n ast.Node, t *IdentityToken) {
	var s string
	switch {
	case !d.text(key, n, &s) || !d.claimName(n, s):
	case slices.Contains(strings.Fields(registeredClaims), s):
		d.problem(n, "", "claim %q is the gateway's own to say", s)
	case slices.Contains(t.Claims, s):
		d.problem(n, "", "claim %q is given twice", clip(s))
	case len(t.Claims) == maxIdentityClaims:
		d.problem(n, "", "%q has more than %d entries", key, maxIdentityClaims)
	default:
		t.Claims = append(t.Claims, s)
	}
}

// askedOfTokens are the claims that it takes over of the client's own token.
func (t *IdentityToken) askedOfTokens() (names []string) {
	for _, name := range t.Claims {
		if !slices.Contains(strings.Fields(consumerClaims), name) {
			names = append(names, name)
		}
	}
	return names
}

// AudienceOf is whom the tokens for an upstream are for.
func (t *IdentityToken) AudienceOf(upstream string) string {
	return strings.ReplaceAll(t.Audience, upstreamName, upstream)
}

// checkIdentityToken looks at what has to do with other parts of the configuration.
func (l *loader) checkIdentityToken() {
	var t *IdentityToken
	if l.cfg.Identity != nil {
		t = l.cfg.Identity.Token
	}
	if t == nil {
		for _, at := range l.published {
			l.problemAt(at, "identity: { token: { issuer: https://gateway.example.com } }", "there are no keys to publish: the gateway signs no tokens")
		}
		return
	}
	if containsFold(l.cfg.Identity.own(), t.Header) {
		l.problemAt(t.Pos, "", "header %q tells of a consumer already", t.Header)
	}
	if t.Rotate < l.cfg.Drain.Time && t.Secret.Reveal() == "" {
		// A process that is replaced knows the key that signs next, and none after it. Tunnels that outlive the rest need none.
		l.problemAt(t.Pos, "", "%q is below %q, of a process that is replaced: %s and %s", "rotate", "drain", formatDuration(t.Rotate), formatDuration(l.cfg.Drain.Time))
	}
}

func (w *dumper) identityToken(t *IdentityToken) {
	if t == nil {
		return
	}
	w.block("token:", func() {
		w.line("header: %s", quote(t.Header))
		w.line("algorithm: %s", t.Algorithm)
		w.line("issuer: %s", quote(t.Issuer))
		w.line("audience: %s", quote(t.Audience))
		w.line("lifetime: %s", formatDuration(t.Lifetime))
		w.line("claims: %s", quoteList(t.Claims))
		w.line("jti: %t", t.ID)
		w.line("rotate: %s", formatDuration(t.Rotate))
		if t.Secret.Reveal() != "" {
			w.line("secret: %s", quote(t.Secret.String()))
		}
		w.line("anonymous: %s", t.Anonymous)
	})
}
