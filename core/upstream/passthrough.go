package upstream

import (
	"io"
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// Passthrough is the action of a route whose clients' TLS is ended by an endpoint: a route's `passthrough:`. It answers no
// requests; the connections of its clients become passages.
type Passthrough struct{ proxy *Proxy }

// NewPassthrough spreads connections over targets by weight. At least one weight must be above zero. The targets must not be
// spoken to in TLS, which the clients bring themselves.
func NewPassthrough(targets []Target, loops int) *Passthrough {
	return &Passthrough{NewProxy(targets, 0, false, loops)}
}

// Shape gives p, before it is used, a split in the place of its own. Its keys must be the client's address.
func (p *Passthrough) Shape(s *Split) *Passthrough {
	p.proxy.Shape(s, nil, nil)
	return p
}

// Answer connects x to an endpoint, or fails x. There is no request: what follows is the passage's.
func (p *Passthrough) Answer(x *core.Exchange) {
	var given cookies // stays empty: there is no answer to give them with
	p.reach(x, p.proxy.choose(x, &given), &given, 0)
}

// reach connects x to an endpoint of to, or while a breaker is open, of what stands in for its upstream. Of a passage a breaker judges
// whether it got its connection: what becomes of that is between its two ends.
func (p *Passthrough) reach(x *core.Exchange, to *Subset, given *cookies, depth int) {
	l := x.Worker.Loop
	s, set := to.shares[l.Index()], to.upstream.Settings()
	x.Sent.Pool = &to.upstream.Pool
	var through pass
	if g := set.Gate; g != nil {
		var ok bool
		if through, ok = g.Breaker.enter(x); !ok {
			if g.Fallback.To == nil || depth == maxFallbacks {
				x.Fail(errBreakerOpen)
				return
			}
			g.Breaker.fallbacks.Add(1)
			p.reach(x, g.Fallback.To.whole, given, depth+1)
			return
		}
	}
	if set.Balancing != nil {
		set.Balancing.affinity(x, given)
	}
	if c, err := s.pass(x, set); err != nil {
		x.Fail(err)
	} else {
		x.Upstream = c
		x.Response.Status, x.Times.Head = passedStatus, l.Now()
	}
	through.leave(x, true)
}

// passedStatus is that of a passage which came about, as others log it. Nobody is sent it.
const passedStatus = 200

// pass makes a connection to an endpoint, which no transport speaks on. Where one cannot be had it tries others, as the upstream's retries
// say of attempts that did not connect.
func (s *share) pass(x *core.Exchange, set *Settings) (*conn, *core.Error) {
	t := tries{share: s, x: x, plan: plan{set: set, retry: set.Retry, perTry: set.PerTry}}
	if t.plan.retry == nil {
		t.plan.retry = &builtIn
	}
	if own := t.plan.retry.PerTry; own > 0 {
		t.plan.perTry = own
	}
	t.begin()
	defer t.end()
	for {
		c, err := t.open()
		if err == nil {
			return c, nil
		}
		cause := causeOf(err)
		wait, again := t.again(cause)
		if !again {
			return nil, err
		}
		t.giveUp(nil, err, cause)
		if err := t.pause(wait); err != nil {
			return nil, err
		}
	}
}

// open makes one attempt to connect, and nothing more.
func (t *tries) open() (*conn, *core.Error) {
	defer t.endRetry()
	s, x, set := t.share, t.x, t.plan.set
	x.Try = core.Try{}
	found, failure := s.find(x, set, true)
	if failure == core.ErrQueueFull {
		found, failure = s.wait(x, set, true)
	}
	if failure != nil {
		return nil, failure
	}
	x.BeginTry(int64(t.plan.perTry))
	e := found.place
	x.Sent.Endpoint = &e.Endpoint
	f := s.depart(e)
	c, err := s.open(x, e, set)
	if err == nil {
		f.settle(x)
		c.flight = f
		return c, nil
	}
	x.Attempt.Tried(&e.Endpoint)
	failure = dialError(x, err)
	f.land(x, failure)
	return nil, failure
}

// Port is where a passed connection came in.
type Port interface {
	// Settings are the listener's as now in force.
	Settings() *core.Listener
	// Release is called once when the connection is closed.
	Release(peer netip.AddrPort)
}

// NewConn gives the handler of a client's connection that is passed through to route, whose action p is. early is what was read
// of it already.
func (p *Passthrough) NewConn(w *core.Worker, c *loop.Conn, port Port, peer netip.AddrPort, secured *core.TLS, route *core.Route, early []byte) loop.Handler {
	g := &passage{worker: w, port: port, route: route, client: c, early: append([]byte(nil), early...), start: w.Loop.Turned()}
	g.origin = core.Origin{Peer: peer, TLS: secured, Conn: c}
	g.up = direction{passage: g, src: c}
	g.down = direction{passage: g, dst: c}
	return &g.up
}

// passage is a client's connection and an endpoint's between which bytes pass unread, each way by itself. While nothing moves it
// has neither a coroutine nor a buffer: it is this and two connections. It ends when both ways have ended, when one fails, or
// when nothing has moved either way for the
// upstream's tunnel timeout.
type passage struct {
	worker   *core.Worker
	port     Port
	route    *core.Route
	origin   core.Origin
	client   *loop.Conn
	early    []byte // the client's, for the endpoint; nil: it has gone there
	upstream *conn  // nil: not connected yet
	up, down direction
	idle     int64
	moved    int64 // instant of the last byte, either way
	made     int64 // when the endpoint had been connected to
	start    int64
	last     int64 // when it ends at the latest; 0: it may live on
	end      *loop.Timer
	over     bool

	sent core.Sent // for the observer, at the end
}

// direction is one of the two ways of a passage, and the handler of the connection that it reads.
type direction struct {
	passage  *passage
	src, dst *loop.Conn
	bytes    int64
	busy     bool      // a task moves bytes
	ended    bool      // src has ended, and dst was told
	waiting  loop.Task // for the other way to end
	waits    bool
}

func (g *direction) String() string {
	if g == &g.passage.down {
		return g.passage.upstream.String()
	}
	return "passed client " + g.passage.origin.Peer.String()
}

// Serve moves what has come.
func (g *direction) Serve(*loop.Conn) {
	p := g.passage
	if p.upstream == nil && !p.connect() {
		return
	}
	g.busy = true
	err := g.relay()
	g.busy = false
	switch {
	case p.over:
	case err == loop.ErrAgain:
		g.src.Idle(0)
	case g.ended:
		g.outlive()
	default:
		p.close()
	}
}

// connect brings the passage to an endpoint, and sends it what the client has sent already.
func (p *passage) connect() bool {
	l, c := p.worker.Loop, p.client
	x := p.worker.Begin()
	p.identify(x)
	c.HalfClose = true // a client may have said all that it has to say
	l.Watch(c)
	p.route.Action.Answer(x)
	l.Watch(nil)
	if x.Err == nil && c.Closed() {
		x.Upstream.Abandon()
		x.Fail(core.ErrClientGone)
	}
	if x.Err != nil {
		p.over = true
		p.worker.Observe(x)
		p.worker.End(x)
		return false
	}
	p.upstream = x.Upstream.(*conn)
	x.Upstream = nil
	p.sent = x.Sent
	p.worker.End(x)

	raw := p.upstream.raw
	set := p.upstream.share.upstream.Settings()
	p.idle, p.made = int64(set.Tunnel), l.Now()
	if set.TunnelLife > 0 {
		p.last = p.made + int64(set.TunnelLife)
	}
	p.moved = p.made
	p.up.dst, p.down.src = raw, raw
	for _, side := range [...]*loop.Conn{c, raw} {
		side.HalfClose, side.Busy, side.Deadline = true, true, 0
		side.ReadTimeout, side.WriteTimeout = min(p.idle, lull), p.idle
	}
	raw.Handle(&p.down)
	if len(p.early) > 0 {
		if _, err := raw.Write(p.early); err != nil {
			p.close()
			return false
		}
	}
	p.up.bytes, p.early = int64(len(p.early)), nil
	if p.over {
		return false
	}
	p.end = l.NewTimer(p.expire)
	p.upstream.share.tunnels++
	p.worker.BeginTunnel()
	c.Tunnel, raw.Tunnel = true, true
	p.lookAt(l.Now() + p.idle)
	raw.Idle(0)
	return true
}

// lull is how long a transfer inside the kernel may pause, in nanoseconds, before its pipe and its coroutine are given back.
const lull = 1e9

// relay moves bytes until there are none to move now, which is ErrAgain.
func (g *direction) relay() error {
	l := g.passage.worker.Loop
	for {
		buf := l.Borrow()
		n, err := g.src.ReadNow(buf)
		if n > 0 {
			_, err = g.dst.Write(buf[:n])
			g.count(int64(n))
		}
		l.Return(buf)
		if n == len(buf) && err == nil {
			err = g.bulk()
		}
		switch {
		case err == nil:
		case err == loop.ErrAgain:
			return err
		case err == io.EOF && !g.passage.over:
			g.ended = true
			g.dst.CloseWrite()
			return err
		default:
			return err
		}
	}
}

// bulk moves what comes inside the kernel, for as long as it comes without a pause.
func (g *direction) bulk() error {
	n, wrote, err := g.passage.worker.Loop.Splice(g.dst, g.src, bulkBytes, &g.passage.moved)
	g.bytes += n
	switch {
	case wrote: // what was between the two is lost
		return loop.ErrClosed
	case err == loop.ErrTimeout:
		return nil
	}
	return err
}

func (g *direction) count(n int64) {
	g.bytes += n
	if n > 0 {
		g.passage.moved = g.passage.worker.Loop.Now()
	}
}

// outlive holds a connection that has ended, and cannot be idle any more, until the other way has ended, too.
func (g *direction) outlive() {
	p := g.passage
	other := &p.up
	if g == other {
		other = &p.down
	}
	for !p.over && !other.ended {
		g.waiting, g.waits = p.worker.Loop.Self(), true
		err := p.worker.Loop.Park(0)
		g.waits = false
		if err != nil {
			break
		}
	}
	p.close()
}

// expire ends a passage in which nothing moves, or looks again later.
func (p *passage) expire() {
	now := p.worker.Loop.Now()
	quiet := now - p.moved
	switch {
	case p.last > 0 && now >= p.last:
		p.close()
	case quiet < p.idle:
		p.lookAt(now + p.idle - quiet)
	case p.up.busy || p.down.busy:
		p.lookAt(now + p.idle) // a write has a timeout of its own
	default:
		p.close()
	}
}

// lookAt has expire called at an instant, or at the end of the passage's life.
func (p *passage) lookAt(instant int64) {
	if p.last > 0 && p.last < instant {
		instant = p.last
	}
	p.end.At(instant)
}

// Closed takes one of the two connections off the books, and the other with it.
func (g *direction) Closed(c *loop.Conn) {
	p := g.passage
	if c == p.client {
		p.port.Release(p.origin.Peer)
	} else {
		p.upstream.Closed(c)
	}
	p.close()
}

// close ends both ways and lets the observer see the whole. It may be called again.
func (p *passage) close() {
	if p.over {
		return
	}
	p.over = true
	p.client.Close()
	if p.upstream == nil {
		return // while it was being connected, which is told of there
	}
	p.upstream.raw.Close()
	if p.end != nil {
		p.end.Stop()
		p.upstream.share.tunnels--
		p.worker.EndTunnel()
	}
	for _, g := range [...]*direction{&p.up, &p.down} {
		if g.waits {
			g.waiting.Wake()
		}
	}
	x := p.worker.Begin()
	p.identify(x)
	x.Response.Status = passedStatus
	x.Sent = p.sent
	x.Sent.RequestBody, x.Sent.ResponseBody = p.up.bytes, p.down.bytes
	x.Times.Sent, x.Times.Head = p.start, p.made
	p.worker.Observe(x)
	p.worker.End(x)
}

// identify tells x whose passage it is.
func (p *passage) identify(x *core.Exchange) {
	x.Listener, x.Route, x.Passed = p.port.Settings(), p.route, true
	p.origin.Identify(x)
	x.Times.Start = p.start
}
