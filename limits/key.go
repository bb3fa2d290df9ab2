package limits

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/dchest/siphash"
)

// Key names a bucket: a fingerprint of 128 bits, of which a Table compares 119. Two keys that a client can choose have the same
// one by chance only, since it is keyed with a Seed that the client does not know: a new key meets one of those with which
// it shares its neighbourhood of the table with a probability of less than 2^-115. The zero Key is one like any other, for a limit without key.
type Key struct{ Hi, Lo uint64 }

// Seed makes Keys, by SipHash-2-4 with 128 bits (J.-P. Aumasson, D. J. Bernstein, SipHash: a fast short-input PRF, 2012).
// A process has one, which it hands on with its buckets when it is replaced. Immutable.
type Seed struct{ k0, k1 uint64 }

// SeedBytes is the length of a Seed handed on.
const SeedBytes = 16

// NewSeed makes a Seed at random.
func NewSeed() Seed {
	var b [SeedBytes]byte
	rand.Read(b[:]) // never fails, as it is documented
	s, _ := ParseSeed(b[:])
	return s
}

// ParseSeed reads what AppendTo wrote.
func ParseSeed(b []byte) (Seed, error) {
	if len(b) != SeedBytes {
		return Seed{}, errors.New("cannot read seed: wrong length")
	}
	return Seed{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}, nil
}

// AppendTo appends the SeedBytes bytes that ParseSeed reads. They are a secret.
func (s Seed) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.k0)
	return binary.LittleEndian.AppendUint64(b, s.k1)
}

// Key is the key of b.
func (s Seed) Key(b []byte) Key {
	hi, lo := siphash.Hash128(s.k0, s.k1, b)
	return Key{hi, lo}
}

// With is the key of k and b together. Parts cannot be shifted: With("ab") With("c") is another key than With("a") With("bc").
func (s Seed) With(k Key, b []byte) Key {
	hi, lo := siphash.Hash128(s.k0^k.Hi, s.k1^k.Lo, b)
	return Key{hi, lo}
}

// Client is the key of a client's address, an IPv6 client being its /64.
func (s Seed) Client(a netip.Addr) Key {
	b := clientBytes(a)
	return s.Key(b[:])
}
