package jwt

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func TestParseSet(t *testing.T) {
	f := func(what, set string, want int, wrong string) {
		t.Helper()
		s, err := ParseSet([]byte(`{"keys":[` + set + `]}`))
		if wrong != "" {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: %v, want %s", what, err, wrong)
			}
			return
		}
		if err != nil || s.Len() != want {
			t.Errorf("%s: %v keys, %v, want %d", what, s, err, want)
		}
	}
	n, small := b64(append([]byte{0x80}, make([]byte, 255)...)), b64(append([]byte{0x80}, make([]byte, 127)...))
	// The point of RFC 7515, A.3.
	const ec = `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	f("RSA", `{"kty":"RSA","n":"`+n+`","e":"AQAB"}`, 1, "")
	f("EC", `{`+ec+`}`, 1, "")
	f("EC for another algorithm", `{`+ec+`},{`+ec+`,"alg":"RS256"}`, 1, "")
	f("EC to encrypt", `{`+ec+`},{`+ec+`,"use":"enc"},{`+ec+`,"key_ops":["sign"]}`, 1, "")
	f("Ed25519", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, 1, "")
	f("another curve", `{`+ec+`},{"kty":"EC","crv":"secp256k1","x":"x","y":"y"},{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, 1, "")
	f("a secret", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`, 0, "no key for signatures")
	f("RSA of 1024 bits", `{"kty":"RSA","n":"`+small+`","e":"AQAB"}`, 0, "2048 to 8192")
	f("RSA, exponent 1", `{"kty":"RSA","n":"`+n+`","e":"AQ"}`, 0, "odd exponent")
	f("RSA, a long exponent", `{"kty":"RSA","n":"`+n+`","e":"`+b64(make([]byte, 9))+`"}`, 0, "odd exponent")
	f("not on the curve", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}`, 0, "not on curve")
	f("Ed25519, short", `{"kty":"OKP","crv":"Ed25519","x":"AQAB"}`, 0, "curve")
	f("too many", strings.Repeat(`{},`, maxKeys)+`{}`, 0, "more than 1000")
	f("none", ``, 0, "no key for signatures")
	if _, err := ParseSet([]byte(`[]`)); err == nil {
		t.Error("a list is no set")
	}
	if _, err := Secret(make([]byte, 31)); err == nil {
		t.Error("a secret of 31 bytes")
	}
	if _, err := ParsePEM([]byte("x")); err == nil {
		t.Error("no PEM")
	}
}

// BenchmarkVerify is a token that was not seen before; BenchmarkSignature the part of it that crypto/rsa has.
func BenchmarkVerify(b *testing.B) {
	p, d, text, _, _ := signed(b)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.verify(text, p.keys.Current(), d, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignature(b *testing.B) {
	_, _, text, public, sig := signed(b)
	part := []byte(text[:strings.LastIndexByte(text, '.')])
	for b.Loop() {
		sum := sha256.Sum256(part)
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig); err != nil {
			b.Fatal(err)
		}
	}
}

func signed(b testing.TB) (*Policy, *core.Directory, string, *rsa.PublicKey, []byte) {
	b.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	set, err := ParseSet([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"` + b64(k.N.Bytes()) + `","e":"` + b64(big.NewInt(int64(k.E)).Bytes()) + `"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	part := b64([]byte(`{"alg":"RS256","kid":"a"}`)) + "." + b64([]byte(`{"sub":"user","aud":"api","iss":"https://id.test","exp":99999999999,"scope":"read"}`))
	sum := sha256.Sum256([]byte(part))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	d, _ := core.NewDirectory(nil)
	p := New(Spec{Bearer: core.Bearer{ClaimRules: core.ClaimRules{Issuers: []string{"https://id.test"}, Audiences: []string{"api"}}}, CacheFor: time.Minute}, Fixed{set}, core.NewConsumers(d), 1)
	return p, d, part + "." + b64(sig), &k.PublicKey, sig
}
