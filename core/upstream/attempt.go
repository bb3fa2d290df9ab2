package upstream

import (
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
)

// Proxy answers exchanges from upstreams: a route's `to:`. It is immutable but for what it points to. It can be compared: routes whose
// proxies are equal may share one.
type Proxy struct {
	only    *Subset // which gets all; nil: there is a split
	split   *Split
	canary  *Canary       // nil: there is none
	mirror  *Mirror       // nil: there is none
	timeout time.Duration // whole exchange, instead of the upstream's; 0: the upstream's
	ownHost bool          // the endpoint's name goes into Host
	gate    *Gate         // of the route; nil: exchanges pass
	limits  Limits        // instead of the upstream's
}

// NewProxy gives an action that spreads exchanges over targets by weight. At least one weight must be above zero. With
// ownHost an endpoint gets its configured name as Host, instead of what the client asked for.
func NewProxy(targets []Target, timeout time.Duration, ownHost bool, loops int) *Proxy {
	p := &Proxy{timeout: timeout, ownHost: ownHost}
	if len(targets) == 1 {
		p.only = targets[0].subset()
	} else {
		p.split = NewSplit(targets, nil, loops)
	}
	return p
}

// Shape gives p, before it is used, a split in the place of its own, a canary and a mirror. Each may be nil.
func (p *Proxy) Shape(s *Split, c *Canary, m *Mirror) *Proxy {
	if s != nil {
		p.only, p.split = nil, s
	}
	p.canary, p.mirror = c, m
	return p
}

// Guard puts a gate, which may be nil, before p, which nobody uses yet.
func (p *Proxy) Guard(g *Gate) *Proxy {
	p.gate = g
	return p
}

// choose gives the endpoints for an exchange.
func (p *Proxy) choose(x *core.Exchange, given *cookies) *Subset {
	if p.canary != nil && p.canary.takes(x, given) {
		return p.canary.to
	}
	if p.only != nil {
		return p.only
	}
	return p.split.choose(x, given)
}

// Answer leaves an endpoint's answer in x, or that of a fallback, or fails x.
func (p *Proxy) Answer(x *core.Exchange) {
	var given cookies
	var through pass
	if p.gate != nil {
		var ok bool
		if through, ok = p.gate.Breaker.enter(x); !ok {
			p.standIn(x, p.gate, &given, 0)
			return
		}
	}
	asked := p.ask(x, p.choose(x, &given), &given, 0)
	through.leave(x, asked)
}

// ask has one of to answer, or what stands in for their upstream; false: x was refused, and no upstream asked.
func (p *Proxy) ask(x *core.Exchange, to *Subset, given *cookies, depth int) (asked bool) {
	s, set := to.shares[x.Worker.Loop.Index()], to.upstream.Settings()
	x.Sent.Pool = &to.upstream.Pool
	var through pass
	if set.Gate != nil {
		var ok bool
		if through, ok = set.Gate.Breaker.enter(x); !ok {
			return p.standIn(x, set.Gate, given, depth)
		}
	}
	asked = set.Admission == nil || set.Admission.enter(x)
	if asked {
		p.exchange(x, s, set, given)
	}
	through.leave(x, asked)
	return asked
}

// exchange leaves an endpoint's answer in x, or fails x.
func (p *Proxy) exchange(x *core.Exchange, s *share, set *Settings, given *cookies) {
	l := x.Worker.Loop
	plan, err := p.plan(x, set)
	if err != nil {
		x.Fail(err)
		return
	}
	if b := set.Balancing; b != nil {
		b.affinity(x, given)
	}
	forward(x)
	if p.mirror != nil {
		p.mirror.see(x)
	}
	l.Watch(x.Downstream.Conn())
	if err := s.try(x, plan); err != nil {
		l.Watch(nil)
		x.Fail(err)
		return
	}
	if x.Listener.Forward.Via != "" {
		addVia(&x.Response, x.Listener.Forward.Via)
	}
	given.give(&x.Response)
}

// try makes attempts until one is answered or none may follow.
func (s *share) try(x *core.Exchange, p plan) *core.Error {
	t := tries{share: s, x: x, plan: p}
	t.begin()
	defer t.end()
	for {
		beside := t.hedged()
		way, err := t.attempt()
		if err == core.ErrRefused && way == nil && beside == nil && t.turnedAway() { // nothing was sent: that was no attempt
			continue
		}
		cause := causeOf(err)
		if err == nil {
			cause = p.retry.judge(x)
		}
		if beside != nil {
			if way, err = t.settle(beside, way, err, err == nil && cause == causeNone); x.Sent.HedgeWon {
				cause = causeNone
			}
		}
		wait, again := t.again(cause)
		if !again {
			if err == nil {
				if h := p.hedge; h != nil && h.After == 0 {
					s.waits.add(x.Times.Head - x.Times.Sent)
				}
				t.answered(way)
			}
			return err
		}
		t.giveUp(way, err, cause)
		if err := t.pause(wait); err != nil {
			return err
		}
	}
}

