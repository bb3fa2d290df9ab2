package limits

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Source is where the tokens of a limit come from that several nodes share.
type Source interface {
	// Ask asks for tokens of a key; it is answered by Grant, Empty or Fail of the Cluster, from any goroutine. It is called on a loop
	// and must neither block nor allocate: it hands the question to whoever speaks with the cluster. false: there is no room
	// for it.
	Ask(key Key, tokens uint32, now int64) bool
	// Part says which part of the Source has the key, from 0 to MaxParts-1: each part may fail and come back by itself. It neither blocks nor
	// allocates; what it says may change.
	Part(key Key) int
}

// MaxParts bounds the parts of a Source.
const MaxParts = 128

// askAgain is when a question is put again for which the Source had no room.
const askAgain = 20 * time.Millisecond

// Away is what a Cluster does while its Source is away.
type Away uint8

// What may be done: decide by a limit of this node alone, admit everything, or nothing.
const (
	AwayLocal Away = iota
	AwayAllow
	AwayDeny
)

// ClusterSpec is what a Cluster is made of.
type ClusterSpec struct {
	Limit  uint32        // of the cluster's bucket: no cost may be greater
	Period time.Duration // in which that many come
	// Batch is how many tokens a node asks for ahead of need; 0 stands for 1/100 of Limit, at least 1.
	Batch uint32
	// Credit is how many tokens of a key a node may admit before the first answer has come; 0 stands for 1/20 of Limit, at
	// least 1. What it owes it asks for first.
	Credit   uint32
	Capacity int
	Away     Away
	Local    *Limit        // with AwayLocal: who decides then; it may be the limit as it would be without a cluster
	Answer   time.Duration // after which a question is taken for lost, a minute at most; 0 stands for 1 s
	Good     time.Duration // for which tokens are kept that are not used; 0 stands for 1 s, or Period if that is less
}

// Cluster is a limiter whose tokens are granted by a Source, ahead of need: no request waits for the cluster. All loops
// share it; no method takes a lock or allocates. Keys are to be made with a Seed that all nodes have.
//
// The bound. A node has at most Batch tokens of a key that it has not used, and owes at most Credit and one cost. All
// else that it admits was granted. So n nodes together exceed what the Source grants in any span by at most n*(Batch +
// Credit + the greatest cost), once, and not again while they owe it. A debt is remembered for a Period, a day at most.
// Where the cluster has less than is asked for it is asked again when two batches can have come.
//
// When a part of the Source fails, Away decides at once, for all keys of that part, and one question in each pause tries whether it is back.
// What was admitted meanwhile was not granted.
type Cluster struct {
	rule  stockRule
	limit uint32
	table *table
	// capacity is that of the table, in keys.
	capacity int
	source   Source
	away     Away
	local    *Limit

	_        [64]byte
	gone     atomic.Int32                      // parts of the source that are away
	absences atomic.Pointer[[MaxParts]absence] // nil: none has ever been
	stats    clusterCounters
}

// absence is that of a part of the source.
type absence struct {
	now   atomic.Bool
	until atomic.Int64 // it is tried again at that time
	pause atomic.Int64 // ns
}

type clusterCounters struct{ asks, unasked, granted, failures, alone atomic.Uint64 }

// ClusterStats counts since the start.
type ClusterStats struct {
	Asks     uint64 // questions to the Source
	Unasked  uint64 // for which it had no room
	Granted  uint64 // tokens
	Failures uint64
	Alone    uint64 // decisions made while it was away
}

