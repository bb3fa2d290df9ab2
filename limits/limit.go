package limits

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// takeTries bounds a take whose slot is claimed by others again and again. After that the key is admitted and not counted.
const takeTries = 16

// Decision is what a limiter says of one cost.
type Decision struct {
	Allowed bool
	// Level and Window say whose the rest is: the level of a Hierarchy and the window there which refused, or else which has
	// the least left.
	Level, Window uint8
	Limit         uint32        // of that window, as it is configured
	Remaining     uint32        // what could be taken now
	Reset         time.Duration // until all of Limit is there again, or until the window ends
	RetryAfter    time.Duration // refused: when cost would be there if nobody else came; Never if it is greater than the bucket, 0 if nobody knows
	Delay         time.Duration // allowed: how long to wait first; leaky bucket only
}

// Limiter is what takes: a Limit, which all share, or a Lease, which one loop owns.
type Limiter interface {
	// Take takes cost from the bucket of key, or nothing.
	Take(key Key, cost uint32, now int64) Decision
}

// Spec is what a Limit is made of. NewLimit copies and checks it.
type Spec struct {
	Windows  []Window // 1 to MaxWindows; a cost is taken of all of them or of none
	Capacity int      // keys; kept within MinCapacity and MaxCapacity
}

// Limit holds a bucket for each key. All loops share it; no method takes a lock or allocates, but for Reconfigure, Append and
// Import. now is in ns, on any clock that all use.
//
// A key without a slot is as one that was never seen. When the table is full a new key displaces that one of its sixteen
// neighbours with which the least is forgotten: of those that take alike the one that was idle for longest. See Stats.
type Limit struct {
	rules      []rule
	generation uint64
	memory     *memory
	capacity   int
}

// memory outlives the Limits that Reconfigure makes of one another. Each state word tells by its generation under which
// rules it was written; Reconfigure sees to it that of four generations at most the last three are found in the table.
type memory struct {
	*table
	rules [generations]atomic.Pointer[[]rule]
}

const (
	generations     = 4
	generationShift = 4
	lowMask         = 1<<stateShift - 1
)

// NewLimit makes a Limit in which nothing was taken. It takes TableBytes(s.Capacity).
func NewLimit(s Spec) (*Limit, error) {
	l, err := newLimit(s)
	if err != nil {
		return nil, fmt.Errorf("cannot make limit: %w", err)
	}
	l.memory = &memory{table: newTable(s.Capacity, len(s.Windows))}
	l.memory.rules[0].Store(&l.rules)
	return l, nil
}

func newLimit(s Spec) (*Limit, error) {
	if len(s.Windows) < 1 || len(s.Windows) > MaxWindows {
		return nil, fmt.Errorf("%d windows, 1 to %d are possible", len(s.Windows), MaxWindows)
	}
	l := &Limit{capacity: clampCapacity(s.Capacity)}
	for i, w := range s.Windows {
		r, err := newRule(w)
		if err != nil {
			return nil, fmt.Errorf("window %d: %w", i+1, err)
		}
		if w.Algorithm == inFlight && len(s.Windows) > 1 {
			return nil, errors.New("a concurrency limit has one window")
		}
		l.rules = append(l.rules, r)
	}
	return l, nil
}

// Take takes cost from all windows of key, or nothing. A cost of 0 takes nothing and tells what remains.
func (l *Limit) Take(key Key, cost uint32, now int64) (d Decision) {
	for range takeTries {
		s := l.memory.find(key)
		if s.words == nil {
			if d = l.unseen(cost, now); !d.Allowed || cost == 0 {
				return d // there is nothing to remember
			}
			if s = l.memory.claim(key, now, l); s.words == nil {
				break
			}
		}
		if l.takeFrom(s, cost, now, &d); s.ours() {
			return d
		}
		// The slot was claimed for another key while we took. What we wrote is gone.
	}
	l.memory.untracked.Add(1)
	return l.unseen(cost, now)
}

// Peek says what Take would say, and takes nothing.
func (l *Limit) Peek(key Key, cost uint32, now int64) Decision {
	if s := l.memory.find(key); s.words != nil {
		return l.peekAt(s, cost, now)
	}
	return l.unseen(cost, now)
}

// Refund gives back what a Take of cost took at the time at. What has come back by itself since is not given twice.
func (l *Limit) Refund(key Key, cost uint32, at, now int64) {
	if s := l.memory.find(key); s.words != nil {
		l.refundFrom(s, len(l.rules), cost, at, now)
	}
}

// Charge takes cost although it may not be there, as for a cost that is known only after the fact. A bucket may owe as much as it
// holds; what is more is forgiven.
func (l *Limit) Charge(key Key, cost uint32, now int64) {
	if cost == 0 {
		return
	}
	for range takeTries {
		s := l.memory.find(key)
		if s.words == nil {
			if s = l.memory.claim(key, now, l); s.words == nil {
				break
			}
		}
		for i := range l.rules {
			for word := s.state(i); ; {
				was := word.Load()
				state := l.state(was, s, i, now)
				if word.CompareAndSwap(was, l.word(l.rules[i].charge(state, cost, now), s)) {
					break
				}
			}
		}
		if s.ours() {
			return
		}
	}
	l.memory.untracked.Add(1)
}

