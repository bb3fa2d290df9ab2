package limits

import "fmt"

// MaxLevels is how many levels a Hierarchy may have.
const MaxLevels = 8

// Level is a limiter that can be one of several: a Limit, or the loop's Lease of one.
type Level interface {
	Limiter
	Peek(key Key, cost uint32, now int64) Decision
	Refund(key Key, cost uint32, at, now int64)
}

// Ask is what one level is asked for. Cost 0: the level is not concerned, as for a request without tenant.
type Ask struct {
	Key  Key
	Cost uint32
}

// Hierarchy takes of several levels as one decision: of all or of none. Levels are in order from the outermost, such as the whole
// gateway, to the innermost, such as a client. If its levels are Leases it belongs to their loop, otherwise all may share it.
//
// All levels are looked at before anything is taken, so that a refusal costs no level anything, not even for a moment. Then
// the innermost takes, then the others. What was looked at may be gone by then, taken by another loop: then everything is
// given back, and the request is refused. Given back is exactly what was taken, and a level never gets more than it had
// room for, so that a level admits at most its limit and the cost of such decisions as are under way at one time.
type Hierarchy struct{ levels []Level }

// NewHierarchy makes one of 1 to MaxLevels levels.
func NewHierarchy(levels ...Level) (*Hierarchy, error) {
	if len(levels) < 1 || len(levels) > MaxLevels {
		return nil, fmt.Errorf("cannot make hierarchy: %d levels, 1 to %d are possible", len(levels), MaxLevels)
	}
	return &Hierarchy{append([]Level(nil), levels...)}, nil
}

// Take asks each level for its part; there is one Ask for each, else it panics. The Decision is of the outermost level that
// refused, or of the one with the least left. If no level is concerned it is allowed, and of no level: its Limit is 0.
func (h *Hierarchy) Take(asks []Ask, now int64) Decision {
	if len(asks) != len(h.levels) {
		panic("BUG: a hierarchy was asked for another number of levels than it has")
	}
	innermost := len(asks) - 1
	for innermost >= 0 && asks[innermost].Cost == 0 {
		innermost--
	}
	for i := range max(innermost, 0) {
		if a := asks[i]; a.Cost > 0 {
			if d := h.levels[i].Peek(a.Key, a.Cost, now); !d.Allowed {
				d.Level = uint8(i)
				return d
			}
		}
	}
	all := Decision{Allowed: true}
	for i := innermost; i >= 0; i-- {
		a := asks[i]
		if a.Cost == 0 {
			continue
		}
		d := h.levels[i].Take(a.Key, a.Cost, now)
		d.Level = uint8(i)
		if !d.Allowed {
			h.refund(asks, i+1, now, now)
			return d
		}
		delay := max(all.Delay, d.Delay)
		if all.Limit == 0 || d.Remaining < all.Remaining {
			all = d
		}
		all.Delay = delay
	}
	return all
}

// Refund gives back what a Take of the same asks took at the time at, as for a request that was not served after all.
func (h *Hierarchy) Refund(asks []Ask, at, now int64) { h.refund(asks, 0, at, now) }

// refund gives back to the levels from first on.
func (h *Hierarchy) refund(asks []Ask, first int, at, now int64) {
	for i := first; i < len(asks); i++ {
		if asks[i].Cost > 0 {
			h.levels[i].Refund(asks[i].Key, asks[i].Cost, at, now)
		}
	}
}
