package limits

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

const (
	// windowWords is where a key may stand: eight words, one cache line.
	windowWords = 8
	countBits   = 24
	countMax    = 1<<countBits - 1
	// MinConnections is the least capacity of a Connections table.
	MinConnections = 64
	// MaxConnections is the greatest.
	MaxConnections = 1 << 24
)

// Connections counts open connections per client address, an IPv6 client being its /64. It is shared by all loops and
// takes no lock: a key's count is one word, which holds 40 bits of the key's hash beside it, in a table of fixed size.
//
// The hash is keyed at random per table: a client cannot choose with whom it shares a window. Two keys whose hashes agree
// in all bits used (40 and those of the window) would be counted as one.
//
// At capacity, when all eight words of its window are taken by other keys, a key is admitted and not counted: refusing
// would let one who holds many addresses lock everybody else out, while he gains nothing from going uncounted that his
// addresses do not give him. Untracked says how often it happened. The window of a key is full for less than one key in
// 500 while a third of the words are used. A key with uncounted connections may have up to that many too many,
// until they are closed.
//
// A count is exact as long as the key's word stands. While it is made, because the key had no connection, others that take
// the same key in that instant may make a second one; all of them are summed and released, but each goroutine that takes
// at the same instant may then add one above the limit: at most the number of goroutines less one.
type Connections struct {
	seed      maphash.Seed
	words     []atomic.Uint64
	windows   uint64
	untracked atomic.Uint64
}

// NewConnections gives an empty table of capacity words, rounded up to a power of two within MinConnections and
// MaxConnections. Each word takes 8 bytes, resident only once it is used.
func NewConnections(capacity int) *Connections {
	words := MinConnections
	for words < capacity && words < MaxConnections {
		words *= 2
	}
	return &Connections{seed: maphash.MakeSeed(), words: make([]atomic.Uint64, words), windows: uint64(words / windowWords)}
}

// Take counts one more connection of key if it has fewer than most; most <= 0: no limit, but counted. The zero Addr,
// which stands for a peer without address, is always admitted and never counted. Each Take that returned true ends with
// one Release.
func (t *Connections) Take(key netip.Addr, most int) bool {
	if !key.IsValid() {
		return true
	}
	window, tag := t.place(key)
	limit := uint64(countMax)
	if most > 0 && most < countMax {
		limit = uint64(most)
	}
	for {
		var mine, empty *atomic.Uint64
		var was, sum uint64
		for i := range window {
			switch v := window[i].Load(); {
			case v == 0:
				if empty == nil {
					empty = &window[i]
				}
			case v>>countBits == tag:
				if mine == nil {
					mine, was = &window[i], v
				}
				sum += v & countMax
			}
		}
		switch {
		case sum >= limit:
			return false
		case mine != nil:
			if mine.CompareAndSwap(was, was+1) {
				return true
			}
		case empty != nil:
			if empty.CompareAndSwap(0, tag<<countBits|1) {
				return true
			}
		default:
			t.untracked.Add(1)
			return true
		}
	}
}

// Release ends what a Take began. For a key that is not counted it does nothing.
func (t *Connections) Release(key netip.Addr) {
	if !key.IsValid() {
		return
	}
	window, tag := t.place(key)
	// The second look is for a word that was given up behind the first one while another was made before it.
	for looks := 0; looks < 2; looks++ {
		for i := range window {
			for {
				v := window[i].Load()
				if v>>countBits != tag {
					break
				}
				next := v - 1
				if next&countMax == 0 {
					next = 0
				}
				if window[i].CompareAndSwap(v, next) {
					return
				}
			}
		}
	}
}

// Count is the number of counted connections of key.
func (t *Connections) Count(key netip.Addr) int {
	if !key.IsValid() {
		return 0
	}
	window, tag := t.place(key)
	n := uint64(0)
	for i := range window {
		if v := window[i].Load(); v>>countBits == tag {
			n += v & countMax
		}
	}
	return int(n)
}

// Untracked is how many connections were admitted without being counted since the start.
func (t *Connections) Untracked() uint64 { return t.untracked.Load() }

// clientBytes name a client: an address of IPv4, or the /64 of one of IPv6.
func clientBytes(a netip.Addr) (b [8]byte) {
	a = a.Unmap()
	if a.Is4() {
		// ff.. is multicast in IPv6: no client's /64 looks like this.
		v4 := a.As4()
		return [8]byte{0xff, 0xff, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]}
	}
	v6 := a.As16()
	copy(b[:], v6[:])
	return b
}

// place gives the window of a key and the tag that marks its words, which is never zero.
func (t *Connections) place(key netip.Addr) ([]atomic.Uint64, uint64) {
	b := clientBytes(key)
	h := maphash.Bytes(t.seed, b[:])
	at := (h & (t.windows - 1)) * windowWords
	tag := h >> countBits
	if tag == 0 {
		tag = 1
	}
	return t.words[at : at+windowWords], tag
}
