package upstream

import (
	"errors"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
)

// conn is one connection to an endpoint: in use by one exchange, or idle and watched by the loop.
type conn struct {
	flight    // of the exchange that uses it
	holds     holds
	share     *share
	endpoint  *Endpoint
	raw       *loop.Conn
	transport Transport
	served    int
	owner     owner   // whom alone it may serve, where it began with a PROXY header
	promised  *waiter // whose it will be when it runs; the connection is idle until then
	inUse     bool
	spare     bool // its place is for another loop's exchanges
	evicted   bool // its place is whoever's who closed it
	gone      bool
}

func (c *conn) String() string {
	return "upstream " + c.share.upstream.Name + " " + c.endpoint.Address
}

// Serve is called when an idle connection has something to say: its end, or bytes that nobody asked for. Neither is for
// anyone, so it is closed. What TLS has to say to itself, such as a new ticket, is no reason for that.
func (c *conn) Serve(raw *loop.Conn) {
	if raw.Encrypted() {
		var b [1]byte
		if _, err := raw.ReadNow(b[:]); err == loop.ErrAgain {
			raw.Idle(raw.Loop().Now() + int64(c.share.upstream.Settings().IdleTimeout))
			return
		}
	}
	raw.Close()
}

// Closed takes the connection off the books.
func (c *conn) Closed(*loop.Conn) {
	sh := c.shareOf()
	c.gone = true
	c.drop(c.share.worker.Loop.Now())
	c.holds.end()
	switch {
	case c.inUse:
		sh.active--
	case c.promised != nil: // its place is promised, too
		c.promised.conn, c.promised.place = nil, c.endpoint
		c.promised = nil
		return
	default:
		for i := len(sh.idle) - 1; i >= 0; i-- {
			if sh.idle[i] == c {
				sh.idle = append(sh.idle[:i], sh.idle[i+1:]...)
				break
			}
		}
	}
	switch {
	case c.evicted:
	case c.spare:
		c.share.free(c.endpoint)
	default:
		c.share.release(c.endpoint)
	}
}

func (c *conn) shareOf() *endpointShare { return &c.endpoint.shares[c.share.worker.Loop.Index()] }

// reuse gives an idle connection to e that may serve x, nil when there is none.
func (s *share) reuse(e *Endpoint, x *core.Exchange) *conn {
	sh := &e.shares[s.worker.Loop.Index()]
	i := e.position(sh.idle, x)
	if i < 0 {
		return nil
	}
	c := sh.idle[i]
	sh.idle = append(sh.idle[:i], sh.idle[i+1:]...)
	c.use()
	return c
}

// use gives an idle connection to the calling task.
func (c *conn) use() {
	c.raw.Use()
	c.inUse = true
	c.shareOf().active++
}

// take counts a connection that may then be made; false: e has all that it may have.
func (e *Endpoint) take(set *Settings) bool {
	for {
		n := e.open.Load()
		if set.MaxConnections > 0 && int(n) >= set.MaxConnections {
			return false
		}
		if e.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// over says that e has more connections than it may have since the configuration changed.
func (e *Endpoint) over(set *Settings) bool {
	return set.MaxConnections > 0 && int(e.open.Load()) > set.MaxConnections
}

// open connects to e, which is counted already, without TLS or a transport.
func (s *share) open(x *core.Exchange, e *Endpoint, set *Settings) (*conn, error) {
	c := &conn{share: s, endpoint: e, inUse: true}
	e.shares[s.worker.Loop.Index()].active++
	raw, err := s.worker.Loop.DialPrepared(e.address, set.Prepare, c, x.DeadlineIn(int64(set.Connect)))
	if err != nil {
		if !c.gone { // it did not come to a connection that could tell
			c.Closed(nil)
		}
		return nil, err
	}
	c.raw = raw
	if e.proxy != ProxyNone {
		if err = c.announce(x, x.DeadlineIn(int64(set.Connect))); err != nil {
			raw.Close()
			return nil, err
		}
	}
	return c, nil
}

// dial makes a connection to e, which is counted already.
func (s *share) dial(x *core.Exchange, e *Endpoint, set *Settings) (*conn, error) {
	c, err := s.open(x, e, set)
	if err != nil {
		return nil, err
	}
	if e.tls != nil {
		if err = secure(c.raw, e, x.DeadlineIn(int64(set.Handshake))); err != nil {
			c.raw.Close()
			return nil, err
		}
	}
	c.transport = e.protocol.Speak(s.worker, c.raw)
	return c, nil
}

// secure encrypts a connection to e.
func secure(raw *loop.Conn, e *Endpoint, deadline int64) error {
	config := e.tls
	if config.ServerName == "" {
		config = config.Clone() // dear, but cheap beside a handshake
		config.ServerName = e.name
	}
	raw.Deadline = deadline
	state, err := raw.SecureClient(config)
	raw.Deadline = 0
	if want := e.protocol.ALPN; err == nil && want != "" && state.NegotiatedProtocol != want {
		err = errALPN
	}
	if err != nil {
		return &handshakeError{err}
	}
	return nil
}

var errALPN = errors.New("the endpoint does not speak the protocol")

// handshakeError tells a failed handshake from a failed connection.
type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

func (c *conn) target() *Endpoint { return c.endpoint }

func (c *conn) counted() *flight { return &c.flight }

func (c *conn) do(x *core.Exchange, header, idle int64) *core.Error {
	return c.transport.Do(x, header, idle)
}

func (c *conn) hold(b *health.Budget) { c.holds.begin(b, c.share) }

func (c *conn) adopt(x *core.Exchange) { c.transport.Adopt(x) }

// discard takes what of the answer's body came with its head: if that is all, the connection may serve on.
func (c *conn) discard(x *core.Exchange) {
	for b := x.Response.Body; b != nil && len(c.transport.Buffered()) > 0; {
		if p, err := b.Next(); err != nil || p.Last {
			break
		}
	}
	c.Finish(x)
}

// Finish ends the exchange: a clean connection is kept for the next, any other is closed.
func (c *conn) Finish(x *core.Exchange) {
	c.share.worker.Loop.Watch(nil)
	x.Upstream = nil
	c.land(x, x.Err)
	c.holds.end()
	set := c.share.upstream.Settings()
	c.served++
	keep := c.transport.Finish(x) && (set.RequestsPerConnection == 0 || c.served < set.RequestsPerConnection)
	sh := c.shareOf()
	if keep && c.endpoint.proxy != ProxyNone {
		c.share.makeRoom(c.endpoint, set)
	}
	switch {
	case !keep, sh.retired, c.share.worker.Draining(), len(sh.idle) >= set.IdlePerLoop:
		c.raw.Close()
		return
	}
	c.inUse = false
	sh.active--
	c.share.keep(c, set)
}

// Abandon closes the connection of an exchange that ended in a panic.
func (c *conn) Abandon() { c.raw.Close() }

// abort closes a connection whose exchange failed.
func (c *conn) abort(x *core.Exchange) {
	x.Upstream = nil
	c.transport.Finish(x)
	c.raw.Close()
}
