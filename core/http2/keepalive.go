package http2

import (
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
)

// KeepAlive is how a peer that has streams open and says nothing is asked whether it is still there (RFC 9113, 6.7).
type KeepAlive struct {
	Interval time.Duration // of silence before it is asked; 0: it never is
	Timeout  time.Duration // for it to say anything; then the connection is given up
}

// pulse asks for signs of life while streams are open.
type pulse struct {
	keepAlive KeepAlive
	timer     *loop.Timer
	beating   bool
	heard     int64 // when anything last came
	asked     int64 // when the peer was asked, since it was last heard; 0: it was not
}

// beat starts the pulse, if it is wanted and does not run already.
func (c *conn) beat() {
	if c.keepAlive.Interval <= 0 || c.beating {
		return
	}
	l := c.res.loop
	if c.timer == nil {
		c.timer = l.NewTimer(c.listen)
	}
	c.beating, c.heard, c.asked = true, l.Now(), 0
	c.timer.At(l.Now() + int64(c.keepAlive.Interval))
}

// listen is called when the peer may have been silent for too long.
func (c *conn) listen() {
	c.beating = false
	if c.closed || c.dying || c.running == 0 {
		return
	}
	now := c.res.loop.Now()
	if c.raw.Readable() {
		c.heard = now // though it was not looked at yet
	}
	next := c.heard + int64(c.keepAlive.Interval)
	if c.asked > 0 && c.heard < c.asked {
		if next = c.asked + int64(c.keepAlive.Timeout); now >= next {
			c.raw.Reset()
			c.raw.Close()
			return
		}
	} else if now >= next {
		c.appended(AppendPing(c.append(FrameHeaderBytes+8), false, [8]byte{}))
		c.asked = now
		next = now + int64(min(c.keepAlive.Interval, c.keepAlive.Timeout)) // an answer that came is to be seen by then
	}
	c.beating = true
	c.timer.At(next)
}
