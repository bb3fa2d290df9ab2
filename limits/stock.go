package limits

import "time"

// stock is the state of a bucket of which the cluster has the tokens: what this node has of them. A balance below 0 is
// owed: admitted before the cluster was asked, and asked for with the next tokens. The state is 20 bits of the balance, and
// two times of 19 bits, in units of 2^24 ns (17 ms), which reach as far as stockReach.
type stock struct {
	balance int64
	quiet   int64 // until when the cluster is not asked again, in units
	until   int64 // until when the balance is good, in units
}

const (
	stockTimeBits    = 19
	stockUnit        = 1 << 24 // ns
	stockBalanceBits = 64 - stateShift - 2*stockTimeBits
	stockMax         = 1<<(stockBalanceBits-1) - 1
	stockReach       = time.Hour // of the 73 minutes that half of the times' range is
)

// stockUnits is a time in units, rounded up.
func stockUnits(now int64) int64 { return -(-now >> 24) }

// stockAt reads a state as of now. A time that has passed reads as 0. A key that was not seen has nothing and owes nothing.
func stockAt(state uint64, now int64) (s stock) {
	if state == 0 {
		return s
	}
	at := now >> 24
	reach := int64(stockReach/stockUnit) + 1
	left := func(v uint64) int64 {
		if n := signed(v-uint64(at), stockTimeBits); n > 0 && n <= reach {
			return at + n
		}
		return 0
	}
	s.quiet = left(state >> stateShift)
	if s.until = left(state >> (stateShift + stockTimeBits)); s.until != 0 {
		s.balance = signed(state>>(stateShift+2*stockTimeBits), stockBalanceBits)
	}
	return s
}

func (s stock) state() uint64 {
	const mask = 1<<stockTimeBits - 1
	balance := uint64(max(-stockMax, min(s.balance, stockMax)))
	return balance<<(stateShift+2*stockTimeBits) | uint64(s.until)&mask<<(stateShift+stockTimeBits) | uint64(s.quiet)&mask<<stateShift
}

// stockRule is what a node may have of a cluster's bucket.
type stockRule struct {
	limit  int64
	batch  int64 // that it asks for, ahead of need
	credit int64 // that it may owe, and the one cost with which it gets there
	memory int64 // ns that a debt is remembered
	answer int64 // ns after which it asks again if no answer came
	pace   int64 // ns after which it asks again if the cluster had less than was asked for
}

// take takes cost of a stock, and says how many tokens are to be asked for.
func (r *stockRule) take(state uint64, cost uint32, now int64) (next uint64, ask int64, o outcome) {
	s := stockAt(state, now)
	switch {
	case int64(cost) > r.limit:
		o.wait = int64(Never)
	case cost == 0 || s.balance >= int64(cost) || s.balance > -r.credit:
		o.allowed = true
		s.balance -= int64(cost)
		if s.balance < 0 {
			s.until = stockUnits(now + r.memory)
		}
	}
	if s.balance < (r.batch+1)/2 && s.quiet == 0 && o.wait == 0 && cost > 0 {
		ask = r.batch - s.balance
		s.quiet = stockUnits(now + r.answer)
	}
	if !o.allowed && o.wait == 0 {
		o.wait = max(1, s.quiet*stockUnit-now)
	}
	o.remaining = uint64(max(0, s.balance+r.credit))
	return s.state(), ask, o
}

// grant adds tokens that are good for a time. None were there to be had if tokens is 0: then good is when to ask again.
func (r *stockRule) grant(state uint64, tokens uint32, good, now int64) uint64 {
	s := stockAt(state, now)
	s.quiet = 0
	if tokens == 0 {
		s.quiet = stockUnits(now + max(good, r.pace))
		return s.state()
	}
	s.balance = min(s.balance+int64(tokens), stockMax)
	if s.balance > 0 || s.until == 0 {
		s.until = stockUnits(now + good)
	}
	if s.balance < (r.batch+1)/2 {
		s.quiet = stockUnits(now + r.pace)
	}
	return s.state()
}
