package config

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// jwtTrust reads whose tokens and which are believed, beside the keys.
func (d *decoder) jwtTrust(key string, n ast.Node, j *JWT) {
	switch key {
	case "key_claim":
		if d.text(key, n, &j.KeyClaim) {
			d.claimName(n, j.KeyClaim)
		}
	case "typ":
		d.list(key, n, func(v ast.Node) {
			var s string
			switch {
			case !d.text(key, v, &s):
			case s == "" || len(s) > maxClaimBytes || hasControl(s):
				d.problem(v, "write at+jwt, or JWT", "no token has the type %q", clip(s))
			case d.room(key, v, len(j.Types)):
				j.Types = append(j.Types, strings.TrimPrefix(strings.ToLower(s), "application/"))
			}
		})
	case "issuers":
		d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
			from := IssuerKeys{Issuer: name}
			switch {
			case name == "" || len(name) > maxClaimBytes || hasControl(name):
				d.problem(k, "", "no issuer has the name %q", clip(name))
			case !d.jwks(name, v, &from.JWKS) || from.JWKS == discoverKeys && !d.discoverable(k, name):
			case d.room(key, k, len(j.Sources)):
				j.Sources = append(j.Sources, from)
			}
			return true
		})
	}
}

// discoverKeys stands for the place that an issuer names.
const discoverKeys = "discover"

// jwks reads discover, file:/path or a URL.
func (d *decoder) jwks(key string, n ast.Node, to *string) bool {
	var s string
	if !d.text(key, n, &s) {
		return false
	}
	if path, file := strings.CutPrefix(s, "file:"); file {
		if !strings.HasPrefix(path, "/") {
			d.problem(n, "write file:/path", "the path of a reference must be absolute, not %q", clip(path))
			return false
		}
	} else if s != discoverKeys {
		switch err := CheckKeysURL(s); err {
		case nil:
		case errKeysPlain:
			d.problem(n, "write https://", "keys that come unencrypted could be anybody's")
			return false
		default:
			d.problem(n, "write https://host/path or file:/path", "%q is no place for keys", clip(s))
			return false
		}
	}
	*to = s
	return true
}

var (
	errKeysURL   = errors.New("this is no URL of keys")
	errKeysPlain = errors.New("keys that come unencrypted could be anybody's")
)

// CheckKeysURL judges a URL that keys come from. Keys that somebody on the way could replace are no keys, so it is https, but on this
// host.
func CheckKeysURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Fragment != "" || len(s) > maxPathBytes {
		return errKeysURL
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !a.IsLoopback()) {
		return errKeysPlain
	}
	return nil
}

// discoverable refuses an issuer that cannot be asked where its keys are: it is a URL without a query (OpenID Connect Discovery 1.0, 3).
func (d *decoder) discoverable(n ast.Node, issuer string) bool {
	if CheckKeysURL(issuer) != nil || strings.Contains(issuer, "?") {
		d.problem(n, "write the URL of its keys", "issuer %q cannot be asked for its keys: it is no https:// URL", clip(issuer))
		return false
	}
	return true
}

// jwtWhole judges what only the whole tells.
func (d *decoder) jwtWhole(n ast.Node, j *JWT) {
	secret := j.Secret.Reveal() != ""
	public := j.JWKS != "" || len(j.Keys)+len(j.Sources) > 0
	if len(j.Sources) > 0 && (secret || j.JWKS != "" || len(j.Keys)+len(j.Issuers) > 0) {
		d.problem(n, "", "%q has keys for each issuer already, and so no %q, %q, %q or %q", "issuers", "issuer", "jwks", "keys", "secret")
	}
	if j.JWKS == discoverKeys {
		for _, name := range j.Issuers {
			d.discoverable(n, name)
		}
		if len(j.Issuers) == 0 {
			d.problem(n, "issuer: https://...", "%q finds keys only if an %q is named", "jwks: discover", "issuer")
		}
	}
	if !secret && !public {
		d.problem(n, "jwks: https://..., or file:/path; keys: [file:/path.pem]; or secret: env:NAME", "%q has no keys to verify tokens with", "jwt")
	}
	for _, a := range j.Algorithms {
		if hmac := strings.HasPrefix(a, "HS"); hmac && !secret || !hmac && !public {
			d.problem(n, "", "no key is for algorithm %q", a)
		}
	}
	if len(j.Issuers)+len(j.Sources) == 0 && len(j.Audiences) == 0 {
		d.warnAt(d.at(n), "audience: NAME", "%q accepts every token of these keys, for whomever it was made", "jwt")
	}
}

func (w *dumper) jwt(j *JWT) {
	w.block("jwt:", func() {
		w.bearer(&j.Bearer)
		if j.JWKS != "" {
			w.line("jwks: %s", w.url(j.JWKS))
		}
		for _, at := range []struct{ key, value string }{{"secret", j.Secret.String()}, {"key_claim", j.KeyClaim}} {
			if at.value != "" {
				w.line("%s: %s", at.key, quote(at.value))
			}
		}
		var keys []string
		for range j.Keys {
			keys = append(keys, redacted)
		}
		w.optionalList("keys", keys)
		if len(j.Sources) > 0 {
			w.block("issuers:", func() {
				for _, s := range j.Sources {
					w.line("%s: %s", quote(s.Issuer), w.url(s.JWKS))
				}
			})
		}
		w.optionalList("algorithms", j.Algorithms)
		w.optionalList("typ", j.Types)
		w.line("leeway: %s", formatDuration(j.Leeway))
		w.line("cache: %s", formatDuration(j.Cache))
		w.line("stale: %s", formatDuration(j.Stale))
		if j.MaximumLifetime > 0 {
			w.line("maximum_lifetime: %s", formatDuration(j.MaximumLifetime))
		}
	})
}