// Forget makes key one that was never seen, and says whether it was known.
func (l *Limit) Forget(key Key) bool { return l.memory.forget(key) }

// Stats is the state of a Limit's table.
type Stats struct {
	Capacity  int    // keys
	Bytes     int    // memory
	Slots     int    // there are more than keys
	Used      uint64 // slots used so far; they are used again when their keys have run out
	Evicted   uint64 // keys forgotten, since the start, although something of theirs was taken
	Untracked uint64 // takes admitted without being counted, since the start; only under a storm of new keys in one neighbourhood
}

// Stats reads the counters.
func (l *Limit) Stats() Stats {
	m := l.memory
	return Stats{l.capacity, len(m.words) * 8, int(m.slots), m.used.Load(), m.evicted.Load(), m.untracked.Load()}
}

func (s slot) state(i int) *atomic.Uint64 { return &s.words[2+i] }

// state reads a word as the rule of window i understands it: 0 if it is of another owner, converted if of another generation.
func (l *Limit) state(word uint64, s slot, i int, now int64) uint64 {
	if word&lowMask == s.owner()|l.generation<<generationShift {
		return word &^ lowMask
	}
	if word&ownerMask != s.owner() {
		return 0
	}
	old := l.memory.rules[word>>generationShift&(generations-1)].Load()
	if old == nil || i >= len(*old) {
		return 0
	}
	return l.rules[i].convert(&(*old)[i], word&^lowMask, now)
}

// word is a state as it stands in the slot.
func (l *Limit) word(state uint64, s slot) uint64 {
	return state | l.generation<<generationShift | s.owner()
}

// weight is that of the heaviest of a slot's states.
func (l *Limit) weight(s slot, now int64) int64 {
	most := int64(0)
	for i := range l.rules {
		most = max(most, l.rules[i].weight(l.state(s.state(i).Load(), s, i, now), now))
	}
	return most
}

// takeFrom takes from all windows of a slot or from none. With several, all are looked at before one is changed; what a race
// then makes fail gives back what it took. d is written in place: a Decision is as large as the rest of the work is short.
func (l *Limit) takeFrom(s slot, cost uint32, now int64, d *Decision) {
	if len(l.rules) > 1 {
		if *d = l.peekAt(s, cost, now); !d.Allowed || cost == 0 {
			return
		}
	}
	for i := range l.rules {
		word := s.state(i)
		for {
			was := word.Load()
			state := l.state(was, s, i, now)
			next, o := l.rules[i].take(state, cost, now)
			if next != state && !word.CompareAndSwap(was, l.word(next, s)) {
				continue
			}
			d.add(&l.rules[i], o, i)
			break
		}
		if !d.Allowed {
			l.refundFrom(s, i, cost, now, now)
			return
		}
	}
}

func (l *Limit) peekAt(s slot, cost uint32, now int64) (d Decision) {
	for i := range l.rules {
		_, o := l.rules[i].take(l.state(s.state(i).Load(), s, i, now), cost, now)
		if d.add(&l.rules[i], o, i); !d.Allowed {
			break
		}
	}
	return d
}

// unseen is the decision on a key that has no slot.
func (l *Limit) unseen(cost uint32, now int64) (d Decision) {
	for i := range l.rules {
		_, o := l.rules[i].take(0, cost, now)
		if d.add(&l.rules[i], o, i); !d.Allowed {
			break
		}
	}
	return d
}

// refundFrom gives cost back to the first windows of a slot.
func (l *Limit) refundFrom(s slot, windows int, cost uint32, at, now int64) {
	for i := range windows {
		for word := s.state(i); ; {
			was := word.Load()
			state := l.state(was, s, i, now)
			next := l.rules[i].refund(state, cost, at, now)
			if next == state || word.CompareAndSwap(was, l.word(next, s)) {
				break
			}
		}
	}
}

// add joins the outcome of window i to that of those before it: the one that refuses stands, else the one with the least
// left, else the first. A delay is the longest of all.
func (d *Decision) add(r *rule, o outcome, i int) {
	remaining := uint32(min(o.remaining, math.MaxUint32))
	delay := time.Duration(0)
	if o.allowed {
		delay = time.Duration(o.wait)
		if i > 0 {
			delay = max(delay, d.Delay)
			if remaining >= d.Remaining {
				d.Delay = delay
				return
			}
		}
	}
	d.Allowed, d.Level, d.Window = o.allowed, 0, uint8(i)
	d.Limit, d.Remaining = r.Limit, remaining
	d.Reset, d.Delay, d.RetryAfter = time.Duration(o.reset), delay, 0
	if !o.allowed {
		d.RetryAfter = time.Duration(o.wait)
	}
}
