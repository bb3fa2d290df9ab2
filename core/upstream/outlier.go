package upstream

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// Watch reports what attempts at one endpoint came to, to whoever finds outliers. It lives as long as the endpoint's Load is used, and
// loops report to it at once.
type Watch struct {
	Tally   *health.Tally
	pending atomic.Uint32 // triggers that nobody has judged yet
	wake    func()        // must not block
}

// NewWatch gives a watch that calls wake, on a loop, whenever there is something for Triggers.
func NewWatch(t *health.Tally, wake func()) *Watch { return &Watch{Tally: t, wake: wake} }

// report counts an outcome. A trigger stays until somebody has taken it: who is woken late, or once for several, misses none.
func (w *Watch) report(loop int, o health.Outcome) {
	if t := w.Tally.Report(loop, o); t != health.NoTrigger {
		w.pending.Or(uint32(t))
		w.wake()
	}
}

// Triggers takes what has come up since the last call. It may be called from any goroutine.
func (w *Watch) Triggers() health.Trigger { return health.Trigger(w.pending.Swap(0)) }

// Watch makes w, or nil for nobody, hear of the attempts at e that end from now on. It may be called from any goroutine.
func (e *Endpoint) Watch(w *Watch) { e.watch.Store(w) }

// Eject takes e out for failing, or back. A Rebalance must follow if it says that this has made a difference. It may be called from any
// goroutine.
func (u *Upstream) Eject(e *Endpoint, out bool) (changed bool) {
	if out {
		return e.Load.Raise(lb.Ejected)
	}
	return e.Load.Clear(lb.Ejected, u.clock())
}

// Clock is the clock of loads, in nanoseconds. It may be called from any goroutine.
func (u *Upstream) Clock() int64 { return u.clock() }

// outcome is what an attempt came to for who finds outliers; false: it says nothing of the endpoint. An answer is judged by its status,
// whoever then failed to take it. What is the client's doing says nothing: that it left, that it wanted its answer sooner than the
// gateway would have waited, that it did not send its body in time. Nor does an endpoint's word that it has not looked at the
// request, which every server gives when it ends a connection that streams still come on.
func outcome(x *core.Exchange, failure *core.Error, answered bool) (health.Outcome, bool) {
	if failure == nil || failure.Side != core.SideUpstream {
		if !answered {
			return 0, false
		}
		return answerOutcome(x), true
	}
	switch {
	case failure.Retry == core.RetryRefused:
		return 0, false
	case failure.Status >= 503 && x.Deadline != 0 && x.Worker.Loop.Now() >= x.Deadline: // it may not be the endpoint that took the time
		switch {
		case answered:
			return answerOutcome(x), true
		case x.Hurried || x.Uploading:
			return 0, false
		}
		return health.Timeout, true
	case failure.Status == 504:
		return health.Timeout, true
	case failure.Retry == core.RetryUnsent:
		return health.ConnectFailed, true
	}
	return health.Reset, true
}

// answerOutcome judges an answer. Of a gRPC call the status is the call's, as an HTTP status in the way of Envoy's, but for two that a
// client can bring about: UNIMPLEMENTED, and DEADLINE_EXCEEDED of a deadline that was its own.
func answerOutcome(x *core.Exchange) health.Outcome {
	if x.Request.GRPC && x.Response.Status == 200 {
		switch s := x.GRPCStatus(); string(s) {
		case "2", "13", "15": // UNKNOWN, INTERNAL, DATA_LOSS
			return health.ServerError
		case "14": // UNAVAILABLE
			return health.GatewayError
		case "4":
			if !x.Hurried {
				return health.GatewayError
			}
		}
		return health.Success
	}
	return health.StatusOutcome(x.Response.Status)
}