// attempt makes one, and gives its way where it came to one. The way of a failed attempt has ended.
func (t *tries) attempt() (way, *core.Error) {
	s, x, p := t.share, t.x, &t.plan
	defer t.endRetry()
	x.Try = core.Try{}
	if x.Over() {
		return nil, x.Overdue(core.ErrTotalTimeout)
	}
	var token *Token
	if a := p.set.Authorizer; a != nil {
		var err *core.Error
		if token, err = a.authorize(x); err != nil {
			return nil, err
		}
	}
	if i := p.set.Identity; i != nil {
		if err := i.tell(x); err != nil {
			return nil, err
		}
		s.worker.Loop.Watch(x.Downstream.Conn())
	}
	way, err := s.connect(x, p, t.fresh)
	if err != nil {
		return nil, err
	}
	x.Upstream = way
	switch m, named := &x.Request, x.Request.Has(core.FieldHost); {
	case m.Method == core.MethodConnect: // Host says where the tunnel leads, whoever opens it (RFC 9112, 3.2.3)
		if !named {
			m.Set(core.FieldHost, m.Host())
		}
	case p.ownHost || !named:
		m.Set(core.FieldHost, way.target().host)
	}
	if p.tell {
		x.TellDeadline()
	}
	if err = way.do(x, int64(p.header), int64(p.idle)); err != nil {
		way.counted().land(x, err)
		way.abort(x)
	} else if token != nil {
		p.set.Authorizer.hear(token, x.Response.Status)
	}
	x.Try = core.Try{}
	return way, err
}

// way is an exchange's way to an endpoint and back: a connection of its own, or a place in one that it shares.
type way interface {
	core.Upstream
	// target is where it leads.
	target() *Endpoint
	// counted is the attempt as the endpoint's load counts it.
	counted() *flight
	// do sends the request and waits for the head of the answer. header and idle are nanoseconds.
	do(x *core.Exchange, header, idle int64) *core.Error
	// hold makes the budget count the exchange as active until the way ends; nil: none does any more.
	hold(b *health.Budget)
	// adopt makes the answer that of x, which has sent the same request.
	adopt(x *core.Exchange)
	// discard ends an attempt whose answer nobody gets. What of its body is here already is taken.
	discard(x *core.Exchange)
	// abort ends it after a failure.
	abort(x *core.Exchange)
}

// connect gives a way to an endpoint that the exchange has not tried: over a kept connection unless fresh is wanted, else over a
// new one. While every endpoint has all the connections it may have, the exchange waits in the queue.
func (s *share) connect(x *core.Exchange, p *plan, fresh bool) (way, *core.Error) {
	set := p.set
	found, failure := s.find(x, set, fresh)
	if failure == core.ErrQueueFull {
		found, failure = s.wait(x, set, fresh)
	}
	if failure != nil {
		return nil, failure
	}
	x.BeginTry(int64(p.perTry)) // to wait in the queue has a time of its own
	e := found.endpoint()
	x.Sent.Endpoint = &e.Endpoint
	f := s.depart(e)
	if e.protocol.shared() {
		r, failure := s.ride(x, set, found)
		if failure != nil {
			f.land(x, failure)
			return nil, failure
		}
		f.kept = r.mux.served > 1
		r.flight = f
		return r, nil
	}
	if found.conn != nil {
		f.kept = true
		found.conn.flight = f
		return found.conn, nil
	}
	c, err := s.dial(x, e, set)
	if err != nil {
		x.Attempt.Tried(&e.Endpoint)
		failure = dialError(x, err)
		f.land(x, failure)
		return nil, failure
	}
	c.flight = f
	return c, nil
}

// ride gives the exchange its place in a connection that it shares with others.
func (s *share) ride(x *core.Exchange, set *Settings, found seat) (*ride, *core.Error) {
	r, err := found.mux.board(x, set)
	switch {
	case err == nil:
		return r, nil
	case err.Retry == core.RetryUnsent:
		x.Attempt.Tried(&found.mux.endpoint.Endpoint)
	}
	return nil, err
}

// seat is what an exchange was given to reach an endpoint with; one of the three.
type seat struct {
	conn  *conn     // that was kept, for it alone
	mux   *Mux      // in which a place is promised to it
	place *Endpoint // to which it may make a connection of its own, which is counted already
}

// dialError is why there is no connection. Nothing of the request has been sent.
func dialError(x *core.Exchange, err error) *core.Error {
	var handshake *handshakeError
	secured := errors.As(err, &handshake)
	switch {
	case errors.Is(err, loop.ErrTimeout):
		step := core.ErrConnectTimeout
		if secured {
			step = core.ErrTLSTimeout
		}
		if x != nil {
			step = x.Overdue(step)
		}
		if step == core.ErrPerTryTimeout {
			return errPerTryUnsent
		}
		return step
	case errors.Is(err, loop.ErrHangup):
		return core.ErrClientGone
	case errors.Is(err, loop.ErrStopped):
		return core.ErrStopping
	case secured:
		return core.ErrHandshakeFailed
	}
	return core.ErrConnectFailed
}

// errPerTryUnsent is that an attempt's time was over before there was a connection.
var errPerTryUnsent = &core.Error{Status: 504, Reason: "per_try_timeout", Detail: "connecting", Side: core.SideUpstream, Retry: core.RetryUnsent}
