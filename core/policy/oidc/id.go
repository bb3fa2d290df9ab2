package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// Marker makes ids of sessions of which everybody who has its secret sees that they were made with it: half of an id is random, the other half
// the mark of that (HMAC-SHA-256, RFC 2104, of which 128 bits are left). So nobody can have one looked up that never was any. It is
// immutable, and any goroutine may use it.
type Marker struct{ keys []markKey }

// markKey is a secret as the two halves of an HMAC begin with it.
type markKey struct{ inner, outer [sha256.BlockSize]byte }

const markBytes = idBytes / 2

// NewMarker makes one of secrets of SecretBytes: the first marks, all are recognised.
func NewMarker(secrets ...[]byte) (*Marker, error) {
	m := &Marker{}
	for _, secret := range secrets {
		if len(secret) != SecretBytes {
			return nil, errSecret
		}
		var k markKey
		copy(k.inner[:], secret)
		copy(k.outer[:], secret)
		for i := range k.inner {
			k.inner[i] ^= 0x36
			k.outer[i] ^= 0x5c
		}
		m.keys = append(m.keys, k)
	}
	if len(m.keys) == 0 {
		return nil, errSecret
	}
	return m, nil
}

// mark is that of the random half of an id.
func (k *markKey) mark(random []byte) [sha256.Size]byte {
	var in [sha256.BlockSize + markBytes]byte
	copy(in[copy(in[:], k.inner[:]):], random)
	first := sha256.Sum256(in[:])
	var out [sha256.BlockSize + sha256.Size]byte
	copy(out[copy(out[:], k.outer[:]):], first[:])
	return sha256.Sum256(out[:])
}

// NewID gives an id that nobody can guess.
func (m *Marker) NewID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:markBytes]) // it cannot fail
	mark := m.keys[0].mark(b[:markBytes])
	copy(b[markBytes:], mark[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Genuine says whether an id was made with one of the secrets. It allocates nothing.
func (m *Marker) Genuine(id []byte) bool {
	var b [idBytes]byte
	if len(id) != idText {
		return false
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], id); err != nil || n != idBytes {
		return false
	}
	for i := range m.keys {
		mark := m.keys[i].mark(b[:markBytes])
		if subtle.ConstantTimeCompare(mark[:markBytes], b[markBytes:]) == 1 {
			return true
		}
	}
	return false
}