// NewCluster makes a Cluster. It takes TableBytes(s.Capacity), besides Local.
func NewCluster(s ClusterSpec, source Source) (*Cluster, error) {
	batch, credit := int64(s.Batch), int64(s.Credit)
	if batch == 0 {
		batch = max(1, int64(s.Limit)/100)
	}
	if credit == 0 {
		credit = max(1, int64(s.Limit)/20)
	}
	switch {
	case s.Limit == 0 || s.Limit > stockMax/4:
		return nil, fmt.Errorf("cannot make cluster limit: limit %d is not within 1 and %d", s.Limit, stockMax/4)
	case s.Period < time.Millisecond || s.Period > MaxPeriod:
		return nil, fmt.Errorf("cannot make cluster limit: period %v is not within 1ms and %v", s.Period, MaxPeriod)
	case batch > int64(s.Limit) || credit > int64(s.Limit):
		return nil, fmt.Errorf("cannot make cluster limit: batch %d and credit %d must not be above the limit %d", batch, credit, s.Limit)
	case s.Answer < 0 || s.Answer > time.Minute || s.Good < 0 || s.Good > time.Hour:
		return nil, fmt.Errorf("cannot make cluster limit: answer %v is not within 0 and 1m, or good %v not within 0 and 1h", s.Answer, s.Good)
	case source == nil || s.Away > AwayDeny || s.Away == AwayLocal && s.Local == nil:
		return nil, fmt.Errorf("cannot make cluster limit: it has no source, or no limit of its own for when that is away")
	}
	answer, good := s.Answer, s.Good
	if answer == 0 {
		answer = time.Second
	}
	if good == 0 {
		good = min(time.Second, s.Period)
	}
	r := stockRule{limit: int64(s.Limit), batch: batch, credit: credit, answer: int64(answer)}
	r.good, r.memory = int64(good/stockUnit)+1, int64(min(s.Period, stockMemory)/stockUnit)+1
	r.pace = int64(min(2*float64(batch)/float64(s.Limit)*float64(s.Period), float64(time.Minute)))
	return &Cluster{rule: r, limit: s.Limit, table: newTable(s.Capacity, 1), capacity: clampCapacity(s.Capacity), source: source, away: s.Away, local: s.Local}, nil
}

// Take implements Limiter.
func (c *Cluster) Take(key Key, cost uint32, now int64) Decision {
	if a := c.absent(key); a != nil {
		c.stats.alone.Add(1)
		c.try(a, key, now)
		return c.takeAlone(a, key, cost, now)
	}
	for range takeTries {
		s := c.table.find(key)
		if s.words == nil {
			if s = c.table.claim(key, now, c); s.words == nil {
				break
			}
		}
		word := s.state(0)
		for {
			was := word.Load()
			state, ask, o := c.rule.take(stockState(was, s), cost, now)
			if !word.CompareAndSwap(was, state|s.owner()) {
				continue
			}
			if !s.ours() {
				break
			}
			if ask > 0 {
				c.ask(key, ask, now)
			}
			return Decision{Allowed: o.allowed, Limit: c.limit, Remaining: uint32(o.remaining), RetryAfter: time.Duration(o.wait)}
		}
	}
	c.table.untracked.Add(1)
	return Decision{Allowed: true, Limit: c.limit}
}

// Peek says what Take would say, and neither takes nor asks.
func (c *Cluster) Peek(key Key, cost uint32, now int64) Decision {
	if a := c.absent(key); a != nil {
		if c.away == AwayLocal {
			return c.local.Peek(key, cost, now)
		}
		return c.takeAlone(a, key, cost, now)
	}
	state := uint64(0)
	if s := c.table.find(key); s.words != nil {
		state = stockState(s.state(0).Load(), s)
	}
	_, _, o := c.rule.take(state, cost, now)
	return Decision{Allowed: o.allowed, Limit: c.limit, Remaining: uint32(o.remaining), RetryAfter: time.Duration(o.wait)}
}

// Refund gives back what a Take of cost took at the time at.
func (c *Cluster) Refund(key Key, cost uint32, at, now int64) {
	if c.absent(key) != nil {
		if c.away == AwayLocal {
			c.local.Refund(key, cost, at, now)
		}
		return
	}
	c.change(key, now, func(state uint64) uint64 {
		s := c.rule.at(state, now)
		s.balance += int64(cost)
		return s.state()
	})
}

// Charge takes cost although it may not be there, as for a cost that is known only after the fact: the cluster is asked for what is
// owed. A node may owe as much as Limit; what is more is forgiven, as is what is charged of a key that was forgotten meanwhile. While
// the Source is away a Cluster with a Local charges that.
func (c *Cluster) Charge(key Key, cost uint32, now int64) {
	if c.absent(key) != nil {
		if c.away == AwayLocal {
			c.local.Charge(key, cost, now)
		}
		return
	}
	s := c.table.find(key)
	if s.words == nil || cost == 0 {
		return
	}
	for word := s.state(0); ; {
		was := word.Load()
		state, ask := c.rule.charge(stockState(was, s), cost, now)
		if !word.CompareAndSwap(was, state|s.owner()) {
			continue
		}
		if ask > 0 && s.ours() {
			c.ask(key, ask, now)
		}
		return
	}
}

// Forget makes key one that was never seen here. What the cluster counts stays.
func (c *Cluster) Forget(key Key) bool { return c.table.forget(key) }

// Table is the state of the table of keys.
func (c *Cluster) Table() Stats {
	t := c.table
	return Stats{c.capacity, len(t.words) * 8, int(t.slots), t.used.Load(), t.evicted.Load(), t.untracked.Load()}
}

