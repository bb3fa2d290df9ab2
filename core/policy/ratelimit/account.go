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
