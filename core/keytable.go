package core

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// keyTable finds consumers by the SHA-256 of their keys. A hash is spread evenly as it is, so it is hashed no more: its first bytes say
// where it stands, or after how few others. A third of the places is free: with more the table would be found less often in the caches,
// and a miss of these takes longer than all the rest. One lookup is about one miss, where a map of the language has three. Immutable when
// it is filled.
type keyTable struct {
	slots []keySlot
	count int
}

type keySlot struct {
	sum   [sha256.Size]byte
	owner *Consumer // nil: the place is free
}

// newKeyTable gives a table with room for so many.
func newKeyTable(most int) keyTable { return keyTable{slots: make([]keySlot, most+most/2+8)} }

// put enters a key. One that is there already stays whose it is.
func (t *keyTable) put(sum *[sha256.Size]byte, owner *Consumer) {
	if s := t.slot(sum); s.owner == nil {
		*s = keySlot{*sum, owner}
		t.count++
	}
}

// find gives whose key it is, nil: nobody's.
func (t *keyTable) find(sum *[sha256.Size]byte) *Consumer { return t.slot(sum).owner }

// slot is where a hash stands, or would: at the part of the table that its first bytes are of all numbers, or behind.
func (t *keyTable) slot(sum *[sha256.Size]byte) *keySlot {
	i, _ := bits.Mul64(binary.LittleEndian.Uint64(sum[:]), uint64(len(t.slots)))
	for {
		s := &t.slots[i]
		if s.owner == nil || s.holds(sum) {
			return s
		}
		if i++; i == uint64(len(t.slots)) {
			i = 0
		}
	}
}

// holds compares the whole of both hashes, however early they differ.
func (s *keySlot) holds(sum *[sha256.Size]byte) bool {
	differ := uint64(0)
	for i := 0; i < sha256.Size; i += 8 {
		differ |= binary.LittleEndian.Uint64(s.sum[i:]) ^ binary.LittleEndian.Uint64(sum[i:])
	}
	return differ == 0
}
