package ratelimit

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
)

// topKeys is how many of the keys that are refused most often are remembered.
const topKeys = 32

// Counts are of one level, on one loop.
type Counts struct {
	Allowed uint64 // took of it
	Refused uint64 // because of it
	Passed  uint64 // would have been refused but for dry_run or share
}

// account is a loop's part of a level: its way to the limit, and what it counts. Only the loop touches it.
//
// The policies of one name that follow each other have the same account. So an exchange that began under an old configuration
// takes of the limit in force: one that has been replaced several times may not be taken of any more (see limits.Limit.Reconfigure).
type account struct {
	limit  *limits.Limit
	lease  *limits.Lease // of limit; nil: it is asked itself
	counts Counts
}

// Take implements limits.Level, as do Peek and Refund.
func (c *account) Take(key limits.Key, cost uint32, now int64) limits.Decision {
	if c.lease != nil {
		return c.lease.Take(key, cost, now)
	}
	return c.limit.Take(key, cost, now)
}

func (c *account) Peek(key limits.Key, cost uint32, now int64) limits.Decision {
	if c.lease != nil {
		return c.lease.Peek(key, cost, now)
	}
	return c.limit.Peek(key, cost, now)
}

func (c *account) Refund(key limits.Key, cost uint32, at, now int64) {
	if c.lease != nil {
		c.lease.Refund(key, cost, at, now)
		return
	}
	c.limit.Refund(key, cost, at, now)
}

// blamed is whom a policy has refused on a loop, and how many it has delayed.
type blamed struct {
	top     *limits.Top // made when somebody is refused
	label   []byte      // memory for a key's text
	delayed uint64
}

func (b *blamed) add(key limits.Key, keys *core.KeyRecipe, x *core.Exchange) {
	if b.top == nil {
		b.top, _ = limits.NewTop(topKeys) // fails only for a number out of range
	}
	b.label = keys.AppendText(b.label[:0], x)
	b.top.Add(key, b.label)
}
