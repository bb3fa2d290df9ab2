package loop

import "math/bits"

// The wheel has two levels: 256 slots of a tick and 256 of a whole turn of the first. What lies further ahead waits in
// the last slot of the second and is placed anew from there. Adding, moving and removing touch one list.
//
// Most deadlines are moved before they come: a connection gets a new one with each request. A timer is therefore left
// where it is when its deadline moves away, and only looked at again when its slot comes round.
const (
	tickBits  = 24 // a tick is 2^24 ns, 16.8 ms: the resolution of every timeout
	slotBits  = 8
	slotCount = 1 << slotBits
)

// expirer is told when its timer's deadline has passed.
type expirer interface{ expire() }

// timer is part of what it times. The zero timer with an owner is ready and off.
type timer struct {
	next, prev *timer
	deadline   int64 // 0: off
	tick       int64 // the tick it is filed under, when next is not nil
	level      uint8
	owner      expirer
}

type wheel struct {
	slots  [2][slotCount]timer // heads of rings
	used   [2][slotCount / 64]uint64
	tick   int64 // everything up to it has expired
	armed  int64 // tick at which the kernel's timer fires; 0: off
	timers int
}

// tickOf is the first tick at which deadline has passed.
func tickOf(deadline int64) int64 { return (deadline-1)>>tickBits + 1 }

// set makes t expire at the deadline, on the loop's clock; 0 turns it off. It does not arm the kernel's timer: see Loop.arm.
func (w *wheel) set(t *timer, deadline int64) {
	t.deadline = deadline
	if deadline == 0 || t.next != nil && t.tick <= tickOf(deadline) {
		return
	}
	w.remove(t)
	t.deadline = deadline
	w.file(t)
}

// file puts t into the slot of its deadline.
func (w *wheel) file(t *timer) {
	t.tick = max(tickOf(t.deadline), w.tick+1)
	slot := t.tick & (slotCount - 1)
	t.level = 0
	if t.tick-w.tick >= slotCount {
		t.level = 1
		turn := min(t.tick>>slotBits, w.tick>>slotBits+slotCount-1)
		t.tick = turn << slotBits // never late: from there it is filed again
		slot = turn & (slotCount - 1)
	}
	head := &w.slots[t.level][slot]
	if head.next == nil {
		head.next, head.prev = head, head
	}
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
	w.used[t.level][slot/64] |= 1 << (slot % 64)
	w.timers++
}

// remove turns t off and takes it out of the wheel.
func (w *wheel) remove(t *timer) {
	t.deadline = 0
	if t.next == nil {
		return
	}
	t.next.prev, t.prev.next = t.prev, t.next
	if t.next == t.prev && t.next.owner == nil { // only the head is left
		slot := t.tick & (slotCount - 1)
		if t.level == 1 {
			slot = t.tick >> slotBits & (slotCount - 1)
		}
		w.used[t.level][slot/64] &^= 1 << (slot % 64)
	}
	t.next, t.prev = nil, nil
	w.timers--
}

// advance expires what is due at now. Owners may set and remove any timer meanwhile.
func (w *wheel) advance(now int64) {
	w.drain(1, w.tick>>slotBits&(slotCount-1), now) // both empty, but when an owner's panic cut the last call short
	w.drain(0, w.tick&(slotCount-1), now)
	for target := now >> tickBits; w.tick < target && w.timers > 0; {
		next := w.nextTick()
		if next > target {
			break
		}
		w.tick = next
		if next&(slotCount-1) == 0 {
			w.drain(1, next>>slotBits&(slotCount-1), now)
		}
		w.drain(0, next&(slotCount-1), now)
	}
	w.tick = max(w.tick, now>>tickBits)
}

// drain empties a slot: a timer is due, off, or filed anew.
func (w *wheel) drain(level uint8, slot, now int64) {
	head := &w.slots[level][slot]
	for head.next != nil && head.next != head {
		t := head.next
		deadline := t.deadline
		w.remove(t)
		switch {
		case deadline == 0:
		case deadline <= now:
			t.owner.expire()
		default:
			t.deadline = deadline
			w.file(t)
		}
	}
}

// nextTick is the next tick with work: the next used slot of the first level, or the next turn with a used slot in the
// second. Call it only with timers.
func (w *wheel) nextTick() int64 {
	next := int64(1) << 62
	if d, ok := distance(&w.used[0], (w.tick+1)&(slotCount-1)); ok {
		next = w.tick + 1 + d
	}
	turn := w.tick>>slotBits + 1
	if d, ok := distance(&w.used[1], turn&(slotCount-1)); ok {
		next = min(next, (turn+d)<<slotBits)
	}
	return next
}

// distance counts the slots from one up to the first used, round the ring.
func distance(used *[slotCount / 64]uint64, from int64) (int64, bool) {
	word, bit := from/64, from%64
	if m := used[word] >> bit; m != 0 {
		return int64(bits.TrailingZeros64(m)), true
	}
	for i := int64(1); i <= slotCount/64; i++ {
		at := (word + i) % (slotCount / 64)
		if m := used[at]; m != 0 {
			return i*64 - bit + int64(bits.TrailingZeros64(m)), true
		}
	}
	return 0, false
}
