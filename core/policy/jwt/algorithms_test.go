package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hash
	_ "crypto/sha512" // likewise
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// algorithm is one of RFC 7518 (3.1) or RFC 8037, as its definition has it; nothing of it comes from what is tested.
type algorithm struct {
	name string
	kind string // of signature
	hash crypto.Hash
}

func algorithms() []algorithm {
	return []algorithm{
		{"RS256", "PKCS1", crypto.SHA256}, {"RS384", "PKCS1", crypto.SHA384}, {"RS512", "PKCS1", crypto.SHA512},
		{"PS256", "PSS", crypto.SHA256}, {"PS384", "PSS", crypto.SHA384}, {"PS512", "PSS", crypto.SHA512},
		{"ES256", "P-256", crypto.SHA256}, {"ES384", "P-384", crypto.SHA384}, {"ES512", "P-521", crypto.SHA512},
		{"EdDSA", "Ed25519", 0},
		{"HS256", "HMAC", crypto.SHA256}, {"HS384", "HMAC", crypto.SHA384}, {"HS512", "HMAC", crypto.SHA512},
	}
}

// signer has a key of each kind.
type signer struct {
	t      testing.TB
	rsa    *rsa.PrivateKey
	ec     map[string]*ecdsa.PrivateKey
	ed     ed25519.PrivateKey
	secret []byte
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	s := &signer{t: t, ec: map[string]*ecdsa.PrivateKey{}, secret: make([]byte, 64)}
	var err error
	if s.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		if s.ec[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if _, s.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := rand.Read(s.secret); err != nil {
		t.Fatal(err)
	}
	return s
}

// keys are the public ones as a set has them, and the secret.
func (s *signer) keys() *KeySet {
	s.t.Helper()
	all := []string{fmt.Sprintf(`{"kty":"RSA","n":"%s","e":"%s"}`, b64(s.rsa.N.Bytes()), b64(big.NewInt(int64(s.rsa.E)).Bytes())),
		fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":"%s"}`, b64(s.ed.Public().(ed25519.PublicKey)))}
	for _, name := range []string{"P-256", "P-384", "P-521"} {
		point, err := s.ec[name].PublicKey.Bytes()
		if err != nil {
			s.t.Fatal(err)
		}
		half := (len(point) - 1) / 2
		all = append(all, fmt.Sprintf(`{"kty":"EC","crv":"%s","x":"%s","y":"%s"}`, name, b64(point[1:1+half]), b64(point[1+half:])))
	}
	public, err := ParseSet([]byte(`{"keys":[` + strings.Join(all, ",") + `]}`))
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := Secret(s.secret)
	if err != nil {
		s.t.Fatal(err)
	}
	return Join(public, secret)
}

// sign makes a token whose header says alg and whose signature is of this kind, over this hash.
func (s *signer) sign(alg, kind string, hash crypto.Hash) string {
	s.t.Helper()
	text := b64([]byte(`{"alg":"`+alg+`"}`)) + "." + b64([]byte(`{"sub":"user","exp":4000000000}`))
	sum := []byte(text)
	if hash != 0 && kind != "HMAC" {
		h := hash.New()
		h.Write(sum)
		sum = h.Sum(nil)
	}
	var sig []byte
	var err error
	switch kind {
	case "PKCS1":
		sig, err = rsa.SignPKCS1v15(rand.Reader, s.rsa, hash, sum)
	case "PSS", "PSS, long salt":
		o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		if kind != "PSS" {
			o.SaltLength = hash.Size() + 1
		}
		sig, err = rsa.SignPSS(rand.Reader, s.rsa, hash, sum, o)
	case "Ed25519":
		sig, err = s.ed.Sign(rand.Reader, sum, &ed25519.Options{Hash: hash}) // with a hash it is Ed25519ph (RFC 8032, 5.1)
	case "HMAC":
		m := hmac.New(hash.New, s.secret)
		m.Write(sum)
		sig = m.Sum(nil)
	default:
		var a, b *big.Int
		k := s.ec[kind]
		a, b, err = ecdsa.Sign(rand.Reader, k, sum)
		if size := (k.Params().BitSize + 7) / 8; err == nil { // RFC 7518, 3.4: each half is as long as the field, P-521's 66 bytes
			sig = append(a.FillBytes(make([]byte, size)), b.FillBytes(make([]byte, size))...)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// policyOf accepts whatever these keys sign.
func policyOf(t testing.TB, set *KeySet) func(text string) *core.Error {
	t.Helper()
	d, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Spec{}, Fixed{set}, core.NewConsumers(d), 1)
	return func(text string) *core.Error {
		_, _, err := p.verify(text, set, d, time.Unix(1_900_000_000, 0))
		return err
	}
}

// TestAlgorithms: each of the thirteen is verified as it is defined, and as none of the others: not with another key of its kind, another
// hash, or a signature that another algorithm makes with the same keys.
func TestAlgorithms(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	judge := policyOf(t, s.keys())
	f := func(what, text string, want *core.Error) {
		t.Helper()
		if got := judge(text); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	all := algorithms()
	if len(all) != 13 {
		t.Fatalf("%d algorithms", len(all))
	}
	for _, a := range all {
		f(a.name, s.sign(a.name, a.kind, a.hash), nil)
		f(a.name+" of another key", other.sign(a.name, a.kind, a.hash), errSignature)
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if hash != a.hash && (a.kind != "Ed25519" || hash == crypto.SHA512) {
				f(fmt.Sprint(a.name, " over ", hash), s.sign(a.name, a.kind, hash), errSignature)
			}
		}
		if a.kind == "PSS" {
			f(a.name+" with another salt", s.sign(a.name, "PSS, long salt", a.hash), errSignature) // RFC 7518, 3.5
		}
		for _, b := range all {
			if b != a {
				f(a.name+" signed as "+b.name, s.sign(a.name, b.kind, b.hash), errSignature)
			}
		}
	}
	for _, name := range []string{"ES256K", "Ed448", "HS1", "RS1", "rs256", "RS256 ", "NONE", ""} {
		f(name, s.sign(name, "PKCS1", crypto.SHA256), errAlgorithm)
	}
}

// TestAlgorithmOfKey: a key that names its algorithm is for no other, though its type would do; a secret is for none that wants a longer one.
func TestAlgorithmOfKey(t *testing.T) {
	s := newSigner(t)
	all := algorithms()
	for _, k := range s.keys().keys {
		for _, own := range k.algorithms {
			k.algorithms = []string{own}
			judge := policyOf(t, &KeySet{keys: []key{k}})
			for _, a := range all {
				want := errAlgorithm
				if a.name == own {
					want = nil
				}
				if got := judge(s.sign(a.name, a.kind, a.hash)); got != want {
					t.Errorf("%s with a key for %s: %v, want %v", a.name, own, got, want)
				}
			}
		}
	}
	for bytes, want := range map[int][]string{32: {"HS256"}, 47: {"HS256"}, 48: {"HS256", "HS384"}, 63: {"HS256", "HS384"}, 64: {"HS256", "HS384", "HS512"}} {
		set, err := Secret(s.secret[:bytes])
		if err != nil || !slices.Equal(set.keys[0].algorithms, want) {
			t.Errorf("a secret of %d bytes: %v, %v", bytes, set, err)
		}
	}
}
