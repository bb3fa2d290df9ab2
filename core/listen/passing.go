package listen

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tls"
)

// sort reads the ClientHello, which it leaves in h.early, and says whether TLS is to be ended here. If not, the connection has
// been taken over by whom it is passed to, or has ended.
func (h *tlsConn) sort(c *loop.Conn) (here bool) {
	l := c.Loop()
	c.Deadline = h.deadline
	for {
		buf := l.Borrow()
		n := copy(buf[:tls.MaxHello], h.early)
		k, err := c.ReadNow(buf[n:tls.MaxHello])
		if n += k; err != nil && err != loop.ErrAgain {
			l.Return(buf)
			h.fail(c, err)
			return false
		}
		name, whole, err := tls.ServerName(buf[:n], buf[tls.MaxHello:])
		if whole {
			here = h.decide(c, name, buf[:n])
		} else {
			h.early = append(h.early[:0], buf[:n]...)
		}
		l.Return(buf)
		switch {
		case err != nil:
			h.turnAway(c, tls.MalformedHello())
			h.fail(c, err)
			return false
		case whole && here:
			return true
		case whole:
			if p := c.Handler(); p != loop.Handler(h) {
				p.Serve(c)
			}
			return false
		}
		if err := c.WaitRead(); err != nil {
			h.fail(c, err)
			return false
		}
	}
}

// decide gives the connection to the route of the server name, or turns it away, unless TLS is ended here.
func (h *tlsConn) decide(c *loop.Conn, name, hello []byte) (here bool) {
	p := h.port
	route, passed := h.tls.Passed.FindBytes(name)
	switch {
	case passed:
		c.Deadline = 0
		p.counters.Passed++
		p.counters.Handshaking--
		c.Handle(p.protocol(c, p, Accepted{Peer: h.peer, TLS: &core.TLS{ServerName: string(name)}, Route: route, Early: hello}))
		return false
	case h.tls.Config == nil:
		h.turnAway(c, tls.UnrecognizedName())
		h.failed = true
		p.counters.Refused[UnknownName]++
		return false
	}
	h.early = append(h.early[:0], hello...)
	return true
}

// turnAway tells the client why, as far as its socket takes it at once.
func (h *tlsConn) turnAway(c *loop.Conn, alert tls.Alert) {
	_, _ = c.Write(alert[:])
	c.CloseWrite()
}
