package limits

// pair is a state of two counters, of the current window and of the one before: 18 bits of the window's number, 20 for
// each count. The numbers wrap: a key that comes back after 262,144 windows to the window finds its old counts.
type pair struct {
	index             int64
	current, previous uint64
	astray            bool // the clock was set back by more than a window
}

const (
	pairCountBits = 20
	pairIndexBits = 64 - stateShift - 2*pairCountBits
	pairMax       = 1<<pairCountBits - 1
)

func (p pair) state() uint64 {
	if p.current == 0 && p.previous == 0 {
		return 0
	}
	return uint64(p.index)<<(stateShift+2*pairCountBits) | p.current<<(stateShift+pairCountBits) | p.previous<<stateShift
}

func pairIndex(now, period int64) int64 { return windowIndex(now, period) }

// pairAt reads a state as of now. Its index is now's, or the next one if another loop, whose clock is ahead by a little, has
// begun that. If the state is further ahead the clock was set back: what it counts is taken for now's.
func pairAt(state uint64, period, now int64) pair {
	p := pair{index: pairIndex(now, period)}
	if state == 0 {
		return p
	}
	current := state >> (stateShift + pairCountBits) & pairMax
	previous := state >> stateShift & pairMax
	switch age := signed(uint64(p.index)-state>>(stateShift+2*pairCountBits), pairIndexBits); {
	case age > 1:
	case age == 1:
		p.previous = current
	default:
		p.current, p.previous = current, previous
		if age == -1 {
			p.index++
		}
		p.astray = age < -1
	}
	return p
}

// pairRefund gives back cost that was taken at the time at, if its window still counts.
func pairRefund(state uint64, cost uint32, at, period int64) uint64 {
	if state == 0 {
		return 0
	}
	p := pair{
		index:    int64(state >> (stateShift + 2*pairCountBits)),
		current:  state >> (stateShift + pairCountBits) & pairMax,
		previous: state >> stateShift & pairMax,
	}
	n := uint64(cost)
	switch signed(uint64(p.index)-uint64(pairIndex(at, period)), pairIndexBits) {
	case 0:
		p.current -= min(n, p.current)
	case 1: // one window on, or taken by a loop whose clock was behind, and then counted in the newer one
		old := min(n, p.previous)
		p.previous -= old
		p.current -= min(n-old, p.current)
	}
	return p.state()
}
