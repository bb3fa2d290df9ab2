package listen

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

const (
	// drainSettle is how long a draining port lets idle connections be, so that a request which was under way when it
	// stopped to accept, or came with one of the last connections, is still answered.
	drainSettle = 50 * time.Millisecond
	// drainAgain is how often it then closes what has become idle since.
	drainAgain = time.Second
	// drainBatches bounds the batches taken from a socket's queue before it is closed; a backlog is rarely above 4096.
	drainBatches = 1024
)

// Port is a listener's presence on one loop: what accepts its connections there. Its methods are called on that loop.
type Port struct {
	loop     *loop.Loop
	caps     *Caps
	protocol Protocol
	settings Settings
	accepts  []accept
	counters Counters
	group    loop.Group // of all its connections
	shaking  ration
	rate     rate
	drain    *loop.Timer
	draining bool
}

// accept is one of a port's sockets.
type accept struct {
	sockets  *Sockets
	shard    int
	acceptor *loop.Acceptor
}

// NewPort gives a port that accepts nothing yet. Unlike its methods it may be called before the loop has started.
func NewPort(l *loop.Loop, c *Caps, s Settings, p Protocol) *Port {
	port := &Port{loop: l, caps: c, settings: s, protocol: p}
	port.drain = l.NewTimer(port.closeIdle)
	return port
}

// Settings are the listener's settings in force.
func (p *Port) Settings() *core.Listener { return p.settings.Listener }

// Draining says whether the port has ended.
func (p *Port) Draining() bool { return p.draining }

// Configure puts s in force: for what is accepted from now on, and for the next request of each open connection.
func (p *Port) Configure(s Settings) { p.settings = s }

// Counters are the port's counts as of now.
func (p *Port) Counters() Counters {
	c := p.counters
	for _, a := range p.accepts {
		c.Failures += uint64(a.acceptor.Failures)
	}
	return c
}

// Listen starts to accept from s, on the sockets of the loop's index. The port owns them from then on, also when Listen
// fails.
func (p *Port) Listen(s *Sockets) error {
	taken, err := s.take(p.loop.Index())
	if err != nil {
		return err
	}
	for _, t := range taken {
		a, failed := p.loop.Accept(t.fd, s.shared(), p.accepted)
		if failed != nil {
			_ = unix.Close(t.fd)
			err = fmt.Errorf("cannot accept on %s: %w", s, failed)
			continue
		}
		p.accepts = append(p.accepts, accept{s, t.index, a})
	}
	return err
}

// Accepting is how many sockets of s the port accepts from.
func (p *Port) Accepting(s *Sockets) (n int) {
	for _, a := range p.accepts {
		if a.sockets == s {
			n++
		}
	}
	return n
}

// Copy gives f a copy of each socket that the port accepts from, for another process. f owns it. Of those
// that are copies of one another it gives one.
func (p *Port) Copy(f func(s *Sockets, shard, fd int)) error {
	for _, a := range p.accepts {
		if a.sockets.copied(a.shard) {
			continue
		}
		fd, err := a.acceptor.Copy()
		if err != nil {
			return fmt.Errorf("cannot copy the socket of %s: %w", a.sockets, err)
		}
		f(a.sockets, a.shard, fd)
	}
	return nil
}

// Leave stops accepting from s, after what is in the kernel's queues has been taken. Open connections stay.
func (p *Port) Leave(s *Sockets) {
	p.accepts = slices.DeleteFunc(p.accepts, func(a accept) bool {
		if a.sockets == s {
			p.close(a.acceptor)
		}
		return a.sockets == s
	})
}

// Drain ends the port: it takes what is in the kernel's queues, accepts nothing more, and closes its connections as they
// become idle. Counters().Open says what is left; to make active connections close after their exchange is their
// protocol's part.
func (p *Port) Drain() { p.end(drainSettle, nil) }

// HandOver is Drain while another process accepts from the sockets for which taken is true: their queues are left to it. Idle
// connections have patience to come with one more request, whose answer tells that it was the last: a client that is told does
// not send another into a connection that ends.
func (p *Port) HandOver(patience time.Duration, taken map[*Sockets]bool) { p.end(patience, taken) }

func (p *Port) end(patience time.Duration, taken map[*Sockets]bool) {
	if p.draining {
		return
	}
	p.draining = true
	for _, a := range p.accepts {
		if taken[a.sockets] {
			p.counters.Failures += uint64(a.acceptor.Failures)
			a.acceptor.Close()
			continue
		}
		p.close(a.acceptor)
	}
	p.accepts = nil
	p.drain.At(p.loop.Clock() + int64(patience)) // by the coarse clock it may be over already
}

