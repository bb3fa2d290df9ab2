package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strconv"

	gojwt "github.com/golang-jwt/jwt/v5"
)

// KeySet is keys that tokens may be signed with. Immutable.
type KeySet struct{ keys []key }

// key is one key, with the algorithms that it may be used with: those of its type, so that a public RSA key never serves as the
// secret of an HMAC.
type key struct {
	id         string // "": it fits any
	issuer     string // whose tokens it is for; "": anybody's
	algorithms []string
	public     any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, or []byte of a secret
}

const (
	maxKeys    = 1000
	minRSABits = 2048
	maxRSABits = 8192
)

var (
	errKeys    = errors.New("more than 1000 keys")
	errSecret  = errors.New("a secret has at least 32 bytes (RFC 7518, 3.2)")
	errRSABits = errors.New("an RSA key has from 2048 to 8192 bits, and an odd exponent from 3 on")
	errCurve   = errors.New("the curve of a key is P-256, P-384, P-521 or Ed25519")
	errPEM     = errors.New("this is no public key or certificate in PEM")
	errNone    = errors.New("there is no key for signatures in it")
)

// NewKeySet joins sets of at most a thousand keys together.
func NewKeySet(sets ...*KeySet) (*KeySet, error) {
	all := Join(sets...)
	if len(all.keys) > maxKeys {
		return nil, errKeys
	}
	return all, nil
}

// Join gives the keys of all sets.
func Join(sets ...*KeySet) *KeySet {
	all := &KeySet{}
	for _, s := range sets {
		all.keys = append(all.keys, s.keys...)
	}
	return all
}

// For gives the same keys, for the tokens of one issuer alone; "": of any.
func (s *KeySet) For(issuer string) *KeySet {
	of := &KeySet{keys: slices.Clone(s.keys)}
	for i := range of.keys {
		of.keys[i].issuer = issuer
	}
	return of
}

// Len is the number of keys.
func (s *KeySet) Len() int { return len(s.keys) }

// IDs gives the ids of the keys that have one, sorted.
func (s *KeySet) IDs() (ids []string) {
	for i := range s.keys {
		if id := s.keys[i].id; id != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// has says whether a key of that id may be in s, for tokens of that issuer.
func (s *KeySet) has(issuer, id string) bool {
	return slices.ContainsFunc(s.keys, func(k key) bool {
		return (k.issuer == "" || k.issuer == issuer) && (id == "" || k.id == "" || k.id == id)
	})
}

// Secret gives the set of one shared secret.
func Secret(secret []byte) (*KeySet, error) {
	if len(secret) < 32 {
		return nil, errSecret
	}
	k := key{algorithms: []string{"HS256"}, public: slices.Clone(secret)}
	if len(secret) >= 48 {
		k.algorithms = append(k.algorithms, "HS384")
	}
	if len(secret) >= 64 {
		k.algorithms = append(k.algorithms, "HS512")
	}
	return NewKeySet(&KeySet{keys: []key{k}})
}

// ParsePEM reads one public key, or the one of a certificate.
func ParsePEM(text []byte) (*KeySet, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errPEM
	}
	var public any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = c.PublicKey
		}
	default:
		err = errPEM
	}
	if err != nil {
		return nil, err
	}
	k := key{public: public}
	if k.algorithms, err = algorithmsOf(public); err != nil {
		return nil, err
	}
	return NewKeySet(&KeySet{keys: []key{k}})
}

