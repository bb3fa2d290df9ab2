package redis

import (
	"errors"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/limits"
)

// What the script is to do.
const (
	take = iota
	charge
	refund
)

const (
	// maxWaiting bounds the questions that wait for the next batch of a part. One that finds no room is answered at once: it takes as many as
	// a Redis can answer in a timeout, and some.
	maxWaiting = 4096
	// maxBatch bounds the commands that are under way at once to a part.
	maxBatch = 512
)

// question is one of the things that Redis is asked for: tokens ahead of need, a charge, or a call.
type question struct {
	buckets *Buckets
	key     limits.Key
	tokens  uint32
	op      uint8
	call    *call // of somebody who waits; the rest is not used
}

// call is a take whose answer is waited for. Who waits may leave: nothing in it belongs to him.
type call struct {
	part       *part
	keys, args []string
	until      time.Time // after which nobody waits
	done       chan answer
}

// put hands a question to whoever speaks with Redis. The send on a channel with room is what a post to a loop is: it wakes a goroutine and
// waits for none.
func (c *Client) put(q question) bool {
	p := (*part)(nil)
	if q.call != nil {
		p = q.call.part
	} else {
		p = c.layout.Load().at(q.buckets.slot(q.key))
	}
	select {
	case p.questions <- q:
		return true
	default:
		c.counts.dropped.Add(1)
		return false
	}
}

// What a Take may fail with.
var (
	ErrAway    = errors.New("redis is away")
	ErrTimeout = errors.New("redis did not answer in time")
	ErrBusy    = errors.New("too many questions wait for redis")
	ErrApart   = errors.New("buckets are not on one node of redis")
)

// AwayFor says that nobody waits now for the part of Redis that has the buckets of these asks. It may be called on a loop.
func (c *Client) AwayFor(levels []*Buckets, asks []limits.Ask) bool {
	for i, b := range levels {
		if asks[i].Cost > 0 { // the others are beside it
			return b.part(asks[i].Key).away.Load()
		}
	}
	return false
}

// Take takes of the buckets of all asks or of none, each with those of its own level; Cost 0: the level is not concerned. Levels that are
// Together may be concerned at once. It waits for the answer, at most the Timeout, and not at all while the part of Redis that
// has them is away. It is not called on a loop.
func (c *Client) Take(levels []*Buckets, asks []limits.Ask) (d limits.Decision, err error) {
	if c.AwayFor(levels, asks) {
		c.CountAlone()
		return d, ErrAway
	}
	now := time.Now()
	one := &call{args: []string{"take"}, until: now.Add(c.spec.Timeout), done: make(chan answer, 1)}
	slot := 0
	var concerned [limits.MaxLevels]int
	for i, b := range levels {
		if asks[i].Cost == 0 {
			continue
		}
		at := b.slot(asks[i].Key)
		if len(one.keys) > 0 && at != slot {
			return d, ErrApart
		}
		slot = at
		concerned[len(one.keys)] = i
		one.keys = append(one.keys, b.name(asks[i].Key))
		cost := strconv.FormatUint(uint64(asks[i].Cost), 10)
		one.args = append(append(one.args, cost, cost), b.args...)
	}
	if len(one.keys) == 0 {
		return limits.Decision{Allowed: true}, nil
	}
	one.part = c.layout.Load().at(slot)
	a := c.wait(one)
	if a.err != nil {
		return d, a.err
	}
	level := concerned[a.key]
	return levels[level].decision(a, level), nil
}

// Peek says what remains of a key, and takes nothing. It waits as Take does.
func (b *Buckets) Peek(key limits.Key) (d limits.Decision, err error) {
	a := b.call("take", key)
	return b.decision(a, 0), a.err
}

// Forget makes a key's bucket full, and says whether anything of it was used. It waits as Take does.
func (b *Buckets) Forget(key limits.Key) (used bool, err error) {
	a := b.call("forget", key)
	return a.allowed, a.err
}

func (b *Buckets) call(op string, key limits.Key) answer {
	c, p := b.client, b.part(key)
	if p.away.Load() {
		return answer{err: ErrAway}
	}
	return c.wait(&call{part: p, keys: []string{b.name(key)}, args: append([]string{op, "0", "0"}, b.args...), until: time.Now().Add(c.spec.Timeout),
		done: make(chan answer, 1)})
}

// wait asks, and waits for the answer until nobody would any more.
func (c *Client) wait(one *call) answer {
	if !c.put(question{call: one}) {
		return answer{err: ErrBusy}
	}
	timer := time.NewTimer(c.spec.Timeout)
	defer timer.Stop()
	select {
	case a := <-one.done:
		return a
	case <-timer.C:
		c.counts.timeouts.Add(1)
		one.part.lost(ErrTimeout, one.keys[0])
		return answer{err: ErrTimeout}
	}
}

// command is a question as Redis gets it.
func (q *question) command() (keys, args []string) {
	if q.call != nil {
		return q.call.keys, q.call.args
	}
	n := strconv.FormatUint(uint64(q.tokens), 10)
	switch q.op {
	case charge:
		args = []string{"charge", "0", n}
	case refund:
		args = []string{"refund", "0", n}
	default: // whatever there is of them
		args = []string{"take", "1", n}
	}
	return []string{q.buckets.name(q.key)}, append(args, q.buckets.args...)
}

// answer tells whoever asked.
func (c *Client) answer(q *question, a answer) {
	if q.call != nil {
		q.call.done <- a
		return
	}
	if q.op != take {
		return
	}
	cluster := q.buckets.cluster.Load()
	switch now := c.spec.Clock(); {
	case cluster == nil:
	case a.err != nil:
		cluster.Fail(q.key, retryEvery, now)
	case a.allowed:
		cluster.Grant(q.key, a.granted, now)
	default:
		cluster.Empty(q.key, a.retry, now)
	}
}

// refuse answers without asking.
func (c *Client) refuse(q *question, err error) { c.answer(q, answer{err: err}) }