// Grant answers an Ask with tokens of key. It also says that the key's part of the Source is there. A key that was forgotten meanwhile
// gets nothing.
func (c *Cluster) Grant(key Key, tokens uint32, now int64) {
	c.back(key)
	if c.change(key, now, func(state uint64) uint64 { return c.rule.grant(state, tokens, now) }) {
		c.stats.granted.Add(uint64(tokens))
	}
}

// Empty answers an Ask: the Source is there, but has no tokens of key. It is asked again after retry, 4 minutes at most.
func (c *Cluster) Empty(key Key, retry time.Duration, now int64) {
	c.back(key)
	c.hush(key, max(int64(retry), c.rule.pace), now)
}

func (c *Cluster) hush(key Key, ns, now int64) {
	c.change(key, now, func(state uint64) uint64 { return c.rule.pause(state, ns, now) })
}

// Fail answers an Ask: the key's part of the Source is away. It is tried again when pause has passed, and from then on once in each
// pause, until a Grant of a key of that part comes.
func (c *Cluster) Fail(key Key, pause time.Duration, now int64) {
	c.stats.failures.Add(1)
	if c.absences.Load() == nil {
		c.absences.CompareAndSwap(nil, new([MaxParts]absence))
	}
	a := &c.absences.Load()[c.part(key)]
	a.pause.Store(max(int64(pause), int64(askAgain)))
	a.until.Store(now + a.pause.Load())
	if a.now.CompareAndSwap(false, true) {
		c.gone.Add(1)
	}
	c.hush(key, 0, now) // its question is no longer on its way
}

// back ends the absence of the key's part.
func (c *Cluster) back(key Key) {
	if a := c.absent(key); a != nil && a.now.CompareAndSwap(true, false) {
		c.gone.Add(-1)
	}
}

// absent is the absence of the key's part; nil: it is there.
func (c *Cluster) absent(key Key) *absence {
	if c.gone.Load() == 0 {
		return nil
	}
	if a := &c.absences.Load()[c.part(key)]; a.now.Load() {
		return a
	}
	return nil
}

func (c *Cluster) part(key Key) int { return max(0, min(c.source.Part(key), MaxParts-1)) }

// Gone says whether the Source, or a part of it, is away.
func (c *Cluster) Gone() bool { return c.gone.Load() > 0 }

// try asks for a token while the key's part is away, once in each pause.
func (c *Cluster) try(a *absence, key Key, now int64) {
	if until := a.until.Load(); now >= until && a.until.CompareAndSwap(until, now+a.pause.Load()) {
		c.stats.asks.Add(1)
		if !c.source.Ask(key, 1, now) {
			c.stats.unasked.Add(1)
		}
	}
}

// Stats reads the counters.
func (c *Cluster) Stats() ClusterStats {
	s := &c.stats
	return ClusterStats{s.asks.Load(), s.unasked.Load(), s.granted.Load(), s.failures.Load(), s.alone.Load()}
}

// takeAlone decides while the key's part of the source is away.
func (c *Cluster) takeAlone(a *absence, key Key, cost uint32, now int64) Decision {
	switch c.away {
	case AwayLocal:
		return c.local.Take(key, cost, now)
	case AwayAllow:
		return Decision{Allowed: true, Limit: c.limit, Remaining: c.limit}
	}
	return Decision{Limit: c.limit, RetryAfter: time.Duration(max(1, a.until.Load()-now))}
}

func (c *Cluster) ask(key Key, tokens, now int64) {
	c.stats.asks.Add(1)
	if !c.source.Ask(key, uint32(min(tokens, c.rule.limit)), now) {
		c.stats.unasked.Add(1)
		c.hush(key, int64(askAgain), now)
	}
}

// change applies f to the state of a key that is known.
func (c *Cluster) change(key Key, now int64, f func(state uint64) uint64) bool {
	s := c.table.find(key)
	if s.words == nil {
		return false
	}
	for word := s.state(0); ; {
		was := word.Load()
		if word.CompareAndSwap(was, f(stockState(was, s))|s.owner()) {
			return s.ours()
		}
	}
}

// weight is what would be forgotten with a key: its debt or its tokens.
func (c *Cluster) weight(s slot, now int64) int64 {
	st := c.rule.at(stockState(s.state(0).Load(), s), now)
	switch {
	case st.balance != 0:
		return 1 + max(st.balance, -st.balance)
	case st.quiet > 0:
		return 1
	}
	return 0
}

func stockState(word uint64, s slot) uint64 {
	if word&ownerMask != s.owner() {
		return 0
	}
	return word &^ lowMask
}
