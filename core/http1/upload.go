package http1

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// upload sends the rest of a request body in a task of its own, while the exchange's task waits for the answer: an
// upstream may answer before it has read all, and must not be kept from it.
type upload struct {
	client  *Client
	task    func() // run, bound once
	x       *core.Exchange
	owner   loop.Task
	self    loop.Task
	running bool
	halted  bool
	whole   bool        // the body has been sent to its end
	failure *core.Error // the client's: the request cannot be completed
}

func (u *upload) start(x *core.Exchange) {
	l := u.client.worker.Loop
	u.x, u.owner = x, l.Self()
	u.running, u.halted, u.whole, u.failure = true, false, false, nil
	x.Uploading = true
	u.self = l.Go(u.task)
}

func (u *upload) run() {
	defer func() { // also after a panic
		u.running, u.x.Uploading = false, false
		if u.client.awaiting {
			u.owner.Interrupt(loop.ErrInterrupted) // the wait for the answer has a bound from now on, or cannot succeed
		}
	}()
	u.failure = u.relay()
	u.whole = u.failure == nil && !u.halted
	if u.failure != nil && !u.client.awaiting { // the answer is on its way: it must not go on
		u.client.conn.Close()
	}
}

// relay moves the body until it ends or the upstream takes no more of it. Only what is wrong with the request is an error: of an
// upstream's failure its answer tells, or the lack of one.
func (u *upload) relay() *core.Error {
	m, c := &u.x.Request, u.client.conn
	for !u.halted {
		p, err := m.Body.Next()
		if err != nil {
			if err == loop.ErrInterrupted {
				return nil
			}
			return core.BodyError(err)
		}
		if u.client.keeps {
			u.x.KeepForReplay(p)
		}
		start, end := p.Start, p.End
		if m.Chunked {
			start, end = frameChunk(p, len(m.Trailer) == 0)
		}
		if start < end {
			if _, err := c.Write(p.Buf[start:end]); err != nil {
				u.halted = true
				return nil
			}
		}
		if p.Last {
			if m.Chunked && len(m.Trailer) > 0 {
				_, _ = c.Write(appendTrailer(nil, m.Trailer))
			}
			return nil
		}
	}
	return nil
}

// stop ends an upload whose rest nobody wants, and returns when it has ended.
func (u *upload) stop() {
	u.halted = true
	for u.running {
		u.self.Interrupt(loop.ErrInterrupted)
		u.client.worker.Loop.Yield()
	}
}

// finish ends the upload, and says whether the upstream has got the whole body.
func (u *upload) finish() bool {
	if u.x == nil { // the body, if any, was sent with the head
		return true
	}
	u.stop()
	whole := u.whole
	u.x, u.whole, u.failure = nil, false, nil
	return whole
}
