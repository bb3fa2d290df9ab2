package config

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// HMAC lets requests pass that a consumer has signed (RFC 9421), with a shared secret or a private key.
type HMAC struct {
	Require  []string      // components that must be signed; @method, @authority, @path and @query
	MaxAge   time.Duration // of a signature; 5m, 1s..24h
	Skew     time.Duration // by which clocks may differ; 30s, 0..10m
	Nonce    bool          // each signature must have a nonce, which counts once; false: it counts once if it is there
	Tag      string        // that a signature must have; "": any
	Body     int           // bytes of a body, whose digest (RFC 9530) must be signed and right; 0: bodies are not looked at; 1MiB, 0..16MiB
	Optional bool          // a request without a signature passes too, with a wrong one it does not; false
}

// SigningKey is a key that a consumer signs with.
type SigningKey struct {
	ID     string
	Secret Secret // shared, of hmac-sha256; at least 32 bytes
	Public Secret // in PEM: RSA (rsa-pss-sha512), P-256 (ecdsa-p256-sha256) or Ed25519
}

const (
	hmacKeys       = "require max_age skew nonce tag body optional"
	maxSignedBody  = 16 << 20
	maxKeyIDBytes  = 256
	hmacComponents = "@method @target-uri @authority @scheme @request-target @path @query"
)

func (d *decoder) hmac(key string, n ast.Node) *HMAC {
	h := &HMAC{Require: []string{"@method", "@authority", "@path", "@query"}, MaxAge: 5 * time.Minute, Skew: 30 * time.Second, Body: 1 << 20}
	if n = d.resolve(n); n == nil {
		return h
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
		return h
	}
	d.mapping(key, n, hmacKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "require":
			h.Require = nil
			d.list(key, v, func(v ast.Node) { d.signedComponent(key, v, h) })
		case "max_age":
			d.duration(key, v, time.Second, &h.MaxAge)
		case "skew":
			d.durationUpTo(key, v, 0, maxLeeway, &h.Skew)
		case "nonce":
			d.boolean(key, v, &h.Nonce)
		case "tag":
			d.clientText(key, v, &h.Tag)
		case "body":
			d.sizeInt(key, v, 0, maxSignedBody, &h.Body)
		case "optional":
			d.boolean(key, v, &h.Optional)
		default:
			return false
		}
		return true
	})
	return h
}

// signedComponent reads the name of a derived component, or of a field in lower case.
func (d *decoder) signedComponent(key string, n ast.Node, h *HMAC) {
	var s string
	switch {
	case !d.text(key, n, &s):
	case strings.HasPrefix(s, "@") && !strings.Contains(" "+hmacComponents+" ", " "+s+" "):
		d.problem(n, "one of "+strings.ReplaceAll(hmacComponents, " ", ", ")+", or a field in lower case", "no component of a request is called %q", clip(s))
	case !strings.HasPrefix(s, "@") && (!isToken(s) || strings.ToLower(s) != s):
		d.problem(n, "write "+strings.ToLower(clip(s)), "%q is no field in lower case", clip(s))
	case d.room(key, n, len(h.Require)):
		h.Require = append(h.Require, s)
	}
}

// signingKey reads one key of a consumer.
func (d *decoder) signingKey(key string, n ast.Node, c *Consumer) {
	var k SigningKey
	before := d.errors
	ok := d.mapping(key, n, "id secret key", func(key string, _, v ast.Node) bool {
		switch key {
		case "id":
			d.clientText(key, v, &k.ID)
		case "secret":
			d.referred(key, v, minJWTSecret, maxJWTSecret, &k.Secret)
		case "key":
			if d.referred(key, v, 1, maxPublicKey, &k.Public) {
				if _, err := k.Value(); err != nil {
					d.problem(v, "", "cannot use %q: %s", key, err)
				}
			}
		default:
			return false
		}
		return true
	})
	switch secret, public := k.Secret.Reveal() != "", k.Public.Reveal() != ""; {
	case !ok || d.errors > before:
	case k.ID == "":
		d.problem(n, "add id: NAME", "a key for signatures has no %q", "id")
	case secret == public:
		d.problem(n, "", "a key for signatures is either a %q or a public %q", "secret", "key")
	case len(c.Signatures) == maxCredentials:
		d.problem(n, "", "a consumer has at most %d keys for signatures", maxCredentials)
	default:
		c.Signatures = append(c.Signatures, k)
	}
}

// Value is the key: []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func (k *SigningKey) Value() (any, error) {
	text := k.Public.Reveal()
	if text == "" {
		return []byte(k.Secret.Reveal()), nil
	}
	wrong := fmt.Errorf("this is no public key in PEM: RSA of 2048 to 8192 bits, P-256 or Ed25519")
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, wrong
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, wrong
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= 2048 && bits <= 8192 && k.E >= 3 && k.E%2 == 1 {
			return k, nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	case ed25519.PublicKey:
		return k, nil
	}
	return nil, wrong
}

func (w *dumper) hmac(h *HMAC) {
	w.block("hmac:", func() {
		w.line("require: %s", quoteList(h.Require))
		w.line("max_age: %s", formatDuration(h.MaxAge))
		w.line("skew: %s", formatDuration(h.Skew))
		w.line("nonce: %t", h.Nonce)
		if h.Tag != "" {
			w.line("tag: %s", quote(h.Tag))
		}
		w.line("body: %s", formatSize(int64(h.Body)))
		w.line("optional: %t", h.Optional)
	})
}

func (w *dumper) signingKeys(all []SigningKey) {
	if len(all) == 0 {
		return
	}
	w.block("signatures:", func() {
		for i := range all {
			kind := "secret"
			if all[i].Public.Reveal() != "" {
				kind = "key"
			}
			w.line("- { id: %s, %s: %s }", quote(all[i].ID), kind, quote(redacted))
		}
	})
}