func (p *Port) close(a *loop.Acceptor) {
	for range drainBatches {
		before := p.handled()
		if a.Drain(); p.handled() == before {
			break
		}
	}
	p.counters.Failures += uint64(a.Failures)
	a.Close()
}

// handled counts the connections taken from the kernel, refused ones included.
func (p *Port) handled() uint64 {
	n := p.counters.Accepted
	for _, r := range p.counters.Refused {
		n += r
	}
	return n
}

// closeIdle closes the port's idle connections, again and again until none is open.
func (p *Port) closeIdle() {
	p.loop.EachIdle(func(c *loop.Conn) {
		if c.Group == &p.group {
			c.Close()
		}
	})
	if p.counters.Open > 0 {
		p.drain.At(p.loop.Now() + int64(drainAgain))
	}
}

// KeepTunnels closes every connection that a port of l has accepted, of whichever listener, but those that are tunnels or carry
// some. It is not called by a task that serves one.
func KeepTunnels(l *loop.Loop) {
	l.Abort(func(c *loop.Conn) bool {
		if c.Group == nil || c.Tunnel {
			return false
		}
		shared, ok := c.Handler().(interface{ KeepTunnels() bool })
		return !ok || !shared.KeepTunnels()
	})
}

// CloseAll is KeepTunnels that keeps nothing.
func CloseAll(l *loop.Loop) {
	l.Abort(func(c *loop.Conn) bool { return c.Group != nil })
}

// accepted takes a connection from the kernel.
func (p *Port) accepted(fd int, peer netip.AddrPort) {
	s := &p.settings
	if p.caps.shed.On() {
		p.refuse(fd, OverMemory)
		return
	}
	if s.Proxies != nil && !s.Proxies.Trusts(peer.Addr()) {
		p.refuse(fd, UnknownProxy)
		return
	}
	if reason, ok := p.mayHandshake(); !ok {
		p.refuse(fd, reason)
		return
	}
	if !p.caps.enter(s.Listener.Connections) {
		p.refuse(fd, OverConnections)
		return
	}
	// With a PROXY header the client is not known yet, and its count waits for the header.
	if s.Proxies == nil {
		if reason, ok := p.caps.admit(peer.Addr(), s.Listener.ConnectionsPerIP, p.loop.Wall()); !ok {
			p.caps.leave()
			p.refuse(fd, reason)
			return
		}
	}
	c, err := p.loop.Adopt(fd, nil)
	if err != nil {
		p.caps.leave()
		if s.Proxies == nil {
			p.caps.clients.Release(peer.Addr())
		}
		p.counters.Refused[NotAdopted]++
		return
	}
	c.Group = &p.group
	c.QuickAck = s.QuickAck && peer.IsValid()
	p.counters.Accepted++
	p.counters.Open++
	if s.Proxies != nil {
		h := &proxyConn{port: p, peer: peer, deadline: p.after(s.Listener.HeaderTimeout)}
		c.Handle(h)
		c.Idle(h.deadline)
		return
	}
	c.Idle(p.begin(c, peer, nil))
}

// begin gives a connection the handler of what comes next, and says when its patience ends. early is what has come already.
func (p *Port) begin(c *loop.Conn, peer netip.AddrPort, early []byte) (deadline int64) {
	s := &p.settings
	switch {
	case s.TLS != nil:
		deadline = p.after(s.TLS.Timeout)
		p.counters.Handshaking++
		c.Handle(&tlsConn{port: p, tls: s.TLS, peer: peer, early: append([]byte(nil), early...), deadline: deadline})
	case s.H2C && s.H1:
		deadline = p.after(s.Listener.IdleTimeout)
		c.Handle(&prefaceConn{port: p, peer: peer, held: append([]byte(nil), early...)})
	default:
		deadline = p.after(s.Listener.IdleTimeout)
		c.Handle(p.protocol(c, p, Accepted{Peer: peer, HTTP2: s.H2C, Early: early}))
	}
	return deadline
}

// after is the instant that lies timeout ahead; 0, never, without a timeout.
func (p *Port) after(timeout time.Duration) int64 {
	if timeout <= 0 {
		return 0
	}
	return p.loop.Now() + int64(timeout)
}

// refuse closes a connection that the loop has not adopted, with a reset: it leaves nothing behind in the kernel.
func (p *Port) refuse(fd int, r Reason) {
	p.counters.Refused[r]++
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// Release ends the count of a connection that its protocol served.
func (p *Port) Release(peer netip.AddrPort) {
	p.caps.clients.Release(peer.Addr())
	p.leave()
}

func (p *Port) leave() {
	p.counters.Open--
	p.caps.leave()
}
