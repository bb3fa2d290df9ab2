package health

import "sync/atomic"

// BudgetSpec is how many retries an upstream takes.
type BudgetSpec struct {
	Percent float64 // of the requests: of those that are active at once, and in the long run; 0..100
	Floor   int     // retries at once that are always allowed, 0..100000
}

// DefaultBudget is Envoy's, and in its share Finagle's: 20 %, at least 3.
func DefaultBudget() BudgetSpec { return BudgetSpec{Percent: 20, Floor: 3} }

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *BudgetSpec) Validate() error {
	var r ranges
	r.number("percent", s.Percent, 0, 100)
	r.integer("floor", s.Floor, 0, 100_000)
	return r.err
}

// Budget bounds the retries to one upstream: those under way at once by a share of its active requests, or by a floor for times of
// little traffic, whichever is more, which is Envoy's way (config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget); and beyond that
// by a reserve, into which each request pays the same share of a retry, as in Finagle's RetryBudget. Without a budget an upstream that
// begins to fail gets its load several times over.
//
// The reserve is for the death of one endpoint, which many of the active requests meet in one instant: a third of them if there
// are three, more than the share allows at once, though next to nothing of the load. Every retry is paid from it as long as there is
// something, so that the share stays what it is in the long run. It never holds more retries than the most requests that were active
// at once, less an eighth for each request since: this needs no clock, and what many have saved is of no use to few. The first retries of an upstream that dies as a whole are thus as many as its active requests, once.
//
// What is under way is bounded, not how often: where requests fail at once, few are active at any time, and the floor lets
// nearly all of them be retried, which is cheap for the same reason. A Breaker answers that.
//
// All loops may use it at once, each under its own number. Each counts its active requests and has its reserve apart; who wants to
// retry sums the requests, so that a retry may be judged by a sum that is off by what other loops begin or end in that instant. It
// takes 128 bytes for each loop.
type Budget struct {
	share   float64
	deposit int64
	floor   int64
	retries struct {
		n atomic.Int64
		_ [120]byte
	}
	loops []budgetLoop
}

// budgetLoop is what one loop counts. It shares no cache line with another.
type budgetLoop struct {
	active  atomic.Int64
	reserve int64 // in parts of a retry; only the loop itself uses it, as below
	most    int64 // that the reserve may hold
	_       [104]byte
}

const (
	retryPrice = 10_000         // one retry, in the parts in which requests pay for it
	wane       = retryPrice / 8 // by which a request lowers the most that a reserve may hold
)

// NewBudget gives a budget for the requests of `loops` loops. The error is a *SpecError.
func NewBudget(spec BudgetSpec, loops int) (*Budget, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return &Budget{share: spec.Percent / 100, deposit: int64(spec.Percent / 100 * retryPrice), floor: int64(spec.Floor), loops: make([]budgetLoop, loops)}, nil
}

// Begin counts a request of a loop as active, one that waits for a connection too. It stays so while it is retried, until End
// on the same loop.
func (b *Budget) Begin(loop int) {
	l := &b.loops[loop]
	l.most = max(l.active.Add(1)*retryPrice, l.most-wane)
	l.reserve = min(l.reserve+b.deposit, l.most)
}

// End ends what Begin began.
func (b *Budget) End(loop int) { b.loops[loop].active.Add(-1) }

// Retry says whether one more retry of a request of that loop may begin. One that may ends with EndRetry.
func (b *Budget) Retry(loop int) bool {
	l := &b.loops[loop]
	most := max(int64(b.share*float64(b.Active())), b.floor)
	for {
		n := b.retries.n.Load()
		if n >= most && l.reserve < retryPrice {
			return false
		}
		if b.retries.n.CompareAndSwap(n, n+1) {
			l.reserve = max(l.reserve-retryPrice, 0)
			return true
		}
	}
}

// EndRetry ends what Retry allowed.
func (b *Budget) EndRetry() { b.retries.n.Add(-1) }

// Active is the number of active requests.
func (b *Budget) Active() int64 {
	n := int64(0)
	for i := range b.loops {
		n += b.loops[i].active.Load()
	}
	return n
}

// Retries is the number of retries under way.
func (b *Budget) Retries() int64 { return b.retries.n.Load() }
