package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// attempt is one login that was begun. Nothing of it is kept here: the state that comes back with the browser is all of it, sealed for
// just this browser, policy and redirect URI. So there may be any number, in several tabs of one browser too.
type attempt struct {
	id   [attemptBytes]byte
	at   int64  // when it began, as Unix time in nanoseconds
	link string // where it leads to
	by   int    // with which secret of the sealer
}

const (
	attemptBytes = 16
	attemptLife  = 10 * time.Minute
	// maxLink bounds where a login leads to; a longer one leads to the root.
	maxLink  = 2048
	maxState = 2 * (maxLink + 64)
)

// Sealer seals attempts. It is immutable, and any goroutine may use it.
type Sealer struct{ with []sealing }

// sealing is what one secret gives.
type sealing struct {
	aead   cipher.AEAD
	secret []byte // verifiers and nonces are derived from it
}

// SecretBytes is the length of a sealer's secret.
const SecretBytes = 32

var errSecret = errors.New("the secret of logins has 32 bytes")

// NewSealer makes one of secrets: the first seals, all open.
func NewSealer(secrets ...[]byte) (*Sealer, error) {
	s := &Sealer{}
	for _, secret := range secrets {
		if len(secret) != SecretBytes {
			return nil, errSecret
		}
		derive := func(what string) []byte {
			m := hmac.New(sha256.New, secret)
			m.Write([]byte(what))
			return m.Sum(nil)
		}
		block, err := aes.NewCipher(derive("state"))
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		s.with = append(s.with, sealing{aead, derive("attempt")})
	}
	if len(s.with) == 0 {
		return nil, errSecret
	}
	return s, nil
}

// bound is what a state is good with alone.
func bound(policy, browser, redirectURI string) []byte {
	return []byte(policy + "\x00" + browser + "\x00" + redirectURI)
}

// seal gives the state of an attempt.
func (s *Sealer) seal(a *attempt, bound []byte) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(a.at))
	b = append(append(b, a.id[:]...), a.link...)
	return base64.RawURLEncoding.EncodeToString(s.with[a.by].aead.Seal(nil, nil, b, bound))
}

// open gives the attempt of a state; false: it is none of this browser's.
func (s *Sealer) open(state, bound []byte) (a attempt, ok bool) {
	if len(state) > maxState {
		return a, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(string(state))
	if err != nil {
		return a, false
	}
	var b []byte
	for a.by = range s.with {
		if b, err = s.with[a.by].aead.Open(nil, nil, sealed, bound); err == nil {
			break
		}
	}
	if err != nil || len(b) < 8+attemptBytes {
		return a, false
	}
	a.at = int64(binary.BigEndian.Uint64(b))
	copy(a.id[:], b[8:])
	a.link = string(b[8+attemptBytes:])
	return a, true
}

// derived is what belongs to an attempt of a browser and need not be kept: its nonce, and the verifier of its code (RFC 7636, 4.1).
func (s *Sealer) derived(what, browser string, a *attempt) string {
	m := hmac.New(sha256.New, s.with[a.by].secret)
	m.Write([]byte(what + "\x00" + browser + "\x00"))
	m.Write(a.id[:])
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// challenge is what the provider is told of a verifier (RFC 7636, 4.2).
func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func newAttempt(now int64, link string) *attempt {
	a := &attempt{at: now, link: link}
	_, _ = rand.Read(a.id[:]) // it cannot fail
	return a
}

// linkOf is where somebody wanted to go: a path of this host, with its query. What a browser could take for another host leads to
// the root, as does what is too long, or could end where it is written to.
func linkOf(path, query []byte) string {
	if len(path)+len(query)+1 > maxLink {
		return "/"
	}
	link := string(path)
	if query != nil {
		link += "?" + string(query)
	}
	if !isLink(link) {
		return "/"
	}
	return link
}

func isLink(s string) bool {
	if s == "" || s[0] != '/' || len(s) > 1 && (s[1] == '/' || s[1] == '\\') {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f, c == '"', c == '<', c == '>', c == '\\':
			return false
		}
	}
	return true
}
