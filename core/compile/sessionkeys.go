package compile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// sessionKeys are what all nodes that share the sessions of one policy derive of its keys (HKDF, RFC 5869). The first key is used for what is
// new, the others for what there is. Immutable.
type sessionKeys struct {
	of     []sessionKey
	sealer *oidc.Sealer
	marker *oidc.Marker
	print  string // tells these keys from others
}

type sessionKey struct {
	id    [sessionKeyID]byte // stands before what is sealed with it
	aead  cipher.AEAD
	group []byte // names of groups are made with it
}

const (
	sessionKeyID   = 4
	sealedVersion  = 1
	sealedOverhead = 1 + sessionKeyID
)

var errSealed = errors.New("a shared session cannot be opened with the keys of this node")

// newSessionKeys makes them for a space.
func newSessionKeys(space string, secrets []config.Secret) (*sessionKeys, error) {
	k := &sessionKeys{}
	var attempts, marks [][]byte
	for _, secret := range secrets {
		derive := func(what string, n int) []byte {
			b, err := hkdf.Key(sha256.New, []byte(secret.Reveal()), nil, "sluice sessions "+what+"\x00"+space, n)
			if err != nil {
				panic("BUG: " + err.Error()) // n is short
			}
			return b
		}
		block, err := aes.NewCipher(derive("value", 32))
		if err != nil {
			return nil, err
		}
		one := sessionKey{id: [sessionKeyID]byte(derive("key", sessionKeyID)), group: derive("group", 32)}
		if one.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
		k.of = append(k.of, one)
		k.print += hex.EncodeToString(derive("print", 16))
		attempts, marks = append(attempts, derive("login", oidc.SecretBytes)), append(marks, derive("id", oidc.SecretBytes))
	}
	var err, failed error
	k.sealer, err = oidc.NewSealer(attempts...)
	k.marker, failed = oidc.NewMarker(marks...)
	return k, errors.Join(err, failed)
}

// seal gives what is kept of a value, good under that name alone.
func (k *sessionKeys) seal(value []byte, name string) []byte {
	one := &k.of[0]
	out := append([]byte{sealedVersion}, one.id[:]...)
	return one.aead.Seal(out, nil, value, []byte(name))
}

// open gives the value.
func (k *sessionKeys) open(sealed []byte, name string) ([]byte, error) {
	if len(sealed) < sealedOverhead || sealed[0] != sealedVersion {
		return nil, errSealed
	}
	for i := range k.of {
		if one := &k.of[i]; slices.Equal(one.id[:], sealed[1:sealedOverhead]) {
			if value, err := one.aead.Open(nil, nil, sealed[sealedOverhead:], []byte(name)); err == nil {
				return value, nil
			}
		}
	}
	return nil, errSealed
}

// groups names what sessions can be ended by, as nobody can read it: by each key one name.
func (k *sessionKeys) groups(what string) (names []string) {
	for i := range k.of {
		m := hmac.New(sha256.New, k.of[i].group)
		m.Write([]byte(what))
		names = append(names, hex.EncodeToString(m.Sum(nil)[:16]))
	}
	return names
}

// What sessions can be ended by.
func subjectGroup(subject string) string { return "subject\x00" + subject }
func providerGroup(id string) string     { return "provider\x00" + id }
func bothGroup(subject, id string) string {
	return "both\x00" + subject + "\x00" + id // a NUL in a subject makes but another group
}
