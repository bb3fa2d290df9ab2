package signing

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

var start = time.Unix(1_800_000_000, 0)

func spec(alg Algorithm, every, life time.Duration, secret string) Spec {
	s := Spec{Algorithm: alg, Every: every, Life: life}
	if secret != "" {
		s.Secret = []byte(secret)
	}
	return s
}

const (
	secretA = "a secret of at least thirty-two bytes"
	secretB = "another secret of thirty-two bytes!!"
)

// TestThumbprint is the example of RFC 8037, A.1 to A.3.
func TestThumbprint(t *testing.T) {
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	k, err := describe(EdDSA, random, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; k.id != want {
		t.Errorf("%q, want %q", k.id, want)
	}
	if !strings.Contains(k.public, `"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`) || strings.Contains(k.public, `"d"`) {
		t.Error(k.public)
	}
	if _, err := describe(ES256, random, k.private); !errors.Is(err, errKeyType) {
		t.Errorf("a key of another type: %v", err)
	}
}

// token is one that was signed, for those who verify it until it ends.
type token struct {
	text string
	ends int64
}

// verifier keeps the published set for as long as it may, as upstreams do, and fetches it at the last moment.
type verifier struct {
	set, cacheControl string
	fetched, age      int64
}

// look takes the set anew if that is due, and says whether it has.
func (v *verifier) look(k *Keys, now int64) (fetched bool, err error) {
	set, cacheControl := k.Current()
	if _, err := fmt.Sscanf(v.cacheControl, "public, max-age=%d", &v.age); v.set != "" && (err != nil || v.age < 1) {
		return false, fmt.Errorf("cache control is %q", v.cacheControl)
	}
	if v.set != "" && now-v.fetched < v.age {
		return false, nil
	}
	v.set, v.cacheControl, v.fetched = set, cacheControl, now
	return true, nil
}

// verify checks a signature by the key of a set that the token names.
func verify(set, text string) error {
	var all struct {
		Keys []struct {
			ID string `json:"kid"`
		}
	}
	if err := json.Unmarshal([]byte(set), &all); err != nil {
		return err
	}
	_, err := gojwt.NewParser(gojwt.WithoutClaimsValidation()).Parse(text, func(t *gojwt.Token) (any, error) {
		for _, k := range all.Keys {
			if k.ID == t.Header["kid"] {
				return publicOf(set, k.ID)
			}
		}
		return nil, fmt.Errorf("key %q is not published", t.Header["kid"])
	})
	if err != nil {
		return err
	}
	_, err = jwt.ParseSet([]byte(set)) // what verifies the tokens of others reads it, too
	return err
}

// life is a gateway's life: keys that rotate, are configured anew, and move to other processes.
type life struct {
	t       *testing.T
	keys    *Keys
	spec    Spec
	now     int64
	tokens  []token
	holders []*verifier
	signers map[string]bool
}

func (l *life) turn() {
	l.t.Helper()
	if _, err := l.keys.Rotate(time.Unix(l.now, 0)); err != nil {
		l.t.Fatal(err)
	}
	text, err := l.keys.Sign([]byte(`{"sub":"x"}`))
	if err != nil {
		l.t.Fatal(err)
	}
	l.signers[l.keys.current.Load().key.id] = true
	l.tokens = append(l.tokens, token{string(text), l.now + l.spec.life()})
	l.tokens = slices.DeleteFunc(l.tokens, func(one token) bool { return one.ends < l.now })
	for i, v := range l.holders {
		fetched, err := v.look(l.keys, l.now)
		if err != nil {
			l.t.Fatal(err)
		}
		of := l.tokens
		if !fetched {
			of = of[len(of)-1:] // it has seen the others, by this set
		}
		for _, one := range of {
			if err := verify(v.set, one.text); err != nil {
				l.t.Fatalf("verifier %d at %d: %v\n%+v", i, l.now-start.Unix(), err, l.keys.Status(time.Unix(l.now, 0)))
			}
		}
	}
	if n := len(l.keys.all); n > maxKeys {
		l.t.Fatalf("%d keys", n)
	}
}

// TestTokensVerify: whatever becomes of the keys, a token is verified until it ends, by whoever keeps the published set as long as it may be
// kept.
func TestTokensVerify(t *testing.T) {
	specs := []Spec{
		spec(ES256, time.Minute, 10*time.Second, ""), spec(ES256, 10*time.Minute, time.Minute, ""), spec(EdDSA, time.Minute, time.Minute, ""),
		spec(ES256, 5*time.Minute, time.Minute, secretA), spec(ES256, 5*time.Minute, 20*time.Second, secretB), spec(EdDSA, time.Minute, 5*time.Minute, secretA),
	}
	signers := 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := &life{t: t, spec: specs[r.IntN(len(specs))], now: start.Unix(), signers: map[string]bool{}, holders: []*verifier{{}, {}, {}}}
		var err error
		if l.keys, err = New(l.spec, start); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			l.now += 1 + r.Int64N(7)
			for i, v := range l.holders {
				if i > 0 && r.IntN(5*i) == 0 {
					v.set = "" // one that asks more often
				}
			}
			switch r.IntN(40) {
			case 0, 1:
				l.spec = specs[r.IntN(len(specs))]
				if err := l.keys.Configure(l.spec, time.Unix(l.now, 0)); err != nil {
					t.Fatal(err)
				}
			case 2:
				l.upgrade(specs[r.IntN(len(specs))])
			case 3:
				l.upgrade(l.spec)
			}
			l.turn()
		}
		signers += len(l.signers)
	}
	if signers < 30 {
		t.Errorf("%d keys have signed", signers)
	}
}

