package hmac

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	stdhmac "crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"math/big"
	"slices"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/sluice-gateway/sluice/core"
)

// signature is one of a request, read but not believed.
type signature struct {
	label            string
	item             httpsfv.Item // that has value
	input            httpsfv.InnerList
	value            []byte
	created, expires int64 // 0: not given
	keyID, alg, tag  string
	nonce            string
	hasNonce         bool
}

// read takes the fields apart (RFC 9421, 4; RFC 9651). Each signature has its input, and each input its signature.
func read(inputs, values []string) ([]signature, bool) {
	n := 0
	for _, list := range [][]string{inputs, values} {
		for _, s := range list {
			n += len(s)
		}
	}
	if n > maxInput {
		return nil, false
	}
	in, err := httpsfv.UnmarshalDictionary(inputs)
	if err != nil {
		return nil, false
	}
	out, err := httpsfv.UnmarshalDictionary(values)
	if err != nil || len(in.Names()) != len(out.Names()) || len(in.Names()) == 0 || len(in.Names()) > maxSignatures {
		return nil, false
	}
	var all []signature
	for _, label := range in.Names() {
		m, _ := in.Get(label)
		list, ok := m.(httpsfv.InnerList)
		v, there := out.Get(label)
		if !ok || !there || len(list.Items) > maxComponents {
			return nil, false
		}
		item, ok := v.(httpsfv.Item)
		if !ok {
			return nil, false
		}
		s := signature{label: label, item: item, input: list}
		if s.value, ok = item.Value.([]byte); !ok || !s.params() {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

// params reads the parameters that mean something (RFC 9421, 2.3). Others are signed like these.
func (s *signature) params() bool {
	for _, name := range s.input.Params.Names() {
		v, _ := s.input.Params.Get(name)
		ok := true
		switch name {
		case "created":
			s.created, ok = v.(int64)
			ok = ok && s.created > 0
		case "expires":
			s.expires, ok = v.(int64)
			ok = ok && s.expires > 0
		case "keyid":
			s.keyID, ok = v.(string)
		case "alg":
			s.alg, ok = v.(string)
		case "tag":
			s.tag, ok = v.(string)
		case "nonce":
			s.nonce, ok = v.(string)
			s.hasNonce = true
		}
		if !ok {
			return false
		}
	}
	return true
}

// verify gives who has signed the request. It runs beside the loop, while nobody else touches x.
func (p *Policy) verify(x *core.Exchange, inputs, values []string, d *core.Directory, now time.Time) (*core.Consumer, *core.Error) {
	all, ok := read(inputs, values)
	if !ok {
		return nil, errMalformed
	}
	failed := errTag
	for i := range all {
		s := &all[i]
		if p.spec.Tag != "" && s.tag != p.spec.Tag {
			continue
		}
		who, err := p.one(x, s, d, now)
		if err == nil {
			return who, nil
		}
		failed = err
	}
	return nil, failed
}

func (p *Policy) one(x *core.Exchange, s *signature, d *core.Directory, now time.Time) (*core.Consumer, *core.Error) {
	signer := d.Signer(s.keyID)
	if signer == nil {
		return nil, errKey
	}
	if s.alg != "" && s.alg != algorithm(signer.Key) {
		return nil, errAlgorithm
	}
	at, skew, age := now.Unix(), int64(p.spec.Skew/time.Second), int64(p.spec.MaxAge/time.Second)
	switch {
	case s.created > at+skew:
		return nil, errEarly
	case s.created < at-age-skew || s.expires != 0 && s.expires < at-skew:
		return nil, errExpired // without created too
	case p.spec.Nonce && s.nonce == "":
		return nil, errNonce
	}
	base, covered, ok := baseOf(x, &s.input)
	if !ok || !p.covers(x, covered) {
		return nil, errComponents
	}
	if !holds(signer.Key, base, s.value) {
		return nil, errWrong
	}
	if s.hasNonce {
		first, full := p.nonces.Use(s.keyID, s.nonce, (s.created+age+skew+1)*int64(time.Second), now.UnixNano())
		switch {
		case full:
			return nil, errBusy
		case !first:
			return nil, errReplay
		}
	}
	return signer.Consumer, nil
}

// covers says whether all that is required is signed: a digest too, where there is a body that is looked at.
func (p *Policy) covers(x *core.Exchange, covered []string) bool {
	for _, name := range p.spec.Require {
		if !slices.Contains(covered, name) {
			return false
		}
	}
	return p.spec.Body == 0 || x.Request.Body == nil || slices.Contains(covered, "content-digest")
}

// algorithm is what keys of a type are used with (RFC 9421, 3.3): one algorithm for each, so that a public key is never a secret.
func algorithm(key any) string {
	switch key.(type) {
	case []byte:
		return "hmac-sha256"
	case ed25519.PublicKey:
		return "ed25519"
	case *ecdsa.PublicKey:
		return "ecdsa-p256-sha256"
	case *rsa.PublicKey:
		return "rsa-pss-sha512"
	}
	return ""
}

func holds(key any, base, value []byte) bool {
	switch k := key.(type) {
	case []byte:
		m := stdhmac.New(sha256.New, k)
		m.Write(base)
		return stdhmac.Equal(m.Sum(nil), value)
	case ed25519.PublicKey:
		return ed25519.Verify(k, base, value)
	case *ecdsa.PublicKey:
		if len(value) != 64 {
			return false
		}
		sum := sha256.Sum256(base)
		return ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(value[:32]), new(big.Int).SetBytes(value[32:]))
	case *rsa.PublicKey:
		sum := sha512.Sum512(base)
		return rsa.VerifyPSS(k, crypto.SHA512, sum[:], value, &rsa.PSSOptions{SaltLength: sha512.Size}) == nil
	}
	return false
}

// matches compares a body with the digests of it that are known (RFC 9530, 2): there is one at least, and all are right.
func matches(fields []string, body []byte) bool {
	digests, err := httpsfv.UnmarshalDictionary(fields)
	if err != nil {
		return false
	}
	known := false
	for _, name := range digests.Names() {
		m, _ := digests.Get(name)
		item, ok := m.(httpsfv.Item)
		if !ok {
			return false
		}
		var sum []byte
		switch name {
		case "sha-256":
			s := sha256.Sum256(body)
			sum = s[:]
		case "sha-512":
			s := sha512.Sum512(body)
			sum = s[:]
		default:
			continue
		}
		said, ok := item.Value.([]byte)
		if !ok || subtle.ConstantTimeCompare(said, sum) != 1 {
			return false
		}
		known = true
	}
	return known
}
