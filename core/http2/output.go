package http2

import "github.com/sluice-gateway/sluice/core/loop"

// outBytes is how much the output of a connection gathers before streams must wait: a slow reader's share of memory.
const outBytes = 60 << 10

// maxSent bounds the payload of the frames that we send, so that streams take turns.
const maxSent = 16 << 10

// output is what a connection has to send.
type output struct {
	buf     []byte // whole buffer of the loop, borrowed; nil: nothing to send
	pending []byte // gathered; grows out of buf at need
	writing bool   // a task writes, and takes what is gathered meanwhile
	task    func()

	underway bool // a write has begun, and waits for the peer
}

// waits says whether something is gathered or being written.
func (o *output) waits() bool { return o.writing || len(o.pending) > 0 }

// full says that who can should wait. While the peer takes nothing that is everybody: who goes next is decided when it does, and
// what it does not take is gathered but once.
func (o *output) full() bool { return o.underway || len(o.pending) >= outBytes }

// append gives the output to append n bytes to; appended must follow before any wait.
func (c *conn) append(n int) []byte {
	o := &c.out
	if o.buf == nil {
		o.buf = c.res.loop.Borrow()
		o.pending = o.buf[:0]
	}
	return o.pending
}

// appended takes the output back. Whoever appends first has it written at the end of the turn.
func (c *conn) appended(b []byte) {
	o := &c.out
	o.pending = b
	if o.writing || c.closed {
		return
	}
	o.writing = true
	if o.task == nil {
		o.task = c.flush
	}
	c.res.loop.Go(o.task)
}

// flush writes until nothing is left.
func (c *conn) flush() {
	o, l := &c.out, c.res.loop
	for len(o.pending) > 0 && !c.closed {
		buf, out := o.buf, o.pending
		o.buf, o.pending = nil, nil
		o.underway = true
		_, err := c.raw.WriteOver(out)
		o.underway = false
		l.Return(buf)
		if err != nil {
			if err == loop.ErrTimeout && !c.client && !c.dying {
				c.res.calm[calmSlow]++ // there is no way to tell it
			}
			c.raw.Close()
			break
		}
		c.sent = l.Now()
		c.wakeBlocked()
	}
	o.writing = false
	if o.buf != nil {
		l.Return(o.buf)
		o.buf, o.pending = nil, nil
	}
	if c.closed {
		return
	}
	if c.dying {
		c.raw.CloseWrite()
	}
	c.side.rest()
}

// wakeBlocked lets streams that wait for room or for the window look again, in the order of their priorities.
func (c *conn) wakeBlocked() {
	for _, t := range c.blocked {
		t.sender.Wake()
	}
}
