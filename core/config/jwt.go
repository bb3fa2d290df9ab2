package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// JWT lets requests pass that bear a signed token.
type JWT struct {
	Bearer
	JWKS            string   // "": none, "file:/path", or a URL
	Secret          Secret   // by reference; at least 32 bytes
	Keys            []Secret // public keys in PEM, by reference
	Algorithms      []string // empty: all that the keys are for
	Leeway          time.Duration
	MaximumLifetime time.Duration // 0: any
}

// Bearer is where requests carry a token, and what its claims must be and mean.
type Bearer struct {
	Carrier   Carrier // header Authorization, with the scheme Bearer, where nothing is written
	Issuers   []string
	Audiences []string
	Claims    []RequiredClaim
	Scopes    []string
	Hide      bool // true
	Optional  bool // false
	Headers   []ClaimHeader
	Consumer  string // claim; "": sub, if there is one
	Tier      string // claim; "": none
	Tenant    string // claim; "": none
}

// RequiredClaim is a claim that must have one of the values.
type RequiredClaim struct {
	Claim  string
	Values []string
}

// ClaimHeader is a header that tells the upstream of a claim.
type ClaimHeader struct{ Header, Claim string }

const (
	bearerKeys       = "header cookie query issuer audience claims scopes hide_credentials optional headers consumer tier tenant"
	jwtKeys          = bearerKeys + " jwks secret keys algorithms leeway maximum_lifetime"
	jwtAlgorithms    = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA HS256 HS384 HS512"
	defaultLeeway    = 30 * time.Second
	maxLeeway        = 10 * time.Minute
	maxJWTList       = 100 // issuers, audiences, keys, claims, values, scopes, headers
	maxPublicKey     = 64 << 10
	minJWTSecret     = 32
	maxJWTSecret     = 1024
	maxTokenLifetime = 365 * 24 * time.Hour
)

func (d *decoder) jwt(key string, n ast.Node) *JWT {
	j := &JWT{Leeway: defaultLeeway, Bearer: Bearer{Hide: true}}
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
		d.mapping(key, v, "", func(name string, k, v ast.Node) bool {
			r := RequiredClaim{Claim: name}
			d.claimName(k, name)
			if d.claimTexts(name, v, &r.Values); d.room(key, k, len(j.Claims)) {
				j.Claims = append(j.Claims, r)
			}
			return true
		})
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
	case "hide_credentials":
		d.boolean(key, v, &j.Hide)
	case "optional":
		d.boolean(key, v, &j.Optional)
	default:
		return d.carrier(key, v, &j.Carrier)
	}
	return true
}

// settle is done when all keys are read.
func (j *Bearer) settle() {
	if j.Carrier == (Carrier{}) {
		j.Carrier.Header = "Authorization"
	}
}

// jwtWhole judges what only the whole tells.
func (d *decoder) jwtWhole(n ast.Node, j *JWT) {
	secret := j.Secret.Reveal() != ""
	public := j.JWKS != "" || len(j.Keys) > 0
	if !secret && !public {
		d.problem(n, "jwks: https://..., or file:/path; keys: [file:/path.pem]; or secret: env:NAME", "%q has no keys to verify tokens with", "jwt")
	}
	for _, a := range j.Algorithms {
		if hmac := strings.HasPrefix(a, "HS"); hmac && !secret || !hmac && !public {
			d.problem(n, "", "no key is for algorithm %q", a)
		}
	}
	if len(j.Issuers) == 0 && len(j.Audiences) == 0 {
		d.warnAt(d.at(n), "audience: NAME", "%q accepts every token of these keys, for whomever it was made", "jwt")
	}
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
		d.problem(n, "write env:NAME or file:/path", "%q is given by reference only", key)
		return false
	case len(s.Reveal()) < least:
		d.problem(n, "", "%q must have from %d to %d bytes", key, least, most)
		return false
	}
	*to = s
	return true
}

// jwks reads file:/path or a URL. Keys that somebody on the way could replace are no keys, so it is https, but on this host.
func (d *decoder) jwks(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if path, file := strings.CutPrefix(s, "file:"); file {
		if !strings.HasPrefix(path, "/") {
			d.problem(n, "write file:/path", "the path of a reference must be absolute, not %q", clip(path))
			return
		}
		*to = s
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Fragment != "" || len(s) > maxPathBytes {
		d.problem(n, "write https://host/path or file:/path", "%q is no place for keys", clip(s))
		return
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !a.IsLoopback()) {
		d.problem(n, "write https://", "keys that come unencrypted could be anybody's")
		return
	}
	*to = s
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

func (w *dumper) jwt(j *JWT) {
	w.block("jwt:", func() {
		w.bearer(&j.Bearer)
		for _, at := range []struct{ key, value string }{{"jwks", j.JWKS}, {"secret", j.Secret.String()}} {
			if at.value != "" {
				w.line("%s: %s", at.key, quote(at.value))
			}
		}
		var keys []string
		for range j.Keys {
			keys = append(keys, redacted)
		}
		w.optionalList("keys", keys)
		w.optionalList("algorithms", j.Algorithms)
		w.line("leeway: %s", formatDuration(j.Leeway))
		if j.MaximumLifetime > 0 {
			w.line("maximum_lifetime: %s", formatDuration(j.MaximumLifetime))
		}
	})
}

func (w *dumper) optionalList(key string, values []string) {
	if len(values) > 0 {
		w.line("%s: %s", key, quoteList(values))
	}
}

func (w *dumper) bearer(j *Bearer) {
	for _, at := range []struct{ key, value string }{{"header", j.Carrier.Header}, {"cookie", j.Carrier.Cookie}, {"query", j.Carrier.Query}} {
		if at.value != "" {
			w.line("%s: %s", at.key, quote(at.value))
		}
	}
	w.optionalList("issuer", j.Issuers)
	w.optionalList("audience", j.Audiences)
	w.optionalList("scopes", j.Scopes)
	w.line("optional: %t", j.Optional)
	w.claimsOf(j)
}

// claimsOf writes what claims must be and mean.
func (w *dumper) claimsOf(j *Bearer) {
	for _, at := range []struct{ key, value string }{{"consumer", j.Consumer}, {"tier", j.Tier}, {"tenant", j.Tenant}} {
		if at.value != "" {
			w.line("%s: %s", at.key, quote(at.value))
		}
	}
	if len(j.Claims) > 0 {
		w.block("claims:", func() {
			for _, r := range j.Claims {
				w.line("%s: %s", quote(r.Claim), quoteList(r.Values))
			}
		})
	}
	w.line("hide_credentials: %t", j.Hide)
	if len(j.Headers) > 0 {
		w.block("headers:", func() {
			for _, h := range j.Headers {
				w.line("%s: %s", quote(h.Header), quote(h.Claim))
			}
		})
	}
}
