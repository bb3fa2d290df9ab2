package limits

import (
	"math/bits"
	"sync/atomic"
)

const (
	// MinCapacity is the least number of keys of a Limit.
	MinCapacity = 16
	// MaxCapacity is the greatest.
	MaxCapacity = 1 << 24
	// KeyBytes is the memory of one key.
	KeyBytes = 64
	// MaxWindows is how many windows a Limit may have.
	MaxWindows = 4
	// probes is how many slots, one behind the other, may hold a key: its neighbourhood.
	probes = 16
	// claimTries bounds the work of one take while others claim slots of the same neighbourhood.
	claimTries = 32
)

// A slot is a tag, a check and one state word for each window. Each of these is 64 bits and changes by itself, by CAS; the
// owner, a number in the low bits of all of them, says what belongs together:
//
//	tag    59 bits of Key.Hi | tentative | owner     0: never used. Fingerprint 0: given up, may be claimed.
//	check  60 bits of Key.Lo             | owner
//	state  58 bits of state  | generation| owner     generation: of the rules under which it was written
//
// A slot is claimed by one CAS of its tag, to another fingerprint and the next owner. From then on check and states of the
// old owner are as if they were not there: whoever reads a word of another owner takes it for an empty one. So nothing
// has to be cleared, nobody waits for anybody, and the CAS of somebody who still had the old key in mind either fails
// or leaves a word that the new owner does not see. The owner wraps after 15 claims, each of which is followed by a write
// of all words: who was held up must have slept through all of them to do harm.
//
// Two who insert the same key at once must end with one slot. So a claim is tentative at first, and becomes firm by a look at
// the other slots of the key's neighbourhood: see confirm.
const (
	ownerMask = 15
	tentative = 1 << 4
	tagShift  = 5
)

// table is the memory of a Limit: open addressing with linear probing in a fixed number of slots. Lock-free, shared by all.
type table struct {
	words  []atomic.Uint64
	slots  uint64
	stride uint64

	_         [64]byte // what follows is written, what precedes is read by all
	used      atomic.Uint64
	evicted   atomic.Uint64
	untracked atomic.Uint64
}

// TableBytes is the memory of a Limit with that capacity: all that it will ever take, but for some 500 bytes.
func TableBytes(capacity int) int { return clampCapacity(capacity) * KeyBytes }

func clampCapacity(capacity int) int { return min(max(capacity, MinCapacity), MaxCapacity) }

func newTable(capacity, windows int) *table {
	t := &table{stride: strideOf(windows)}
	t.words = make([]atomic.Uint64, TableBytes(capacity)/8)
	t.slots = uint64(len(t.words)) / t.stride
	return t
}

// strideOf is how many words a slot has. There are more slots than keys: twice as many for one or two windows, 4/3 for more.
func strideOf(windows int) uint64 {
	if windows <= 2 {
		return 4
	}
	return 2 + MaxWindows
}

// slot is one slot's words, as it was found: tag is what words[0] was.
type slot struct {
	words []atomic.Uint64
	tag   uint64
}

func (s slot) owner() uint64 { return s.tag & ownerMask }

// ours says whether the slot has kept its owner since it was found.
func (s slot) ours() bool { return s.words[0].Load() == s.tag }

// first is where the probing of a key begins.
func (t *table) first(k Key) uint64 {
	at, _ := bits.Mul64(k.Hi&^(1<<tagShift-1), t.slots)
	return at
}

func (t *table) at(i uint64) []atomic.Uint64 {
	if i >= t.slots {
		i -= t.slots
	}
	return t.words[i*t.stride : (i+1)*t.stride : (i+1)*t.stride]
}

// fingerprint is what of the key stands in a tag: never 0.
func fingerprint(k Key) uint64 { return max(k.Hi>>tagShift, 1) }

// find gives the slot of a key; its words are nil if there is none.
func (t *table) find(k Key) slot {
	first, print := t.first(k), fingerprint(k)
	for i := first; i < first+probes; i++ {
		words := t.at(i)
		tag := words[0].Load()
		if tag == 0 {
			return slot{} // a key is claimed no later than at the first slot that was never used
		}
		if tag>>tagShift != print {
			continue
		}
		if tag&tentative != 0 { // somebody's who has not come further: it may be ours, and need not wait for him
			if !t.confirm(k, i, tag) {
				continue
			}
			tag &^= tentative
		}
		if checked(words, k, tag) {
			return slot{words, tag}
		}
	}
	return slot{}
}

