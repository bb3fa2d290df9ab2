package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// JWT lets requests pass that bear a signed token.
type JWT struct {
	Bearer
	JWKS            string // "": none, "file:/path", a URL, or "discover": where each of Issuers says
	Sources         []IssuerKeys
	Secret          Secret   // by reference; at least 32 bytes
	Keys            []Secret // public keys in PEM, by reference
	Algorithms      []string // empty: all that the keys are for
	Leeway          time.Duration
	MaximumLifetime time.Duration // 0: any
	Types           []string      // of which typ must be one, in lower case and without "application/"; empty: any
	KeyClaim        string        // names the key of a token without kid; "": none
	Cache           time.Duration // that a verified token is believed without another look, so long a key that was withdrawn may still count; 1m, 0..1h
	Stale           time.Duration // that keys stay in force from the first fetch that fails on; 0: for ever
}

// IssuerKeys is an issuer and the place of its keys, which are for no other's tokens.
type IssuerKeys struct {
	Issuer string
	JWKS   string // as in JWT
}

// Bearer is where requests carry a token, and what its claims must be and mean.
type Bearer struct {
	Carrier   Carrier // header Authorization, where nothing is written; there, with the scheme Bearer
	Issuers   []string
	Audiences []string
	Claims    []RequiredClaim
	Scopes    []string
	Hide      bool // true
	Optional  bool // false
	Preflight bool // CORS preflights need a token, too; false
	Headers   []ClaimHeader
	Consumer  string // claim; "": sub, if there is one
	Tier      string // claim; "": none
	Tenant    string // claim; "": none
	Groups    string // claim: groups beside the consumer's own; "": none
	Roles     string // claim: roles beside the consumer's own; "": none
}

// RequiredClaim is a claim that must have one of the values.
type RequiredClaim struct {
	Claim  string
	Values []string
}

// ClaimHeader is a header that tells the upstream of a claim.
type ClaimHeader struct{ Header, Claim string }

const (
	bearerKeys        = "header scheme cookie query issuer audience claims scopes hide_credentials optional headers consumer tier tenant groups roles run_on_preflight"
	jwtKeys           = bearerKeys + " jwks secret keys issuers algorithms typ key_claim leeway maximum_lifetime cache stale"
	jwtAlgorithms     = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA HS256 HS384 HS512"
	defaultLeeway     = 30 * time.Second
	defaultTokenCache = time.Minute
	maxTokenCache     = time.Hour
	maxStaleKeys      = 365 * 24 * time.Hour
	maxLeeway         = 10 * time.Minute
	maxJWTList        = 100 // issuers, audiences, keys, claims, values, scopes, headers
	maxPublicKey      = 64 << 10
	minJWTSecret      = 32
	maxJWTSecret      = 1024
	maxTokenLifetime  = 365 * 24 * time.Hour
)

func (d *decoder) jwt(key string, n ast.Node) *JWT {
	j := &JWT{Leeway: defaultLeeway, Cache: defaultTokenCache, Bearer: Bearer{Hide: true}}
	before := d.errors
	ok := d.mapping(key, n, jwtKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "jwks":
			d.jwks(key, v, &j.JWKS)
		case "secret":
			d.referred(key, v, minJWTSecret, maxJWTSecret, &j.Secret)
		case "keys":
			d.list(key, v, func(v ast.Node) {
				var s Secret
				if d.referred(key, v, 1, maxPublicKey, &s) && d.room(key, v, len(j.Keys)) {
					j.Keys = append(j.Keys, s)
				}
			})
		case "algorithms":
			d.list(key, v, func(v ast.Node) {
				var s string
				if d.word(key, v, jwtAlgorithms, &s); s != "" && !slices.Contains(j.Algorithms, s) {
					j.Algorithms = append(j.Algorithms, s)
				}
			})
		case "leeway":
			d.durationUpTo(key, v, 0, maxLeeway, &j.Leeway)
		case "maximum_lifetime":
			d.durationUpTo(key, v, time.Second, maxTokenLifetime, &j.MaximumLifetime)
		case "cache":
			d.durationUpTo(key, v, 0, maxTokenCache, &j.Cache)
		case "stale":
			d.durationUpTo(key, v, 0, maxStaleKeys, &j.Stale)
		case "issuers", "typ", "key_claim":
			d.jwtTrust(key, v, j)
		default:
			return d.bearer(key, v, &j.Bearer)
		}
		return true
	})
	j.settle()
	if ok && d.errors == before {
		d.jwtWhole(n, j)
	}
	return j
}

