package health

import "sync/atomic"

// BudgetSpec is how many retries an upstream takes.
type BudgetSpec struct {
	Percent float64 // of the requests that are active, 0..100
	Floor   int     // retries at once that are always allowed, 0..100000
}

// DefaultBudget is Envoy's: 20 %, at least 3.
func DefaultBudget() BudgetSpec { return BudgetSpec{Percent: 20, Floor: 3} }

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *BudgetSpec) Validate() error {
	var r ranges
	r.number("percent", s.Percent, 0, 100)
	r.integer("floor", s.Floor, 0, 100_000)
	return r.err
}

// Budget bounds the retries to one upstream that are under way at once: by a share of its active requests, and by a floor for
// times of little traffic, whichever is more. Without it an upstream that begins to fail gets its load several times over.
// The idea is Finagle's RetryBudget, which counts requests of the last seconds; counting those that are active is Envoy's
// (config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget), and needs no clock.
//
// It bounds what is under way, not how often: where requests fail at once, few are active at any time, and the floor lets
// nearly all of them be retried, which is cheap for the same reason. A Breaker answers that.
//
// All loops may use it at once. Each counts its active requests apart; who wants to retry sums them, so that a retry may be
// judged by a sum that is off by what other loops begin or end in that instant. The bound on retries is exact against that
// sum. It takes 128 bytes for each loop.
type Budget struct {
	share   float64
	floor   int64
	retries padded
	active  []padded
}

// padded is a count that shares no cache line with another.
type padded struct {
	n atomic.Int64
	_ [120]byte
}

// NewBudget gives a budget for the requests of `loops` loops. The error is a *SpecError.
func NewBudget(spec BudgetSpec, loops int) (*Budget, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return &Budget{share: spec.Percent / 100, floor: int64(spec.Floor), active: make([]padded, loops)}, nil
}

// Begin counts a request of a loop as active, one that waits for a connection too. It stays so while it is retried, until End
// on the same loop.
func (b *Budget) Begin(loop int) { b.active[loop].n.Add(1) }

// End ends what Begin began.
func (b *Budget) End(loop int) { b.active[loop].n.Add(-1) }

// Retry says whether one more retry may begin. One that may ends with EndRetry.
func (b *Budget) Retry() bool {
	most := max(int64(b.share*float64(b.Active())), b.floor)
	for {
		n := b.retries.n.Load()
		if n >= most {
			return false
		}
		if b.retries.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// EndRetry ends what Retry allowed.
func (b *Budget) EndRetry() { b.retries.n.Add(-1) }

// Active is the number of active requests.
func (b *Budget) Active() int64 {
	n := int64(0)
	for i := range b.active {
		n += b.active[i].n.Load()
	}
	return n
}

// Retries is the number of retries under way.
func (b *Budget) Retries() int64 { return b.retries.n.Load() }
