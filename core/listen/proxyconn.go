package listen

import (
	"io"
	"net/netip"

	"github.com/sluice-gateway/sluice/core/loop"
)

// proxyRead bounds what is held of a connection until its PROXY header is whole.
const proxyRead = proxyFixed + maxProxyBlock

// proxyConn reads the PROXY header of a connection and then gives it to its protocol.
type proxyConn struct {
	port     *Port
	peer     netip.AddrPort
	deadline int64  // for the whole header; 0: none
	held     []byte // of a header that came in parts
	failed   bool   // and counted
}

func (h *proxyConn) String() string { return "PROXY header of " + h.peer.String() }

// Closed ends the count of a connection that never came to its protocol. One that waited in silence until the end was
// closed by the loop, without a word to Serve.
func (h *proxyConn) Closed(c *loop.Conn) {
	if !h.failed && h.deadline != 0 && c.Loop().Now() >= h.deadline {
		h.port.counters.Refused[LateProxyHeader]++
	}
	h.port.leave()
}

// Serve reads the header and hands the connection over.
func (h *proxyConn) Serve(c *loop.Conn) {
	c.Deadline = h.deadline
	for {
		if err := c.WaitRead(); err != nil {
			h.fail(c, err)
			return
		}
		buf := c.Loop().Borrow()
		done, next := h.read(c, buf)
		c.Loop().Return(buf)
		if next != nil {
			next.Serve(c)
		}
		if done {
			return
		}
	}
}

// read takes what is there. next is who serves the connection from now on, when there is work for it already.
func (h *proxyConn) read(c *loop.Conn, buf []byte) (done bool, next loop.Handler) {
	n := copy(buf, h.held)
	k, err := c.ReadNow(buf[n:proxyRead])
	switch {
	case err == loop.ErrAgain:
		return false, nil
	case err != nil:
		h.fail(c, err)
		return true, nil
	}
	n += k
	source, used, err := parseProxy(buf[:n])
	switch {
	case err != nil:
		h.fail(c, err)
		return true, nil
	case used == 0:
		h.held = append(h.held[:0], buf[:n]...)
		return false, nil
	}
	return true, h.handOver(c, source, buf[used:n])
}

// handOver gives the connection to its protocol, for the client that the header named.
func (h *proxyConn) handOver(c *loop.Conn, source netip.AddrPort, early []byte) loop.Handler {
	p, client := h.port, h.peer
	if source.IsValid() {
		client = source
	}
	if reason, ok := p.caps.admit(client.Addr(), p.settings.Listener.ConnectionsPerIP, p.loop.Wall()); !ok {
		h.refuse(c, reason)
		return nil
	}
	c.Deadline = 0
	deadline := p.begin(c, client, early)
	if len(early) > 0 || c.Readable() {
		return c.Handler()
	}
	c.Idle(deadline)
	return nil
}

// fail counts what is the sender's fault. One that leaves before its first byte has done nothing wrong: so do the health
// checks of load balancers.
func (h *proxyConn) fail(c *loop.Conn, err error) {
	switch {
	case err == loop.ErrTimeout:
		h.refuse(c, LateProxyHeader)
	case err == errProxyHeader, err == io.EOF && len(h.held) > 0:
		h.refuse(c, BadProxyHeader)
	default:
		h.failed = true
	}
}

func (h *proxyConn) refuse(c *loop.Conn, r Reason) {
	h.failed = true
	h.port.counters.Refused[r]++
	c.Reset()
}
