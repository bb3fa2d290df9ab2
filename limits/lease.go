package limits

import (
	"fmt"
	"math/bits"
	"time"
)

const (
	// leaseShare is the part of a limit that all loops together may hold unused: 1/100.
	leaseShare = 100
	// leaseIdle is after how long without a take a loop gives back what it holds for a key.
	leaseIdle = int64(100 * time.Millisecond)
	// settleStep bounds the keys that one Settle looks at.
	settleStep = 64
	// leaseWays is how many slots of a Lease may hold a key.
	leaseWays = 4
	// MaxLeaseKeys is the most keys for which one Lease holds tokens.
	MaxLeaseKeys = 1 << 16
)

// Lease is one loop's way to a Limit: it takes tokens of a key in batches and spends them without an atomic. The loop owns
// it; nobody else may call it. Use one for keys that many loops take of, such as a tenant or the whole gateway.
//
// The bound. Together the Leases of a Limit hold at most 1/100 of its smallest window unused, since a batch is
// Limit/(100*loops) tokens. What is held has been taken of the Limit already and can only be spent, given back or dropped.
// So in any span the exact bound of the algorithm is exceeded by at most what was held at its start, 1 % of the limit; and
// at most 1 % lies with loops to which nobody comes, until they give it back after 100 ms. Where a batch would be less than
// two tokens nothing is held: each take is one of the Limit's, and exact. So are all takes of a leaky bucket, whose delay is
// a place in one queue. Tokens of a window are dropped or given back when it ends: a fixed window is never exceeded.
//
// When there is nothing left a loop does not ask again before a batch can be there, 1/(100*loops) of the time in which the
// bucket fills: what comes in that time stays in the bucket for whoever asks next.
//
// The clocks of loops may differ; a loop that is ahead by d may take what the rate gives in d too early, once.
type Lease struct {
	limit *Limit
	batch uint32
	pause int64 // ns in which a batch comes
	slots []leased
	sets  uint64 // of leaseWays slots each, a power of two
	next  int    // of Settle
	stats LeaseStats
}

// leased is what a loop holds for one key.
type leased struct {
	key     Key
	live    bool
	held    uint32
	drawn   int64 // when, which says of which window
	until   int64 // when what is held is not good any more
	touched int64 // when it was last taken of
	// Until empty nothing that costs at least emptyCost is given, nor the Limit asked again, which said that it will be back
	// at that time.
	empty     int64
	back      int64
	emptyCost uint32
	last      Decision // of the last draw
}

// LeaseStats counts for one loop.
type LeaseStats struct {
	Hits   uint64 // takes answered from what was held, or from the knowledge that there is nothing
	Misses uint64 // takes that asked the Limit
}

// NewLease makes the Lease of one of so many loops, for some keys at a time: a power of two, at least four, of 120 bytes each.
// A key that has no room displaces one of four, the one that was idle for longest, whose tokens are given back.
func NewLease(l *Limit, loops, keys int) (*Lease, error) {
	if loops < 1 || keys < 1 || keys > MaxLeaseKeys {
		return nil, fmt.Errorf("cannot make lease: %d loops and %d keys, at least 1 of each and at most %d keys are possible", loops, keys, MaxLeaseKeys)
	}
	keys = 1 << bits.Len(uint(max(keys, leaseWays)-1))
	e := &Lease{slots: make([]leased, keys), sets: uint64(keys / leaseWays)}
	e.serve(l, loops)
	return e, nil
}

// serve sets the batches for a limit.
func (e *Lease) serve(l *Limit, loops int) {
	e.limit, e.batch, e.pause = l, batchOf(l, loops), int64(MaxPeriod)
	for i := range l.rules {
		r := &l.rules[i]
		fill := float64(min(r.limit, r.capacity())) / float64(r.limit) * float64(r.period)
		e.pause = min(e.pause, int64(fill)/int64(leaseShare*loops))
	}
}

// batchOf is how many tokens a loop takes at once; 1 stands for no batches.
func batchOf(l *Limit, loops int) uint32 {
	batch := uint64(1 << 16)
	for i := range l.rules {
		r := &l.rules[i]
		if r.Algorithm == LeakyBucket || r.Algorithm == inFlight {
			return 1
		}
		// Of a bucket that is shallower than its limit no more than a part either, or one loop would empty it.
		batch = min(batch, min(r.limit, r.capacity())/uint64(leaseShare*loops))
	}
	return uint32(max(batch, 1))
}

// Take implements Limiter.
func (e *Lease) Take(key Key, cost uint32, now int64) Decision {
	if e.batch == 1 {
		e.stats.Misses++
		return e.limit.Take(key, cost, now)
	}
	s := e.slot(key, now)
	s.touched = now
	if d, known := s.decide(cost, now); known {
		e.stats.Hits++
		if d.Allowed {
			s.held -= cost
		}
		return d
	}
	e.stats.Misses++
	e.giveBack(s, now) // less than the cost, or not good any more
	return e.draw(s, cost, now)
}

