package core

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"strings"
)

// keyTable finds consumers by the SHA-256 of their keys. A hash is spread evenly as it is, so it is hashed no more: its first bytes say
// where in the index it stands, or after how few others. The index, of four bytes for each place, has the number of an entry and as many
// bits of its hash as are left, so that an entry is looked at only if it is most likely the one: a lookup is one miss of the caches, where a
// map of the language has three. Half of the index is free. Immutable when it is filled.
type keyTable struct {
	index   []uint32   // 0: free; else the number of an entry, from 1, below a mark
	number  uint32     // mask of the number
	entries []keyEntry // in the order in which they came
}

// keyEntry is as long as a line of the caches, for it to take one of them.
type keyEntry struct {
	sum   [sha256.Size]byte
	owner *Consumer
	id    [64 - sha256.Size - 8 - 1]byte // how the id begins, see APIKey: most are here whole, and cost no other line
	whole uint8                          // bytes of the id; 0: the key has none
}

// newKeyTable gives a table with room for so many, 2^31 at most.
func newKeyTable(most int) keyTable {
	return keyTable{index: make([]uint32, 2*most+8), number: 1<<bits.Len(uint(most)) - 1, entries: make([]keyEntry, 0, most)}
}

// put enters a key. One that is there already stays whose it is. By one that has an id, the owner is known with it.
func (t *keyTable) put(key *APIKey, owner *Consumer) {
	i, entry := t.place(&key.Sum)
	if entry != nil {
		return
	}
	if key.ID != "" {
		known := *owner
		known.KeyID, owner = key.ID, &known
	}
	t.entries = append(t.entries, keyEntry{sum: key.Sum, owner: owner, whole: uint8(len(key.ID))})
	copy(t.entries[len(t.entries)-1].id[:], key.ID)
	t.index[i] = t.mark(&key.Sum) | uint32(len(t.entries))
}

// find gives the key of that hash, nil: there is none.
func (t *keyTable) find(sum *[sha256.Size]byte) *keyEntry {
	_, entry := t.place(sum)
	return entry
}

// begins says whether key, whose hash is e's, begins with e's id, with more behind it.
func (e *keyEntry) begins(key []byte) bool {
	n := int(e.whole)
	if n == 0 {
		return true
	}
	if len(key) <= n+1 || strings.IndexByte(KeySeparators, key[n]) < 0 {
		return false
	}
	here := min(n, len(e.id))
	return string(key[:here]) == string(e.id[:here]) && (n == here || string(key[here:n]) == e.owner.KeyID[here:])
}

// place is where a hash stands in the index, with its entry, or where it would, with nil: at the part of the index that its first bytes are of
// all numbers, or behind.
func (t *keyTable) place(sum *[sha256.Size]byte) (i uint64, entry *keyEntry) {
	mark := t.mark(sum)
	i, _ = bits.Mul64(binary.LittleEndian.Uint64(sum[:]), uint64(len(t.index)))
	for {
		known := t.index[i]
		if known == 0 {
			return i, nil
		}
		if known&^t.number == mark {
			if e := &t.entries[known&t.number-1]; e.holds(sum) {
				return i, e
			}
		}
		if i++; i == uint64(len(t.index)) {
			i = 0
		}
	}
}

// mark is the bits of a hash that an index tells beside a number. They are not those that say where it stands.
func (t *keyTable) mark(sum *[sha256.Size]byte) uint32 {
	return binary.LittleEndian.Uint32(sum[8:]) &^ t.number
}

// holds compares the whole of both hashes, however early they differ.
func (e *keyEntry) holds(sum *[sha256.Size]byte) bool {
	differ := uint64(0)
	for i := 0; i < sha256.Size; i += 8 {
		differ |= binary.LittleEndian.Uint64(e.sum[i:]) ^ binary.LittleEndian.Uint64(sum[i:])
	}
	return differ == 0
}
