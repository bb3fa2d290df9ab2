package core

import (
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
)

// Delay parks the exchange's task for d, while its client is watched. It says Continue when the time is over, and Respond, the exchange having
// failed, when the client leaves or the loop stops before.
func (x *Exchange) Delay(d time.Duration) Verdict {
	l := x.Worker.Loop
	until := l.Now() + int64(d)
	l.Watch(x.Downstream.Conn())
	var err error
	for err == nil { // whoever wakes the task before its time wants something else of it
		err = l.Park(until)
	}
	l.Watch(nil)
	switch err {
	case loop.ErrTimeout:
		return Continue
	case loop.ErrHangup:
		x.Fail(ErrClientGone)
	default:
		x.Fail(ErrStopping)
	}
	return Respond
}
