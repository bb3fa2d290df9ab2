package limits

import "time"

// Concurrency: how many are in flight, after the semaphore of E. W. Dijkstra (EWD 123, Cooperating Sequential Processes, 1965),
// with leases as in C. Gray and D. Cheriton, Leases: An Efficient Fault-Tolerant Mechanism (SOSP 1989), so that one who is never
// released does not hold his place for ever. The state is that of two windows whose period is the term of the lease: who
// begins is counted in the current one, a release is taken from the window in which it began, and what is still counted
// when the window after that has ended is dropped. So a lease holds for at least one term, and at most two.

// concurrency begins cost.
func concurrency(state uint64, r *rule, cost uint32, now int64) (next uint64, o outcome) {
	p := pairAt(state, r.period, now)
	used := p.current + p.previous
	o.remaining = r.limit - min(used, r.limit)
	if uint64(cost) > o.remaining {
		if uint64(cost) > r.limit {
			o.wait = int64(Never)
		}
		if p.astray {
			state = p.state()
		}
		return state, o
	}
	o.allowed = true
	if cost > 0 {
		o.remaining -= uint64(cost)
		p.current += uint64(cost)
		state = p.state()
	}
	return state, o
}

// Concurrency bounds how many are in flight for each key. All loops share it. now is in ns, on a clock that all use.
type Concurrency struct{ limit *Limit }

// Ticket is what was begun, to be given to Release once. A copy of it is the same ticket.
type Ticket struct {
	key   Key
	begun int64
	cost  uint32
}

// NewConcurrency makes one that admits most in flight for a key, 1 to MaxWindowCount. What is not released within a term, or
// renewed, is dropped at the latest when a second term has passed; a term is at least a second, for the clocks of loops differ.
func NewConcurrency(most uint32, term time.Duration, capacity int) (*Concurrency, error) {
	l, err := NewLimit(concurrencySpec(most, term, capacity))
	if err != nil {
		return nil, err
	}
	return &Concurrency{l}, nil
}

func concurrencySpec(most uint32, term time.Duration, capacity int) Spec {
	return Spec{Windows: []Window{{Algorithm: inFlight, Limit: most, Period: max(term, time.Second)}}, Capacity: capacity}
}

// Reconfigure gives a Concurrency with another bound, which has the same places in flight: tickets of either may be released on
// either. Another term or capacity begins with nothing in flight.
func (c *Concurrency) Reconfigure(most uint32, term time.Duration, capacity int, now int64) (*Concurrency, error) {
	s := concurrencySpec(most, term, capacity)
	if s.Windows[0].Period != c.limit.rules[0].Period || clampCapacity(capacity) != c.limit.capacity {
		return NewConcurrency(most, term, capacity)
	}
	l, err := c.limit.Reconfigure(s, now)
	if err != nil {
		return nil, err
	}
	return &Concurrency{l}, nil
}

// Begin takes cost places of key, or none. If it was allowed, one Release must follow.
func (c *Concurrency) Begin(key Key, cost uint32, now int64) (Ticket, Decision) {
	d := c.limit.Take(key, cost, now)
	if !d.Allowed {
		return Ticket{}, d
	}
	return Ticket{key, now, cost}, d
}

// Release ends what Begin began. The zero Ticket, and one whose term ran out, release nothing.
func (c *Concurrency) Release(t Ticket, now int64) {
	if t.cost > 0 {
		c.limit.Refund(t.key, t.cost, t.begun, now)
	}
}

// Renew begins a new term for a ticket, which must not be released any more: the one it gives is to be. Who holds longer than a term,
// as a tunnel does, renews at least once in each.
func (c *Concurrency) Renew(t Ticket, now int64) Ticket {
	if t.cost == 0 || pairIndex(t.begun, c.limit.rules[0].period) == pairIndex(now, c.limit.rules[0].period) {
		return t
	}
	c.Release(t, now)
	c.limit.Charge(t.key, t.cost, now)
	return Ticket{t.key, now, t.cost}
}

// InFlight is how many places of key are taken.
func (c *Concurrency) InFlight(key Key, now int64) uint32 {
	s := c.limit.memory.find(key)
	if s.words == nil {
		return 0
	}
	p := pairAt(c.limit.state(s.state(0).Load(), s, 0, now), c.limit.rules[0].period, now)
	return uint32(p.current + p.previous)
}

// Stats reads the counters of the table.
func (c *Concurrency) Stats() Stats { return c.limit.Stats() }
