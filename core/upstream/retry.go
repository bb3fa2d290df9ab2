package upstream

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Cause is why an attempt is followed by another.
type Cause uint8

const (
	causeNone      Cause = iota
	CauseConnect         // no connection came about: nothing was sent
	CauseRefused         // the endpoint says that it has not looked at the request
	CauseStale           // a kept connection turned out to be lost before a byte of the answer came
	CauseReset           // the connection was lost before the head of the answer was whole
	CauseTimeout         // the answer did not come in time
	CauseMalformed       // what came is no answer
	CauseStatus          // the answer has a status that is not passed on
	CauseGRPC            // likewise, of a gRPC call that ended at once
	causeHedge           // the answer was late, and another attempt is made beside
	causeCount
)

var causeNames = [causeCount]string{"", "connect", "refused", "stale", "reset", "timeout", "malformed", "status", "grpc_status", "hedge"}

// unharmed says that no endpoint can have begun to work on the request: whatever its method is, it may be sent again. It costs
// endpoints nothing, so that no budget is charged.
func (c Cause) unharmed() bool { return c == CauseConnect || c == CauseRefused }

// charged says that an endpoint may have worked on the request in vain, and would once more.
func (c Cause) charged() bool { return c > CauseStale }

// causeOf is what a failed attempt may be repeated for; causeNone: for nothing.
func causeOf(err *core.Error) Cause {
	if err == nil {
		return causeNone
	}
	switch err.Retry {
	case core.RetryUnsent:
		return CauseConnect
	case core.RetryRefused:
		return CauseRefused
	case core.RetryIfReused:
		return CauseStale
	case core.RetryReset:
		return CauseReset
	case core.RetryTimeout:
		return CauseTimeout
	case core.RetryMalformed:
		return CauseMalformed
	}
	return causeNone
}

// Causes is a set of them.
type Causes uint16

// CausesOf gives a set.
func CausesOf(list ...Cause) (s Causes) {
	for _, c := range list {
		s |= 1 << c
	}
	return s
}

func (s Causes) has(c Cause) bool { return s>>c&1 != 0 }

// Statuses is a set of those from 400 to 599.
type Statuses [4]uint64

// Add adds a status; another is left out.
func (s *Statuses) Add(status int) {
	if i := status - 400; i >= 0 && i < 200 {
		s[i/64] |= 1 << (i % 64)
	}
}

func (s *Statuses) has(status int) bool {
	i := status - 400
	return i >= 0 && i < 200 && s[i/64]>>(i%64)&1 != 0
}

// RetryPolicy says which attempts are followed by others, how many, and when. Immutable.
type RetryPolicy struct {
	Attempts       int           // of one exchange, with the first; 1 and more
	On             Causes        // CauseStatus and CauseGRPC only with Statuses and GRPC
	Statuses       Statuses      // that are not passed on as long as another attempt may be made
	GRPC           uint32        // likewise of gRPC calls that end at once: bits by number
	PerTry         time.Duration // for one attempt up to the head of its answer; 0: none
	Methods        []string      // of requests that may be executed twice; nil: those that are idempotent
	IdempotencyKey bool          // a request with that field may be, too
	Base, Max      time.Duration // of the wait before the next attempt; 0: there is none
	Even           bool          // the wait is not drawn by lot
	RetryAfter     time.Duration // the longest that an answer may ask to wait, else it is passed on; 0: what it asks is ignored
	SameEndpoint   bool          // one that has been tried is as good as another
}

// builtIn is in force where nothing is configured: what no endpoint has begun to work on goes to another, and what met the end of a
// kept connection goes out once more.
var builtIn = RetryPolicy{Attempts: 3, On: CausesOf(CauseConnect, CauseRefused, CauseStale)}

// keep says when an attempt is to keep the request's body.
func (r *RetryPolicy) keep(x *core.Exchange) core.KeepBody {
	switch later := r.On &^ CausesOf(CauseConnect, CauseRefused); {
	case x.Request.Body == nil || later == 0 || !r.repeatable(x):
		return core.KeepNot
	case later == CausesOf(CauseStale):
		return core.KeepIfReused
	}
	return core.KeepAlways
}

// repeatable says whether the request may be executed twice.
func (r *RetryPolicy) repeatable(x *core.Exchange) bool {
	m := &x.Request
	switch {
	case m.AsksTunnel(): // its bytes are not ours to repeat
		return false
	case r.Methods == nil && m.Method.Idempotent():
		return true
	}
	for _, name := range r.Methods {
		if name == string(m.MethodBytes()) {
			return true
		}
	}
	if !r.IdempotencyKey {
		return false
	}
	key, ok := m.Lookup("idempotency-key")
	return ok && len(key) > 0
}

// judge says why an answer is not to be passed on, if another attempt may be made; causeNone: it is.
func (r *RetryPolicy) judge(x *core.Exchange) Cause {
	m := &x.Response
	if m.Status >= 400 && r.Statuses.has(m.Status) {
		return CauseStatus
	}
	if r.GRPC != 0 && x.Request.GRPC && m.Body == nil && r.GRPC>>grpcStatus(m)&1 != 0 {
		return CauseGRPC
	}
	return causeNone
}

// grpcStatus is that in the head of an answer; 31, which is nobody's, where there is none.
func grpcStatus(m *core.Message) uint {
	v, ok := m.Lookup("grpc-status")
	if !ok || len(v) == 0 || len(v) > 2 {
		return 31
	}
	n := uint(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return 31
		}
		n = n*10 + uint(c-'0')
	}
	return min(n, 31)
}

// denial is why an attempt that the policy wants is not made.
type denial uint8

const (
	deniedMethod denial = iota
	deniedBody
	deniedDeadline
	deniedRetryAfter
	deniedBudget
	deniedMaxRetries
	denialCount
)

var denialNames = [denialCount]string{"method", "body", "deadline", "retry_after", "budget", "max_retries"}

// RetryCounts are the repeated attempts of one loop.
type RetryCounts struct {
	made      [causeCount]uint64
	hedgesWon uint64
	denied    [denialCount]uint64
}

// Each calls f for every count of attempts that were made, by cause, and of those that were not, by reason.
func (c *RetryCounts) Each(made, denied func(label string, n uint64)) {
	for i, n := range c.made {
		if n > 0 {
			made(causeNames[i], n)
		}
	}
	for i, n := range c.denied {
		if n > 0 {
			denied(denialNames[i], n)
		}
	}
}

// Hedges are the attempts that were made beside others, and those of them whose answer counted.
func (c *RetryCounts) Hedges() (made, won uint64) { return c.made[causeHedge], c.hedgesWon }

// RetryCounts are those of the loop of that index; called on that loop.
func (u *Upstream) RetryCounts(index int) *RetryCounts { return &u.shares[index].counts }