// Peek says what Take would say, and takes nothing.
func (e *Lease) Peek(key Key, cost uint32, now int64) Decision {
	if e.batch > 1 {
		if s := e.known(key); s != nil {
			if d, known := s.decide(cost, now); known {
				return d
			}
			if s.held > 0 && cost > s.held { // of which a part is here
				return e.limit.Peek(key, cost-s.held, now)
			}
		}
	}
	return e.limit.Peek(key, cost, now)
}

// Refund gives back what a Take of cost took at the time at.
func (e *Lease) Refund(key Key, cost uint32, at, now int64) {
	if e.batch > 1 {
		if s := e.known(key); s != nil && at >= s.drawn && now < s.until && s.held+cost < e.batch {
			s.held += cost
			return
		} else if s != nil {
			s.last.Remaining += cost
			s.empty = 0
		}
	}
	e.limit.Refund(key, cost, at, now)
}

// Settle gives back what was not used for 100 ms. The loop calls it from a timer, ten times a second or more; each call looks
// at 64 keys at most.
func (e *Lease) Settle(now int64) {
	for range min(settleStep, len(e.slots)) {
		s := &e.slots[e.next]
		if s.held > 0 && (now-s.touched >= leaseIdle || now >= s.until) {
			e.giveBack(s, now)
		}
		e.next = (e.next + 1) % len(e.slots)
	}
}

// Move gives back all that is held, and goes on with another Limit, as after a Reconfigure. With the same Limit it ends the
// lease, as before a hand-over.
func (e *Lease) Move(l *Limit, loops int, now int64) {
	for i := range e.slots {
		e.giveBack(&e.slots[i], now)
		e.slots[i] = leased{}
	}
	e.serve(l, max(loops, 1))
}

// Held is how many tokens the loop holds for a key.
func (e *Lease) Held(key Key) uint32 {
	if s := e.known(key); s != nil {
		return s.held
	}
	return 0
}

// Stats reads the counters.
func (e *Lease) Stats() LeaseStats { return e.stats }

// set is the slots that may hold a key.
func (e *Lease) set(key Key) []leased {
	first := key.Lo >> 32 & (e.sets - 1) * leaseWays
	return e.slots[first : first+leaseWays]
}

// known is the key's slot, nil if it has none.
func (e *Lease) known(key Key) *leased {
	set := e.set(key)
	for i := range set {
		if set[i].key == key && set[i].live {
			return &set[i]
		}
	}
	return nil
}

// slot is the key's, made if it has none.
func (e *Lease) slot(key Key, now int64) *leased {
	if s := e.known(key); s != nil {
		return s
	}
	set := e.set(key)
	oldest := &set[0]
	for i := range set {
		if !set[i].live {
			oldest = &set[i]
			break
		}
		if set[i].touched < oldest.touched {
			oldest = &set[i]
		}
	}
	e.giveBack(oldest, now)
	*oldest = leased{key: key, live: true}
	return oldest
}

// decide answers from what is known here.
func (s *leased) decide(cost uint32, now int64) (d Decision, known bool) {
	if cost <= s.held && cost > 0 && now < s.until {
		d = s.last
		d.Remaining += s.held - cost
		d.Reset = max(0, d.Reset-time.Duration(now-s.drawn))
		return d, true
	}
	if now < s.empty && cost >= s.emptyCost && now >= s.drawn {
		d = s.last
		d.RetryAfter = time.Duration(max(s.back-now, 1))
		d.Reset = max(0, d.Reset-time.Duration(now-s.drawn))
		return d, true
	}
	return d, false
}

// draw takes cost and a batch beyond it, or as much of that as there is.
func (e *Lease) draw(s *leased, cost uint32, now int64) Decision {
	l := e.limit
	want := uint64(cost) + uint64(e.batch) - 1
	if cost == 0 || want > 1<<31 {
		return l.Take(s.key, cost, now)
	}
	d := l.Take(s.key, uint32(want), now)
	if !d.Allowed && d.Remaining > cost && uint64(d.Remaining) < want {
		want = uint64(d.Remaining)
		d = l.Take(s.key, uint32(want), now)
	}
	if !d.Allowed {
		want = uint64(cost)
		d = l.Take(s.key, cost, now)
	}
	s.last, s.drawn, s.empty = d, now, 0
	if !d.Allowed {
		if d.RetryAfter > 0 && d.RetryAfter != Never {
			s.back = now + int64(d.RetryAfter)
			s.empty, s.emptyCost = max(s.back, now+e.pause), cost
		}
		return d
	}
	s.held = uint32(want) - cost
	s.until = l.goodUntil(now)
	d.Remaining += s.held
	return d
}

func (e *Lease) giveBack(s *leased, now int64) {
	if s.held > 0 {
		e.limit.Refund(s.key, s.held, s.drawn, now)
		s.held, s.empty = 0, 0
	}
}

// goodUntil is how long tokens drawn now may be kept: to the end of the window that ends first. Those of a token bucket
// are as good at any time.
func (l *Limit) goodUntil(now int64) int64 {
	until := int64(1<<63 - 1)
	for i := range l.rules {
		if r := &l.rules[i]; r.interval == 0 {
			until = min(until, now+r.period-phase(now, r.period))
		}
	}
	return until
}
