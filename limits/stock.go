package limits

import "time"

// stock is the state of a bucket of which the cluster has the tokens: what this node has of them. A balance below 0 is
// owed: admitted before the cluster was asked, and asked for with the next tokens. The state is 20 bits of the balance, 24 of
// the time of the last question or answer, and 14 of the time for which the cluster is not asked again, counted from that.
// Times are in units of 2^24 ns (17 ms): the first wraps after 78 hours, the second reaches 4 minutes.
type stock struct {
	balance int64
	stamp   int64 // units
	quiet   int64 // units
}

const (
	stockUnit        = 1 << 24 // ns
	stockStampBits   = 24
	stockQuietBits   = 14
	stockBalanceBits = 64 - stateShift - stockStampBits - stockQuietBits
	stockMax         = 1<<(stockBalanceBits-1) - 1
	stockQuietMax    = 1<<stockQuietBits - 1
	stockMemory      = 24 * time.Hour
	// stockSkew is how far a stamp may be ahead, in units, since the clocks of loops differ: 17 s.
	stockSkew = 1 << 10
)

func (s stock) state() uint64 {
	const mask = 1<<stockStampBits - 1
	balance := uint64(max(-stockMax, min(s.balance, stockMax)))
	quiet := uint64(max(0, min(s.quiet, stockQuietMax)))
	state := balance<<(64-stockBalanceBits) | uint64(s.stamp)&mask<<(stateShift+stockQuietBits) | quiet<<stateShift
	if state == 0 {
		return 1 << stateShift // a quiet of 17 ms; 0 stands for a key that was not seen
	}
	return state
}

// stockRule is what a node may have of a cluster's bucket.
type stockRule struct {
	limit  int64
	batch  int64 // that it asks for, ahead of need
	credit int64 // that it may owe, and the one cost with which it gets there
	good   int64 // units for which tokens are kept
	memory int64 // units for which a debt is remembered
	answer int64 // ns after which it asks again if no answer came
	pace   int64 // ns after which it asks again if the cluster had less than was asked for
}

// at reads a state as of now: what is left of the quiet, and the balance unless it is too old. A key that was not seen has
// nothing and owes nothing.
func (r *stockRule) at(state uint64, now int64) stock {
	s := stock{stamp: now >> 24}
	if state == 0 {
		return s
	}
	age := int64((uint64(s.stamp) - state>>(stateShift+stockQuietBits)) & (1<<stockStampBits - 1))
	if age >= 1<<stockStampBits-stockSkew {
		age = 0
	}
	s.balance = signed(state>>(64-stockBalanceBits), stockBalanceBits)
	s.stamp -= age
	s.quiet = int64(state >> stateShift & stockQuietMax)
	if s.quiet <= age {
		s.quiet = 0
	}
	if s.balance > 0 && age > r.good || s.balance < 0 && age > r.memory {
		s.balance = 0
	}
	return s
}

// hush makes now the stamp, and asks nothing more for a time.
func (s *stock) hush(now, ns int64) {
	s.stamp = now >> 24
	s.quiet = 0
	if ns > 0 {
		s.quiet = (now+ns+stockUnit-1)>>24 - s.stamp
	}
}

// take takes cost of a stock, and says how many tokens are to be asked for.
func (r *stockRule) take(state uint64, cost uint32, now int64) (next uint64, ask int64, o outcome) {
	s := r.at(state, now)
	switch {
	case int64(cost) > r.limit:
		o.wait = int64(Never)
	case cost == 0 || s.balance >= int64(cost) || s.balance > -r.credit:
		o.allowed = true
		s.balance -= int64(cost)
	}
	if s.balance < (r.batch+1)/2 && s.quiet == 0 && o.wait == 0 && cost > 0 {
		ask = r.batch - s.balance
		s.hush(now, r.answer)
	}
	if !o.allowed && o.wait == 0 {
		o.wait = max(1, (s.stamp+s.quiet)*stockUnit-now)
	}
	o.remaining = uint64(max(0, s.balance+r.credit))
	return s.state(), ask, o
}

// charge takes cost, and says how many tokens are to be asked for.
func (r *stockRule) charge(state uint64, cost uint32, now int64) (next uint64, ask int64) {
	s := r.at(state, now)
	s.balance = max(s.balance-int64(cost), min(s.balance, -r.limit))
	if s.balance < (r.batch+1)/2 && s.quiet == 0 {
		ask = r.batch - s.balance
		s.hush(now, r.answer)
	}
	return s.state(), ask
}

// grant adds tokens.
func (r *stockRule) grant(state uint64, tokens uint32, now int64) uint64 {
	s := r.at(state, now)
	s.balance = min(s.balance+int64(tokens), stockMax)
	if s.balance < (r.batch+1)/2 {
		s.hush(now, r.pace)
	} else {
		s.hush(now, 0)
	}
	return s.state()
}

// pause keeps the cluster from being asked for a time, 0: not any longer.
func (r *stockRule) pause(state uint64, ns, now int64) uint64 {
	s := r.at(state, now)
	s.hush(now, ns)
	return s.state()
}
