package listen

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core/loop"
)

// Preface is how an HTTP/2 connection begins (RFC 9113, 3.4). No HTTP/1.1 request that is not malformed begins so.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

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
		n, err := c.ReadNow(buf[:len(Preface)])
		h.held = append(h.held, buf[:n]...)
		c.Loop().Return(buf)
		if err != nil && err != loop.ErrAgain {
			return
		}
	}
}

// prefaceOf says whether a connection that begins with b speaks HTTP/2, once that is certain.
func prefaceOf(b []byte) (http2, decided bool) {
	n := min(len(b), len(Preface))
	switch {
	case string(b[:n]) != Preface[:n]:
		return false, true
	case n == len(Preface):
		return true, true
	}
	return false, false
}
