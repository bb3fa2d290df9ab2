package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	gojwt "github.com/golang-jwt/jwt/v5"
)

// Algorithm is how tokens are signed (RFC 7518, 3.1; RFC 8037, 3.1).
type Algorithm string

const (
	ES256 Algorithm = "ES256"
	EdDSA Algorithm = "EdDSA"
)

// random is the epoch of keys that were not derived.
const random = -1

// key is one key. Immutable.
type key struct {
	alg     Algorithm
	epoch   int64 // of a derived one; else random
	private crypto.Signer
	id      string // its thumbprint (RFC 7638)
	public  string // as JSON (RFC 7517)
	head    string // of the tokens that it signs, encoded and with the dot
}

var errKeyType = errors.New("the key is not of the algorithm's type")

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// newKey makes a random key.
func newKey(alg Algorithm) (*key, error) {
	if alg == EdDSA {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("cannot make a signing key: %w", err)
		}
		return describe(alg, random, private)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a signing key: %w", err)
	}
	return describe(alg, random, private)
}

// deriveKey gives the key of an epoch by HKDF with SHA-256 (RFC 5869). Algorithm and period are part of it: gateways that disagree about them
// share no key by chance.
func deriveKey(s *Spec, epoch int64) (*key, error) {
	// 128 bits more than the order of P-256 has, so that no scalar is likelier than another (FIPS 186-5, A.2.1).
	const bytes = 48
	b, err := hkdf.Key(sha256.New, s.Secret, nil, fmt.Sprintf("sluice token signing key 1, %s every %d s, epoch %d", s.Algorithm, s.every(), epoch), bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot derive a signing key: %w", err)
	}
	if s.Algorithm == EdDSA {
		return describe(s.Algorithm, epoch, ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]))
	}
	one := big.NewInt(1)
	scalar := new(big.Int).SetBytes(b)
	scalar.Mod(scalar, new(big.Int).Sub(elliptic.P256().Params().N, one)).Add(scalar, one)
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar.FillBytes(make([]byte, 32)))
	if err != nil {
		return nil, fmt.Errorf("cannot derive a signing key: %w", err)
	}
	return describe(s.Algorithm, epoch, private)
}

// describe says of a private key what others are told. The members of the thumbprint are in the order of their names (RFC 7638, 3.2).
func describe(alg Algorithm, epoch int64, private crypto.Signer) (*key, error) {
	k := &key{alg: alg, epoch: epoch, private: private}
	var members string
	switch public := private.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil || alg != ES256 || public.Curve != elliptic.P256() {
			return nil, errKeyType
		}
		members = fmt.Sprintf(`"crv":"P-256","kty":"EC","x":"%s","y":"%s"`, encode(point[1:33]), encode(point[33:]))
	case ed25519.PublicKey:
		if alg != EdDSA {
			return nil, errKeyType
		}
		members = fmt.Sprintf(`"crv":"Ed25519","kty":"OKP","x":"%s"`, encode(public))
	default:
		return nil, errKeyType
	}
	sum := sha256.Sum256([]byte("{" + members + "}"))
	k.id = encode(sum[:])
	k.public = fmt.Sprintf(`{%s,"alg":"%s","use":"sig","kid":"%s"}`, members, alg, k.id)
	k.head = encode(fmt.Appendf(nil, `{"alg":"%s","typ":"JWT","kid":"%s"}`, alg, k.id)) + "."
	return k, nil
}

// Sign gives the token with this payload (RFC 7515, 7.1), signed by the key in force. It takes some 20 to 50 us of CPU: not on a loop.
func (k *Keys) Sign(payload []byte) (token []byte, err error) {
	key := k.current.Load().key
	signed := key.head + encode(payload)
	var method gojwt.SigningMethod = gojwt.SigningMethodES256
	if key.alg == EdDSA {
		method = gojwt.SigningMethodEdDSA
	}
	signature, err := method.Sign(signed, key.private)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a token: %w", err)
	}
	token = make([]byte, 0, len(signed)+1+base64.RawURLEncoding.EncodedLen(len(signature)))
	token = append(append(token, signed...), '.')
	return base64.RawURLEncoding.AppendEncode(token, signature), nil
}
