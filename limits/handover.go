package limits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What a process hands to the one that replaces it, little-endian:
//
//	magic      4 bytes
//	windows    1 byte, then for each: algorithm 1, limit 4, period 8, burst 4, max wait 8
//	keys       8 bytes, then for each: Key.Hi 8, Key.Lo 8, and for each window: used 8, before 8
//
// used and before are those of rule.used: they do not depend on the clock, of which each process may have its own. Keys are
// of use only to who has the same Seed.

const (
	handoverMagic = "slL1"
	windowRecord  = 1 + 4 + 8 + 4 + 8
	handoverHead  = len(handoverMagic) + 1
	amountRecord  = 16
	keyRecord     = 16
)

// Append appends the buckets of l of which something is used, for Import in another process. Takes that go on meanwhile are in it
// or not. It is at most 16+16*windows bytes for each of Stats.Slots, and little more. Leases give back first what they hold.
func (l *Limit) Append(b []byte, now int64) []byte {
	b = append(b, handoverMagic...)
	b = append(b, byte(len(l.rules)))
	for i := range l.rules {
		w := &l.rules[i].Window
		b = append(b, byte(w.Algorithm))
		b = binary.LittleEndian.AppendUint32(b, w.Limit)
		b = binary.LittleEndian.AppendUint64(b, uint64(w.Period))
		b = binary.LittleEndian.AppendUint32(b, w.Burst)
		b = binary.LittleEndian.AppendUint64(b, uint64(w.MaxWait))
	}
	at, keys := len(b), uint64(0)
	b = binary.LittleEndian.AppendUint64(b, 0)
	l.each(func(s slot) {
		key, ok := s.key()
		if !ok || l.weight(s, now) == 0 {
			return
		}
		keys++
		b = binary.LittleEndian.AppendUint64(b, key.Hi)
		b = binary.LittleEndian.AppendUint64(b, key.Lo)
		for i := range l.rules {
			used, before := l.rules[i].used(l.state(s.state(i).Load(), s, i, now), now)
			b = binary.LittleEndian.AppendUint64(b, uint64(used))
			b = binary.LittleEndian.AppendUint64(b, uint64(before))
		}
	})
	binary.LittleEndian.PutUint64(b[at:], keys)
	return b
}

// Import adds the buckets that Append wrote in another process, whose windows may have been others: they are matched by their
// order, as by Reconfigure. A key that is known here already is left as it is. It gives the number of keys taken over. Nothing
// is taken of what is not whole and right in every record. The length of b bounds its time; it makes no memory.
func (l *Limit) Import(b []byte, now int64) (keys int, err error) {
	old, records, err := readHandover(b)
	if err != nil {
		return 0, fmt.Errorf("cannot import limit: %w", err)
	}
	size := keyRecord + amountRecord*len(old)
	for ; len(records) > 0; records = records[size:] {
		key := Key{binary.LittleEndian.Uint64(records), binary.LittleEndian.Uint64(records[8:])}
		if l.importKey(key, old, records[keyRecord:size], now) {
			keys++
		}
	}
	return keys, nil
}

// importKey puts one key's amounts into a slot of its own.
func (l *Limit) importKey(key Key, old []rule, amounts []byte, now int64) bool {
	if s := l.memory.find(key); s.words != nil {
		return false
	}
	s := l.memory.claim(key, now, l)
	if s.words == nil {
		return false
	}
	for i := range min(len(l.rules), len(old)) {
		state := old[i].filled(amount(amounts, 2*i), amount(amounts, 2*i+1), now)
		word := s.state(i)
		was := word.Load()
		if was&ownerMask == s.owner() {
			continue // somebody was faster
		}
		word.CompareAndSwap(was, l.word(l.rules[i].convert(&old[i], state, now), s))
	}
	return true
}

// readHandover checks all of b and gives the rules under which it was written, and its records.
func readHandover(b []byte) (old []rule, records []byte, err error) {
	if len(b) < handoverHead || string(b[:len(handoverMagic)]) != handoverMagic {
		return nil, nil, errors.New("it does not begin as one")
	}
	windows := int(b[handoverHead-1])
	b = b[handoverHead:]
	if windows < 1 || windows > MaxWindows || len(b) < windows*windowRecord+8 {
		return nil, nil, errors.New("its head is cut off")
	}
	for i := range windows {
		r, err := newRule(Window{
			Algorithm: Algorithm(b[0]),
			Limit:     binary.LittleEndian.Uint32(b[1:]),
			Period:    time.Duration(binary.LittleEndian.Uint64(b[5:])),
			Burst:     binary.LittleEndian.Uint32(b[13:]),
			MaxWait:   time.Duration(binary.LittleEndian.Uint64(b[17:])),
		})
		if err != nil {
			return nil, nil, fmt.Errorf("window %d: %w", i+1, err)
		}
		if r.Algorithm == inFlight {
			return nil, nil, errors.New("what is in flight is not handed on")
		}
		old, b = append(old, r), b[windowRecord:]
	}
	keys := binary.LittleEndian.Uint64(b)
	b = b[8:]
	size := uint64(keyRecord + amountRecord*windows)
	if uint64(len(b))%size != 0 || uint64(len(b))/size != keys {
		return nil, nil, fmt.Errorf("%d keys are announced, and %d bytes of them are there", keys, len(b))
	}
	for i := uint64(0); i < keys; i++ {
		for j := range 2 * windows {
			if v := amount(b[i*size+keyRecord:], j); v < 0 {
				return nil, nil, fmt.Errorf("amount %d of key %d is negative", j+1, i+1)
			}
		}
	}
	return old, b, nil
}

func amount(b []byte, i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
