package http2

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// drainTime is what a client has to learn that no more streams are taken, before those that come late are refused.
const drainTime = time.Second

// drain announces the end, and a moment later which streams are the last.
func (c *serverConn) drain() {
	if c.ending || c.closed {
		return
	}
	c.ending, c.accepted = true, MaxWindow
	c.announce(MaxWindow)
	l := c.res.loop
	l.NewTimer(c.drained).At(l.Now() + int64(drainTime))
}

func (c *serverConn) drained() {
	if c.closed || c.dying || c.final {
		return
	}
	c.accepted, c.final = c.last, true
	c.announce(c.last)
}

// announce sends a GOAWAY frame without a fault: no stream above last is served, and may be asked for anew elsewhere.
func (c *serverConn) announce(last uint32) {
	c.raw.Busy = true // until it has left
	c.appended(AppendGoAway(c.append(FrameHeaderBytes+8), last, CodeNo, ""))
}

// Expired ends a connection that has been silent for too long. A client that has nothing under way is told of it, so that it does
// not take the end for a failure; what it had already sent is refused, and may be sent again.
func (c *serverConn) Expired(*loop.Conn) {
	if c.dying || c.running > 0 || !c.settled || c.block.stream != 0 || len(c.held) > 0 {
		c.raw.Close()
		return
	}
	c.ending, c.final, c.accepted = true, true, c.last
	c.announce(c.last)
}

// KeepTunnels resets every stream but those that are tunnels, and takes no more. false: there are none, and nothing was done.
func (c *serverConn) KeepTunnels() bool {
	if c.closed || c.dying || !c.tunnels() {
		return false
	}
	if !c.final {
		c.ending = true
		c.drained()
	}
	for id, t := range c.streams {
		if !t.tunnel {
			c.cut(id, CodeInternal, c.blame.gone)
		}
	}
	return true
}

// tunnels says whether a stream is one.
func (c *serverConn) tunnels() bool {
	for _, t := range c.streams {
		if t.tunnel {
			return true
		}
	}
	return false
}

// setAge starts the time after which the connection takes no new streams. Connections that were made at the same time must not
// all come back at the same time.
func (c *serverConn) setAge(set *core.HTTP2) {
	if set.MaxAge <= 0 {
		return
	}
	l, age, grace := c.res.loop, int64(set.MaxAge), int64(set.MaxAgeGrace)
	age += rand.Int64N(age/5+1) - age/10
	c.old = l.NewTimer(func() {
		c.drain()
		c.old = l.NewTimer(c.cutOff)
		c.old.At(l.Now() + grace)
	})
	c.old.At(l.Now() + age)
}

// cutOff ends the connection with the streams that are still open.
func (c *serverConn) cutOff() {
	if c.closed || c.dying {
		return
	}
	c.announce(min(c.last, c.accepted))
	c.die()
	c.abandonStreams(core.ErrClientGone)
}
