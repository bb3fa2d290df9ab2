package upstream

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// HedgePolicy says when a second attempt is made beside the first, which has not been answered yet. The zero HedgePolicy: never.
// Immutable.
type HedgePolicy struct {
	After      time.Duration // 0: by Percentile
	Percentile float64       // of the times that the loop's last requests to the upstream have waited for a head; 0..100
}

// hedge is a second attempt beside that of an exchange, in a task of its own with a copy of the request, of which all must be at hand: a
// body is kept whole for a replay by then. The first that is answered counts, and the other is ended. The exchange's task waits until this
// one has ended, which is at once, as every wait of it ends with Task.Hangup: the copy shares memory with the original.
type hedge struct {
	share   *share
	task    func()         // run, bound once
	x       *core.Exchange // the client's
	plan    plan
	after   int64 // nanoseconds
	owner   loop.Task
	self    loop.Task
	y       *core.Exchange // the copy; nil: it is not yet time
	way     way            // of its answer; nil: there is none
	running bool
	won     bool // there is an answer, which the exchange's task is to take
	taken   bool // it has
	stopped bool // nobody wants one
	left    bool // nor waits for the end
}

// hedges are a loop's, to be used again.
type hedges []*hedge

func (s *share) newHedge() *hedge {
	if n := len(s.hedges); n > 0 {
		h := s.hedges[n-1]
		s.hedges = s.hedges[:n-1]
		return h
	}
	h := &hedge{}
	h.task = h.run
	return h
}

// hedged begins what makes another attempt beside the first if that is late; nil: there is to be none.
func (t *tries) hedged() *hedge {
	p, x, s := t.plan.hedge, t.x, t.share
	if p == nil || t.made > 0 || len(s.usable) < 2 || !t.plan.retry.repeatable(x) {
		return nil
	}
	if _, _, never := x.BodyKept(); never {
		return nil
	}
	after := int64(p.After)
	if after == 0 {
		if after = s.waits.percentile(p.Percentile); after == 0 {
			return nil // too little is known
		}
	}
	if l := s.worker.Loop; x.Deadline != 0 && l.Now()+after >= x.Deadline {
		return nil
	}
	h := s.newHedge()
	h.share, h.x, h.plan, h.after, h.owner, h.running = s, x, t.plan, after, s.worker.Loop.Self(), true
	h.plan.hedge = nil
	h.self = s.worker.Loop.Go(h.task)
	t.beside = h
	return h
}

// run is the task.
func (h *hedge) run() {
	defer h.end() // also after a panic
	l := h.share.worker.Loop
	for due := l.Now() + h.after; !h.stopped; {
		if l.Now() < due {
			if err := l.Park(due); err != nil && err != loop.ErrTimeout {
				return
			}
			continue
		}
		switch since, whole, never := h.x.BodyKept(); {
		case never:
			return
		case !whole:
			due = l.Now() + max(h.after, bodyLook)
		case since+h.after > l.Now(): // an answer is late from the end of the request on
			due = since + h.after
		default:
			h.attempt()
			return
		}
	}
}

// bodyLook is how often at most it is looked whether a body is whole, in nanoseconds.
const bodyLook = 5e6

// attempt makes the attempt, and offers its answer to the exchange's task until that has taken it or wants none.
func (h *hedge) attempt() {
	s, x := h.share, h.x
	t := tries{share: s, x: x, plan: h.plan}
	if reason, ok := t.reserve(causeHedge); !ok {
		t.deny(reason)
		return
	}
	s.counts.made[causeHedge]++
	x.Sent.Hedged = true
	h.y = s.worker.Begin()
	h.y.CopyFrom(x, core.Downstream(mute{}))
	h.y.CopyBody(x)
	if x.Sent.Endpoint != nil && !h.y.Attempt.Has(x.Sent.Endpoint) {
		h.y.Attempt.Tried(x.Sent.Endpoint)
	}
	t.x = h.y
	way, err := t.attempt()
	if err != nil {
		if !h.stopped {
			x.Worker.Failed(h.y, err)
		}
		return
	}
	// The rest of a request that is answered before it was sent whole would come out of memory that ends with the copy.
	if h.y.Uploading || h.plan.retry.judge(h.y) != causeNone {
		way.discard(h.y)
		return
	}
	h.way, h.won = way, true
	for !h.taken && !h.stopped {
		h.owner.Interrupt(loop.ErrHangup) // if it waits: every wait takes that for the end of all interest
		s.worker.Loop.Yield()
	}
	if !h.taken {
		h.won = false
		way.discard(h.y)
	}
}

func (h *hedge) end() {
	if h.y != nil {
		if h.y.Upstream != nil && !h.taken { // a panic
			h.y.Upstream.Abandon()
		}
		h.y.Upstream = nil
		h.share.worker.End(h.y)
		h.y = nil
	}
	h.running = false
	if h.left {
		h.release()
	} else {
		h.owner.Wake()
	}
}

// leave is stop without waiting, where the copy has not been made or must not matter any more.
func (h *hedge) leave() {
	h.stopped, h.left = true, true
	h.self.Hangup()
}

// stop ends the task, and returns when it has ended.
func (h *hedge) stop() {
	if h.running && h.y == nil { // it still waits for its time
		h.leave()
		return
	}
	h.stopped = true
	for h.running {
		h.self.Hangup()
		h.share.worker.Loop.Yield()
	}
	h.release()
}

func (h *hedge) release() {
	s := h.share
	*h = hedge{task: h.task}
	if len(s.hedges) < maxSpare {
		s.hedges = append(s.hedges, h)
	}
}

// settle decides between the first attempt, which has come to way or err, and the second. wanted says that the first was answered, and
// is to be passed on.
func (t *tries) settle(h *hedge, w way, err *core.Error, wanted bool) (way, *core.Error) {
	t.beside = nil
	gone := err == core.ErrClientGone || err == core.ErrStopping
	if !wanted && !h.won && h.y != nil && !gone { // what the first came to is no answer: perhaps the second is one
		h.wait()
	}
	if wanted || !h.won {
		h.stop()
		return w, err
	}
	if err == nil {
		w.discard(t.x)
		t.share.worker.Loop.Watch(t.x.Downstream.Conn())
	}
	won := h.take()
	t.share.counts.hedgesWon++
	return won, nil
}

// wait waits for the end of the second attempt.
func (h *hedge) wait() {
	l := h.share.worker.Loop
	for h.running && !h.won {
		if err := l.Park(h.x.Deadline); err != nil && err != loop.ErrInterrupted && !h.won {
			return // the client has gone, or the time is over
		}
	}
}

// take makes the second attempt's answer the exchange's.
func (h *hedge) take() way {
	x, y, w := h.x, h.y, h.way
	x.Response, y.Response = y.Response, x.Response
	x.Times.Sent, x.Times.Head, x.Times.Done = y.Times.Sent, y.Times.Head, y.Times.Done
	x.Sent.Endpoint = y.Sent.Endpoint
	x.Sent.HedgeWon = true
	x.Upstream, y.Upstream = w, nil
	w.adopt(x)
	h.taken = true
	for h.running {
		h.share.worker.Loop.Yield()
	}
	h.release()
	return w
}

// mute is the client's side of a copy: nobody is told anything.
type mute struct{}

func (mute) Interim(*core.Exchange) *core.Error { return nil }
func (mute) Respond(*core.Exchange) *core.Error { panic("BUG: a copy has no client") }
func (mute) Conn() *loop.Conn                   { return nil }
func (mute) Buffered() []byte                   { return nil }