// bearer reads one of the keys of a Bearer.
func (d *decoder) bearer(key string, v ast.Node, j *Bearer) bool {
	switch key {
	case "issuer":
		d.claimTexts(key, v, &j.Issuers)
	case "audience":
		d.claimTexts(key, v, &j.Audiences)
	case "scopes":
		d.claimTexts(key, v, &j.Scopes)
	case "claims":
		d.requiredClaims(key, v, &j.Claims)
	case "headers":
		d.claimHeaders(key, v, j)
	case "consumer":
		if d.text(key, v, &j.Consumer) {
			d.claimName(v, j.Consumer)
		}
	case "tier":
		if d.text(key, v, &j.Tier) {
			d.claimName(v, j.Tier)
		}
	case "tenant":
		if d.text(key, v, &j.Tenant) {
			d.claimName(v, j.Tenant)
		}
	case "groups":
		if d.text(key, v, &j.Groups) {
			d.claimName(v, j.Groups)
		}
	case "roles":
		if d.text(key, v, &j.Roles) {
			d.claimName(v, j.Roles)
		}
	case "hide_credentials":
		d.boolean(key, v, &j.Hide)
	case "optional":
		d.boolean(key, v, &j.Optional)
	case "run_on_preflight":
		d.boolean(key, v, &j.Preflight)
	default:
		return d.carrier(key, v, &j.Carrier)
	}
	return true
}

func (d *decoder) requiredClaims(key string, n ast.Node, to *[]RequiredClaim) {
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		r := RequiredClaim{Claim: name}
		d.claimName(k, name)
		if d.claimTexts(name, v, &r.Values); d.room(key, k, len(*to)) {
			*to = append(*to, r)
		}
		return true
	})
}

// settle is done when all keys are read.
func (j *Bearer) settle() {
	j.Carrier.settle("Authorization")
}

func (d *decoder) room(key string, n ast.Node, has int) bool {
	if has == maxJWTList {
		d.problem(n, "", "%q has more than %d entries", key, maxJWTList)
	}
	return has < maxJWTList
}

func (d *decoder) claimName(n ast.Node, s string) bool {
	if s == "" || len(s) > maxClaimBytes || hasControl(s) {
		d.problem(n, "", "no claim has the name %q", clip(s))
		return false
	}
	return true
}

func (d *decoder) claimTexts(key string, n ast.Node, to *[]string) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		if b, ok := v.(*ast.BoolNode); ok {
			*to = append(*to, fmt.Sprint(b.Value))
			return
		}
		var s string
		switch {
		case v == nil || !d.text(key, v, &s):
		case s == "" || len(s) > maxClaimBytes || hasControl(s) || strings.ContainsAny(s, `"\`):
			d.problem(v, "", "%q cannot stand in %q", clip(s), key)
		case d.room(key, v, len(*to)):
			*to = append(*to, s)
		}
	})
}

// referred reads a secret that must be given by reference.
func (d *decoder) referred(key string, n ast.Node, least, most int, to *Secret) bool {
	var s Secret
	if !d.secret(key, n, most, &s) {
		return false
	}
	switch {
	case !s.IsReference():
		d.conceal(s.Reveal())
		d.problem(n, referenceHint, "%q is given by reference only", key)
		return false
	case len(s.Reveal()) < least:
		d.problem(n, "", "%q must have from %d to %d bytes", key, least, most)
		return false
	}
	*to = s
	return true
}

func (d *decoder) claimHeaders(key string, n ast.Node, j *Bearer) {
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		var s string
		switch {
		case !d.fieldName(key, k, name) || !d.text(name, v, &s) || !d.claimName(v, s) || !d.room(key, k, len(j.Headers)):
		case strings.EqualFold(name, "X-Consumer-Name") || strings.EqualFold(name, "Authorization") || strings.EqualFold(name, "Cookie"):
			d.problem(k, "", "header %q cannot tell of a claim", name)
		default:
			j.Headers = append(j.Headers, ClaimHeader{name, s})
		}
		return true
	})
}

func (w *dumper) optionalList(key string, values []string) {
	if len(values) > 0 {
		w.line("%s: %s", key, quoteList(values))
	}
}

func (w *dumper) bearer(j *Bearer) {
	w.optionalList("header", j.Carrier.Headers)
	if j.Carrier.Schemed {
		w.line("scheme: %s", quote(j.Carrier.Scheme))
	}
	w.optionalList("cookie", j.Carrier.Cookies)
	w.optionalList("query", j.Carrier.Arguments)
	w.optionalList("issuer", j.Issuers)
	w.optionalList("audience", j.Audiences)
	w.optionalList("scopes", j.Scopes)
	w.line("optional: %t", j.Optional)
	w.line("run_on_preflight: %t", j.Preflight)
	w.claimsOf(j)
}

// claimsOf writes what claims must be and mean.
func (w *dumper) claimsOf(j *Bearer) {
	for _, at := range []struct{ key, value string }{{"consumer", j.Consumer}, {"tier", j.Tier}, {"tenant", j.Tenant}, {"groups", j.Groups}, {"roles", j.Roles}} {
		if at.value != "" {
			w.line("%s: %s", at.key, quote(at.value))
		}
	}
	w.requiredClaims(j.Claims)
	w.line("hide_credentials: %t", j.Hide)
	if len(j.Headers) > 0 {
		w.block("headers:", func() {
			for _, h := range j.Headers {
				w.line("%s: %s", quote(h.Header), quote(h.Claim))
			}
		})
	}
}

func (w *dumper) requiredClaims(all []RequiredClaim) {
	if len(all) > 0 {
		w.block("claims:", func() {
			for _, r := range all {
				w.line("%s: %s", quote(r.Claim), quoteList(r.Values))
			}
		})
	}
}