// upgrade goes on in another process, with a configuration that may be another.
func (l *life) upgrade(s Spec) {
	l.t.Helper()
	kept, err := l.keys.Export(time.Unix(l.now, 0))
	if err != nil {
		l.t.Fatal(err)
	}
	body, _ := json.Marshal(kept)
	before := l.keys.current.Load().key.id
	same := s.sameKeys(&l.spec)
	if l.keys, err = New(s, time.Unix(l.now, 0)); err != nil {
		l.t.Fatal(err)
	}
	var read Kept
	if err := json.Unmarshal(body, &read); err != nil {
		l.t.Fatal(err)
	}
	if err := l.keys.Import(read, time.Unix(l.now, 0)); err != nil {
		l.t.Fatal(err)
	}
	l.spec = s
	if after := l.keys.current.Load().key.id; same && after != before && l.keys.spec.Secret == nil {
		l.t.Fatalf("%d: another process signs with %q, not %q", l.now-start.Unix(), after, before)
	}
}

// TestSharedKeys: who has the same secret has the same keys at the same time, and verifies what others sign whose clocks differ.
func TestSharedKeys(t *testing.T) {
	for _, alg := range []Algorithm{ES256, EdDSA} {
		for at := int64(0); at < 300; at += 7 {
			a, err := New(spec(alg, time.Minute, 10*time.Second, secretA), start.Add(time.Duration(at)*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			b, err := New(spec(alg, time.Minute, 10*time.Second, secretA), start.Add(time.Duration(at+20)*time.Second)) // its clock is ahead
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range [][2]*Keys{{a, b}, {b, a}} {
				text, _ := pair[0].Sign([]byte(`{}`))
				set, _ := pair[1].Current()
				if err := verify(set, string(text)); err != nil {
					t.Fatalf("%s, %d: %v", alg, at, err)
				}
			}
		}
		a, _ := New(spec(alg, time.Minute, 10*time.Second, secretA), start)
		for _, other := range []Spec{spec(alg, time.Minute, 10*time.Second, secretB), spec(alg, 2*time.Minute, 10*time.Second, secretA)} {
			b, _ := New(other, start)
			text, _ := b.Sign([]byte(`{}`))
			if set, _ := a.Current(); verify(set, string(text)) == nil {
				t.Errorf("%+v shares a key", other)
			}
		}
	}
}

// TestRotation follows the states of keys through a rotation.
func TestRotation(t *testing.T) {
	k, err := New(spec(ES256, time.Hour, time.Minute, ""), start)
	if err != nil {
		t.Fatal(err)
	}
	f := func(after time.Duration, want string) {
		t.Helper()
		now := start.Add(after)
		if _, err := k.Rotate(now); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range k.Status(now) {
			got = append(got, string(s.State))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("after %s: %s, want %s", after, s, want)
		}
	}
	f(0, "signing next")
	f(time.Hour-time.Second, "signing next")
	first := k.current.Load().key.id
	f(time.Hour, "retired signing next")
	if k.current.Load().key.id == first {
		t.Error("the key has not changed")
	}
	f(time.Hour+2*time.Minute-time.Second, "retired signing next")
	f(time.Hour+2*time.Minute, "signing next")
	f(24*time.Hour, "signing next") // it slept: the next one was published for hours
	f(24*time.Hour+20*time.Minute, "signing next")
	f(-24*time.Hour, "signing next") // the clock was set back
	f(-23*time.Hour, "retired signing next")
}

// TestImportHostile: what cannot be is refused, and the own keys stay.
func TestImportHostile(t *testing.T) {
	fresh := func() (*Keys, Kept) {
		k, err := New(spec(ES256, time.Hour, time.Minute, ""), start)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := k.Export(start)
		if err != nil {
			t.Fatal(err)
		}
		return k, kept
	}
	for name, change := range map[string]func(*Kept){
		"none":              func(k *Kept) { k.Keys = nil },
		"damaged":           func(k *Kept) { k.Keys[0].Private = k.Keys[0].Private[1:] },
		"another algorithm": func(k *Kept) { k.Keys[0].Algorithm = EdDSA },
		"none at all":       func(k *Kept) { k.Keys[0].Algorithm = "none" },
		"the future":        func(k *Kept) { k.Keys[1].From = 1 << 50 },
		"before time":       func(k *Kept) { k.Keys[0].From = -1 },
		"no life":           func(k *Kept) { k.Keys[0].Life = 0 },
		"for ever":          func(k *Kept) { k.Keys[0].Life = 1 << 50 },
		"an epoch":          func(k *Kept) { k.Keys[0].Epoch = -2 },
		"another order":     func(k *Kept) { k.Keys[0], k.Keys[1] = k.Keys[1], k.Keys[0] },
		"an early lead":     func(k *Kept) { k.Lead = -1 },
		"a late lead":       func(k *Kept) { k.Lead = 1 << 50 },
		"too many": func(k *Kept) {
			for len(k.Keys) <= maxKeys {
				k.Keys = append(k.Keys, k.Keys[1])
			}
		},
	} {
		_, kept := fresh()
		change(&kept)
		k, _ := fresh()
		before, _ := k.Current()
		if err := k.Import(kept, start); !errors.Is(err, errKept) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := k.Current(); after != before {
			t.Errorf("%s: the keys are others", name)
		}
	}
}

// TestSpecs refuses what would be unsafe, and changes nothing then.
func TestSpecs(t *testing.T) {
	good, err := New(spec(ES256, time.Hour, time.Minute, ""), start)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := good.Current()
	for _, s := range []Spec{
		spec("none", time.Hour, time.Minute, ""), spec("", time.Hour, time.Minute, ""), spec(ES256, time.Second, time.Minute, ""),
		spec(ES256, 31*24*time.Hour, time.Minute, ""), spec(ES256, time.Hour, 0, ""), spec(ES256, time.Hour, time.Minute, "short"),
	} {
		if _, err := New(s, start); err == nil {
			t.Errorf("%+v is taken", s)
		}
		if err := good.Configure(s, start); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	if after, _ := good.Current(); after != before {
		t.Error("the keys are others")
	}
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range []Algorithm{ES256, EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			k, err := New(spec(alg, time.Hour, time.Minute, ""), start)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := k.Sign([]byte(`{"iss":"gateway","aud":"api","sub":"ann"}`)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// publicOf gives the key of a set by its id.
func publicOf(set, id string) (any, error) {
	var all struct {
		Keys []struct{ Kty, Crv, X, Y, Kid, Alg, Use string }
	}
	if err := json.Unmarshal([]byte(set), &all); err != nil {
		return nil, err
	}
	for _, k := range all.Keys {
		if k.Kid == id {
			return decodeKey(k.Kty, k.Crv, k.X, k.Y)
		}
	}
	return nil, errors.New("no such key")
}

func decodeKey(kty, crv, x, y string) (any, error) {
	xb, err := base64.RawURLEncoding.DecodeString(x)
	yb, err2 := base64.RawURLEncoding.DecodeString(y)
	switch {
	case err != nil || err2 != nil:
		return nil, errors.New("no base64url")
	case kty == "OKP" && crv == "Ed25519":
		return ed25519.PublicKey(xb), nil
	case kty == "EC" && crv == "P-256":
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, xb...), yb...))
	}
	return nil, fmt.Errorf("%s %s", kty, crv)
}