// checked says whether the slot with that tag is k's, in all bits. Who comes first to a new owner writes the check.
func checked(words []atomic.Uint64, k Key, tag uint64) bool {
	want := k.Lo&^ownerMask | tag&ownerMask
	for {
		switch v := words[1].Load(); {
		case v == want:
			return true
		case v&ownerMask == tag&ownerMask:
			return false
		case words[1].CompareAndSwap(v, want):
			return true
		case words[0].Load() != tag:
			return false
		}
	}
}

// balance weighs what would be forgotten with a slot's owner: see Limit.weight. 0: nothing.
type balance interface {
	weight(s slot, now int64) int64
}

// claim makes a slot for a key that has none: the first one of its neighbourhood that is free or whose states have run out, else
// the one with the least weight. Among keys that take alike that is the one whose last take is the oldest, and one that is
// refused has more weight than any fresh one: he cannot make himself forgotten by taking under thousands of new names.
// nil words: so many others claim here that there was no slot to try.
//
// What is taken of the displaced key between the look at its weight and the CAS is forgotten with it.
func (t *table) claim(k Key, now int64, by balance) slot {
	for range claimTries {
		if s := t.find(k); s.words != nil {
			return s
		}
		i, was, evict := t.victim(k, now, by)
		if i == t.slots*2 {
			return slot{}
		}
		owner := was&ownerMask + 1
		if owner > ownerMask {
			owner = 1
		}
		tag := fingerprint(k)<<tagShift | tentative | owner
		if !t.at(i)[0].CompareAndSwap(was, tag) {
			continue
		}
		if was == 0 {
			t.used.Add(1)
		}
		if evict {
			t.evicted.Add(1)
		}
		t.confirm(k, i, tag)
		// Found again, for another may have been faster: then that one is ours too.
	}
	return slot{}
}

// victim chooses a slot to claim and tells its tag. t.slots*2: none.
func (t *table) victim(k Key, now int64, by balance) (at, tag uint64, evict bool) {
	first := t.first(k)
	at, least := t.slots*2, int64(0)
	for i := first; i < first+probes; i++ {
		words := t.at(i)
		was := words[0].Load()
		if was>>tagShift == 0 && was&tentative == 0 {
			return i, was, false
		}
		if was&tentative != 0 || words[2].Load()&ownerMask != was&ownerMask {
			continue // its owner is about to take for the first time
		}
		weight := by.weight(slot{words, was}, now)
		if weight == 0 {
			return i, was, false
		}
		if at == t.slots*2 || weight < least {
			at, tag, least, evict = i, was, weight, true
		}
	}
	return at, tag, evict
}

// confirm makes the tentative claim of k at i firm, or gives it up because k has another slot. Anybody may do it.
//
// Of two claims of one key at most one becomes firm. Each looks at the whole neighbourhood after it was made, so at least one
// of them sees the other: if it sees a firm one it is given up; if it sees a tentative one, the later of the two in the order of
// probing is given up. A claim that was given up cannot become firm: its tag is another.
func (t *table) confirm(k Key, i, tag uint64) bool {
	first, words := t.first(k), t.at(i)
	for j := first; j < first+probes; j++ {
		other := t.at(j)
		was := other[0].Load()
		if was == 0 {
			break
		}
		if j == i || was>>tagShift != tag>>tagShift {
			continue
		}
		switch {
		case was&tentative == 0 && !checked(other, k, was): // another key, whose fingerprint is the same
		case was&tentative != 0 && j > i:
			if !other[0].CompareAndSwap(was, was&ownerMask) {
				j-- // it has become firm, or is gone
			}
		default:
			words[0].CompareAndSwap(tag, tag&ownerMask)
			return false
		}
	}
	return words[0].CompareAndSwap(tag, tag&^tentative) || words[0].Load() == tag&^tentative
}

// forget gives up the slot of a key, if it has one.
func (t *table) forget(k Key) bool {
	s := t.find(k)
	return s.words != nil && s.words[0].CompareAndSwap(s.tag, s.owner())
}
