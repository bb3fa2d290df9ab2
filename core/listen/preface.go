package listen

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// prefaceConn finds out which protocol a client speaks that did not say so in a handshake.
type prefaceConn struct {
	port *Port
	peer netip.AddrPort
	held []byte
}

func (h *prefaceConn) String() string { return "first bytes of " + h.peer.String() }

// Closed ends the count of a connection that said nothing.
func (h *prefaceConn) Closed(*loop.Conn) { h.port.Release(h.peer) }

// Serve reads until the bytes are the preface or cannot become it.
func (h *prefaceConn) Serve(c *loop.Conn) {
	p := h.port
	c.Deadline = p.after(p.settings.Listener.HeaderTimeout)
	for {
		http2, decided := prefaceOf(h.held)
		if decided {
			c.Deadline = 0
			next := p.protocol(c, p, Accepted{Peer: h.peer, HTTP2: http2, Early: h.held})
			c.Handle(next)
			next.Serve(c)
			return
		}
		if c.WaitRead() != nil {
			return
		}
		buf := c.Loop().Borrow()
		n, err := c.ReadNow(buf[:len(core.HTTP2Preface)])
		h.held = append(h.held, buf[:n]...)
		c.Loop().Return(buf)
		if err != nil && err != loop.ErrAgain {
			return
		}
	}
}

// prefaceOf says whether a connection that begins with b speaks HTTP/2, once that is certain.
func prefaceOf(b []byte) (http2, decided bool) {
	n := min(len(b), len(core.HTTP2Preface))
	switch {
	case string(b[:n]) != core.HTTP2Preface[:n]:
		return false, true
	case n == len(core.HTTP2Preface):
		return true, true
	}
	return false, false
}
