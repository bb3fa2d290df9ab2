package upstream

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/lb"
)

// maxTurned bounds how often an exchange is turned away besides its attempts: by a connection on which it had a place, or by an
// endpoint that has not looked at it.
const maxTurned = 5

// tries is one exchange's way through its attempts. It lives as long as share.try.
type tries struct {
	share    *share
	x        *core.Exchange
	plan     plan
	made     int  // attempts that have ended, those that were turned away apart
	turned   int  // times that it was turned away
	fresh    bool // the next needs a connection that was not kept
	counted  bool // by the budget, as active
	retrying bool // the attempt under way is counted as a retry
	charged  bool // by the budget, too
	beside   *hedge
}

// begin counts the exchange as active.
func (t *tries) begin() {
	if b := t.plan.set.Budget; b != nil {
		b.Begin(t.share.worker.Loop.Index())
		t.counted = true
	}
}

// answered leaves the answer, and what counts the exchange as active, to the way.
func (t *tries) answered(w way) {
	if t.counted {
		w.hold(t.plan.set.Budget)
		t.counted = false
	}
}

// end ends what begin began, unless a way has it.
func (t *tries) end() {
	if t.beside != nil { // a panic
		t.beside.leave()
	}
	t.endRetry()
	if t.counted {
		t.plan.set.Budget.End(t.share.worker.Loop.Index())
		t.counted = false
	}
}

// turnedAway says whether the exchange, whose place is gone, may look for another at once.
func (t *tries) turnedAway() bool {
	if t.turned == maxTurned {
		return false
	}
	t.turned++
	return true
}

// again says whether the attempt that came to c is to be followed by another, after so many nanoseconds. That one is then counted as
// a retry. It changes nothing of the attempt under way, whose answer may still be passed on.
func (t *tries) again(c Cause) (wait int64, ok bool) {
	x, r := t.x, t.plan.retry
	free := c == CauseRefused && t.turned < maxTurned
	if c == causeNone || !r.On.has(c) || t.made+1 >= r.Attempts && !free {
		return 0, false
	}
	if c == CauseConnect && r.Base == 0 && t.share.exhausted(x) {
		return 0, false // all are as bad, and will not be better at once
	}
	switch {
	case !c.unharmed() && !r.repeatable(x):
		return t.deny(deniedMethod)
	case c != CauseConnect && !x.CanReplay():
		return t.deny(deniedBody)
	}
	wait, ok = r.wait(x, t.made+t.turned, c)
	if !ok {
		return t.deny(deniedRetryAfter)
	}
	if c == CauseStale || c == CauseConnect && !t.share.exhausted(x) {
		wait = 0 // nobody is relieved by it: a connection was closed, or it is another endpoint's turn
	}
	if x.Deadline != 0 && t.share.worker.Loop.Now()+wait >= x.Deadline {
		return t.deny(deniedDeadline)
	}
	if !free {
		if reason, ok := t.reserve(c); !ok {
			return t.deny(reason)
		}
	}
	return wait, true
}

func (t *tries) deny(reason denial) (int64, bool) {
	t.share.counts.denied[reason]++
	t.x.Sent.RetryDenied = denialNames[reason]
	return 0, false
}

// reserve counts a retry against the bounds of the upstream.
func (t *tries) reserve(c Cause) (denial, bool) {
	set, under := t.plan.set, &t.share.upstream.retries
	if n := under.Add(1); set.MaxRetries > 0 && int(n) > set.MaxRetries {
		under.Add(-1)
		return deniedMaxRetries, false
	}
	if c.charged() && set.Budget != nil {
		if !set.Budget.Retry(t.share.worker.Loop.Index()) {
			under.Add(-1)
			return deniedBudget, false
		}
		t.charged = true
	}
	t.retrying = true
	return 0, true
}

// endRetry ends the attempt under way as the bounds count it.
func (t *tries) endRetry() {
	if t.retrying {
		t.share.upstream.retries.Add(-1)
		t.retrying = false
	}
	if t.charged {
		t.plan.set.Budget.EndRetry()
		t.charged = false
	}
}

// giveUp ends the attempt, which came to err or to an answer that nobody gets, and makes x ready for the next. w is nil where there
// was no connection.
func (t *tries) giveUp(w way, err *core.Error, c Cause) {
	s, x := t.share, t.x
	if err == nil {
		err = core.ErrAnswerRetried
		w.discard(x)
		s.worker.Loop.Watch(x.Downstream.Conn())
	}
	if c == CauseRefused && t.turned < maxTurned {
		t.turned++
	} else {
		t.made++
	}
	if s.exhausted(x) {
		x.Attempt.Forget()
	}
	if !t.plan.retry.SameEndpoint {
		s.shun(x, of(x.Sent.Endpoint), c)
	}
	t.fresh = c == CauseStale
	x.Worker.Failed(x, err)
	x.Response.Reset()
	x.Times.Sent, x.Times.Head, x.Times.Done = 0, 0, 0
	x.Sent.Retries++
	x.Sent.RetryCause = causeNames[c]
	s.counts.made[c]++
	if c != CauseConnect {
		x.Replay()
	}
}

// exhausted says that there is no endpoint left that x has not tried. Those that it has tried need not be usable any more: an endpoint that
// fails is ejected.
func (s *share) exhausted(x *core.Exchange) bool {
	switch n := x.Attempt.Count(); {
	case n >= lb.MaxTried:
		return true
	case n < len(s.usable):
		return false
	}
	for _, e := range s.usable {
		if !x.Attempt.Has(e) {
			return false
		}
	}
	return true
}

// shun keeps the next attempt from an endpoint that did not answer, as long as there is another. Where all others were tried before it
// they come next. Where a kept connection has ended an affinity key goes before that: an endpoint may close what is idle.
func (s *share) shun(x *core.Exchange, e *Endpoint, c Cause) {
	if c == CauseStale && x.Attempt.Keyed || x.Attempt.Has(&e.Endpoint) || len(s.usable) < 2 {
		return
	}
	x.Attempt.Tried(&e.Endpoint)
	if s.exhausted(x) {
		x.Attempt.Forget()
		x.Attempt.Tried(&e.Endpoint)
	}
}

// pause waits before the next attempt. It ends early when the client leaves or the gateway stops.
func (t *tries) pause(wait int64) *core.Error {
	l := t.share.worker.Loop
	for until := l.Now() + wait; wait > 0 && l.Now() < until; {
		switch err := l.Park(until); err {
		case nil, loop.ErrTimeout, loop.ErrInterrupted:
		default:
			return waitError(t.x, err)
		}
	}
	return nil
}
