package limits

// The fixed window: a counter that starts anew at each multiple of the period. It is what quotas "per day" mean, and no more:
// around a boundary twice the limit may come within one period. Described, with that warning, in S. Nomula,
// How we built rate limiting capable of scaling to millions of domains (Cloudflare, 2017), and RFC 6585, section 4 leaves
// the counting to the server.
//
// The state is 26 bits of the window's number and 32 of the count.

const (
	fixedCountBits = 32
	fixedIndexBits = 64 - stateShift - fixedCountBits
)

// fixedWindow takes cost of a fixed window.
func fixedWindow(state uint64, r *rule, cost uint32, now int64) (next uint64, o outcome) {
	count, later, astray := fixedRead(state, r.period, now)
	o.reset = r.period - phase(now, r.period)
	if later { // another loop has begun the next window already
		now += o.reset
		o.reset += r.period
	}
	if count+uint64(cost) > r.limit {
		o.remaining = r.limit - min(count, r.limit)
		o.wait = o.reset
		if uint64(cost) > r.limit {
			o.wait = int64(Never)
		}
		if astray {
			state = fixedState(r.period, count, now)
		}
		return state, o
	}
	if cost > 0 {
		state = fixedState(r.period, count+uint64(cost), now)
	}
	o.allowed, o.remaining = true, r.limit-count-uint64(cost)
	return state, o
}

// fixedRead gives the count of now's window. later says that the state is of the next one, since the clocks of loops differ
// by a little, and astray that it is of one further ahead: the clock was set back, and the count is taken for now's.
func fixedRead(state uint64, period, now int64) (count uint64, later, astray bool) {
	if state == 0 {
		return 0, false, false
	}
	count = state >> stateShift & (1<<fixedCountBits - 1)
	switch age := signed(uint64(windowIndex(now, period))-state>>(stateShift+fixedCountBits), fixedIndexBits); {
	case age > 0:
		return 0, false, false
	case age == 0:
		return count, false, false
	case age == -1:
		return count, true, false
	}
	return count, false, true
}

func fixedUsed(state uint64, period, now int64) uint64 {
	count, _, _ := fixedRead(state, period, now)
	return count
}

// fixedState is count used of now's window. A count is at least 1 where it is written.
func fixedState(period int64, count uint64, now int64) uint64 {
	return uint64(windowIndex(now, period))<<(stateShift+fixedCountBits) | count<<stateShift
}

// fixedRefund gives cost back if the window of the time at is still the state's. One that was counted in the next window
// already, because another loop's clock was ahead, stays taken: it cannot be told from one that has passed.
func fixedRefund(state uint64, r *rule, cost uint32, at int64) uint64 {
	index := state >> (stateShift + fixedCountBits)
	if state == 0 || signed(index-uint64(windowIndex(at, r.period)), fixedIndexBits) != 0 {
		return state
	}
	count := state >> stateShift & (1<<fixedCountBits - 1)
	if count <= uint64(cost) {
		return 0
	}
	return state - uint64(cost)<<stateShift
}

// signed reads the low bits of v as a number with a sign: how far one wrapped count is behind another.
func signed(v uint64, bits uint) int64 { return int64(v<<(64-bits)) >> (64 - bits) }