// algorithmsOf are those of a public key's type (RFC 7518, 3.1; RFC 8037).
func algorithmsOf(public any) ([]string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits || k.E < 3 || k.E%2 == 0 {
			return nil, errRSABits
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return []string{"ES256"}, nil
		case elliptic.P384():
			return []string{"ES384"}, nil
		case elliptic.P521():
			return []string{"ES512"}, nil
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, errCurve
}

// jwk is a key as a set of keys has it (RFC 7517). Certificates in it are not looked at.
type jwk struct {
	Type       string   `json:"kty"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	ID         string   `json:"kid"`
	Curve      string   `json:"crv"`
	N          string   `json:"n"`
	E          string   `json:"e"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
}

// ParseSet reads a set of keys (RFC 7517). Keys that are for something else, or of a type that is not known, are passed over; so are
// secrets, which a set that others can read cannot hold. One that is of use but wrong spoils the set.
func ParseSet(text []byte) (*KeySet, error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, errKeys
	}
	all := &KeySet{}
	for i := range set.Keys {
		j := &set.Keys[i]
		if j.Use != "" && j.Use != "sig" || len(j.Operations) > 0 && !slices.Contains(j.Operations, "verify") {
			continue
		}
		k, known, err := j.key()
		if err != nil {
			return nil, errors.New("key " + strconv.Quote(j.ID[:min(len(j.ID), maxKeyID)]) + ": " + err.Error())
		}
		if known {
			all.keys = append(all.keys, k)
		}
	}
	if len(all.keys) == 0 {
		return nil, errNone
	}
	return NewKeySet(all)
}

func (j *jwk) key() (k key, known bool, err error) {
	k.id = j.ID
	switch j.Type {
	case "RSA":
		n, ok := decode(j.N)
		e, also := decode(j.E)
		if !ok || !also || len(n) > maxRSABits/8 || len(e) > 4 {
			return k, false, errRSABits
		}
		k.public = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	case "EC":
		var curve elliptic.Curve
		switch j.Curve {
		case "P-256":
			curve = elliptic.P256()
		case "P-384":
			curve = elliptic.P384()
		case "P-521":
			curve = elliptic.P521()
		default:
			return k, false, nil
		}
		x, ok := decode(j.X)
		y, also := decode(j.Y)
		if !ok || !also {
			return k, false, errCurve
		}
		if k.public, err = ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)); err != nil {
			return k, false, err
		}
	case "OKP":
		x, ok := decode(j.X)
		if j.Curve != "Ed25519" {
			return k, false, nil
		}
		if !ok || len(x) != ed25519.PublicKeySize {
			return k, false, errCurve
		}
		k.public = ed25519.PublicKey(x)
	default:
		return k, false, nil
	}
	if k.algorithms, err = algorithmsOf(k.public); err != nil {
		return k, false, err
	}
	if j.Algorithm != "" {
		if !slices.Contains(k.algorithms, j.Algorithm) {
			return k, false, nil
		}
		k.algorithms = []string{j.Algorithm}
	}
	return k, true, nil
}

// method gives the verification of an algorithm, nil for one that is not known. The salt of RSA-PSS is as long as the hash (RFC 7518, 3.5).
func method(alg string) gojwt.SigningMethod {
	pss := func(m *gojwt.SigningMethodRSAPSS) gojwt.SigningMethod {
		return &gojwt.SigningMethodRSAPSS{SigningMethodRSA: m.SigningMethodRSA, Options: m.Options,
			VerifyOptions: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}}
	}
	switch alg {
	case "HS256":
		return gojwt.SigningMethodHS256
	case "HS384":
		return gojwt.SigningMethodHS384
	case "HS512":
		return gojwt.SigningMethodHS512
	case "RS256":
		return gojwt.SigningMethodRS256
	case "RS384":
		return gojwt.SigningMethodRS384
	case "RS512":
		return gojwt.SigningMethodRS512
	case "PS256":
		return pss(gojwt.SigningMethodPS256)
	case "PS384":
		return pss(gojwt.SigningMethodPS384)
	case "PS512":
		return pss(gojwt.SigningMethodPS512)
	case "ES256":
		return gojwt.SigningMethodES256
	case "ES384":
		return gojwt.SigningMethodES384
	case "ES512":
		return gojwt.SigningMethodES512
	case "EdDSA":
		return gojwt.SigningMethodEdDSA
	}
	return nil
}
