package http2

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// upload sends the rest of a request body in a task of its own, while the exchange's task waits for the answer: an upstream
// may answer before it has read all, and must not be kept from it.
type upload struct {
	stream  *ClientStream
	run     func() // send, bound once
	first   core.Piece
	self    loop.Task
	running bool
	halted  bool
	failure *core.Error // the client's: the request cannot be completed
}

func (u *upload) init(t *ClientStream) { u.stream, u.run = t, u.send }

// start sends first, which has been drawn already unless it is empty, and all that follows.
func (u *upload) start(first core.Piece) {
	u.first, u.running = first, true
	u.stream.x.Uploading = true
	u.self = u.stream.conn.res.loop.Go(u.run)
}

func (u *upload) send() {
	t := u.stream
	defer func() { // also after a panic
		u.running, t.x.Uploading = false, false
		t.wakeReader() // the wait for the answer has a bound from now on, or cannot succeed
	}()
	err := u.relay()
	if err == nil || u.halted || t.gone != nil { // of an upstream's failure its answer tells, or the lack of one
		return
	}
	u.failure = err
	t.conn.cut(t.id, CodeCancel, err)
}

func (u *upload) relay() *core.Error {
	t := u.stream
	m, p := &t.x.Request, u.first
	if p.Buf != nil {
		if err := t.sendData(p.Bytes(), p.Last && len(m.Trailer) == 0); err != nil {
			return err
		}
		if p.Last && len(m.Trailer) > 0 {
			return t.sendTrailer(m.Trailer)
		}
		if p.Last {
			return nil
		}
		m.Body.Release()
	}
	var sent int64
	return t.relay(m, &sent)
}

// stop ends an upload whose rest nobody wants, and returns when it has ended.
func (u *upload) stop() {
	u.halted = true
	for u.running {
		u.self.Interrupt(loop.ErrInterrupted)
		u.stream.conn.res.loop.Yield()
	}
}
