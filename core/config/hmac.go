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

// HMAC lets requests pass that a consumer has signed, with a shared secret or a private key: by RFC 9421, or as AWS has it.
type HMAC struct {
	Require  []string      // components that must be signed; @method, @authority, @path and @query
	MaxAge   time.Duration // of a signature; 5m, 1s..24h
	Skew     time.Duration // by which clocks may differ; 30s, 0..10m
	Nonce    bool          // each signature must have a nonce, which counts once; false: it counts once if it is there
	Tag      string        // that a signature must have; "": any
	Body     int           // bytes of a body, whose digest (RFC 9530) must be signed and right; 0: bodies are not looked at; 1MiB, 0..16MiB
	Hide     bool          // the upstream does not get the signature; true
	Optional bool          // a request without a signature passes too, with a wrong one it does not; false
	AWS4     *AWS4         // nil: the scheme is rfc9421
}

// AWS4 is what the scheme aws4 (AWS Signature Version 4, AWS4-HMAC-SHA256) has besides: Require has fields alone, Nonce and Tag are of no use, and the keys
// are secrets.
type AWS4 struct {
	Region, Service string        // that signatures must be made for
	Presigned       time.Duration // that a signature in the query may be good for at most; 0: none is looked for there; 0, 0..168h
}

// SigningKey is a key that a consumer signs with.
type SigningKey struct {
	ID     string
	Secret Secret // shared, of hmac-sha256; at least 32 bytes
	Public Secret // in PEM: RSA (rsa-pss-sha512), P-256 (ecdsa-p256-sha256) or Ed25519
}

const (
	hmacKeys       = "scheme region service presigned hide require max_age skew nonce tag body optional"
	maxPresigned   = 168 * time.Hour
	maxSignedBody  = 16 << 20
	maxKeyIDBytes  = 256
	hmacComponents = "@method @target-uri @authority @scheme @request-target @path @query"
)

func (d *decoder) hmac(key string, n ast.Node) *HMAC {
	h := &HMAC{Require: []string{"@method", "@authority", "@path", "@query"}, MaxAge: 5 * time.Minute, Skew: 30 * time.Second, Body: 1 << 20, Hide: true}
	scheme, aws, given := "rfc9421", &AWS4{}, map[string]ast.Node{}
	if n = d.resolve(n); n == nil {
		return h
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
		return h
	}
	d.mapping(key, n, hmacKeys, func(key string, k, v ast.Node) bool {
		given[key] = k
		switch key {
		case "scheme":
			d.word(key, v, "rfc9421 aws4", &scheme)
		case "region":
			d.scopeText(key, v, &aws.Region)
		case "service":
			d.scopeText(key, v, &aws.Service)
		case "presigned":
			d.durationUpTo(key, v, 0, maxPresigned, &aws.Presigned)
		case "hide":
			d.boolean(key, v, &h.Hide)
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
	if scheme == "aws4" {
		h.AWS4 = aws
	}
	d.hmacScheme(key, n, h, given)
	return h
}

// hmacScheme refuses what the other scheme has, and wants what this one needs.
func (d *decoder) hmacScheme(key string, n ast.Node, h *HMAC, given map[string]ast.Node) {
	wrong, scheme := strings.Fields("region service presigned"), "aws4"
	if h.AWS4 != nil {
		wrong, scheme = strings.Fields("nonce tag"), "rfc9421"
		if given["region"] == nil || given["service"] == nil {
			d.problem(n, "add region: REGION and service: SERVICE, as clients sign for", "%q needs %q and %q with scheme aws4", key, "region", "service")
		}
		if given["require"] == nil {
			h.Require = nil
		}
		for _, name := range h.Require {
			if strings.HasPrefix(name, "@") {
				d.problem(given["require"], "fields in lower case", "scheme aws4 signs no %q by name: method, path and query always, and fields", name)
			}
		}
	}
	for _, other := range wrong {
		if at := given[other]; at != nil {
			d.problem(at, "", "%q is of scheme %s", other, scheme)
		}
	}
}

// scopeText reads a part of what a signature is made for.
func (d *decoder) scopeText(key string, n ast.Node, to *string) {
	var s string
	if d.clientText(key, n, &s); strings.ContainsAny(s, "/, ") {
		d.problem(n, "", "%q stands between slashes, and has none", key)
		return
	}
	*to = s
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
		if a := h.AWS4; a != nil {
			w.line("scheme: aws4")
			w.line("region: %s", quote(a.Region))
			w.line("service: %s", quote(a.Service))
			w.line("presigned: %s", formatDuration(a.Presigned))
		}
		w.line("require: %s", quoteList(h.Require))
		w.line("max_age: %s", formatDuration(h.MaxAge))
		w.line("skew: %s", formatDuration(h.Skew))
		if h.AWS4 == nil {
			w.line("nonce: %t", h.Nonce)
		}
		if h.Tag != "" {
			w.line("tag: %s", quote(h.Tag))
		}
		w.line("body: %s", formatSize(int64(h.Body)))
		w.line("hide: %t", h.Hide)
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
