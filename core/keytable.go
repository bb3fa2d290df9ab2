package core

import (
	"crypto/sha256"
	"encoding/binary"
)

// keyTable finds consumers by the SHA-256 of their keys. A hash is spread evenly as it is, so it is hashed no more: its first bytes say
// where it stands, or after how few others, for at most half of the places are taken. One lookup is about one miss of the cache, where
// a map of the language has three. Immutable when it is filled.
type keyTable struct {
	slots []keySlot // a power of two of them
	count int
}

type keySlot struct {
	sum   [sha256.Size]byte
	owner *Consumer // nil: the place is free
}

// newKeyTable gives a table with room for so many.
func newKeyTable(most int) keyTable {
	n := 8
	for n < 2*most {
		n *= 2
	}
	return keyTable{slots: make([]keySlot, n)}
}

// put enters a key. One that is there already stays whose it is.
func (t *keyTable) put(sum *[sha256.Size]byte, owner *Consumer) {
	if s := t.slot(sum); s.owner == nil {
		*s = keySlot{*sum, owner}
		t.count++
	}
}

// find gives whose key it is, nil: nobody's.
func (t *keyTable) find(sum *[sha256.Size]byte) *Consumer { return t.slot(sum).owner }

// slot is where a hash stands, or would.
func (t *keyTable) slot(sum *[sha256.Size]byte) *keySlot {
	last := uint64(len(t.slots) - 1)
	for i := binary.LittleEndian.Uint64(sum[:]); ; i++ {
		if s := &t.slots[i&last]; s.owner == nil || s.sum == *sum {
			return s
		}
	}
}
