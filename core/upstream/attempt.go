package upstream

import (
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/lb"
)

// maxAttempts bounds the attempts of one exchange.
const maxAttempts = 3

// maxTurned bounds how often an exchange is turned away besides: by a connection on which it had a place, or by an endpoint that has not
// looked at it.
const maxTurned = 5

// Proxy answers exchanges from upstreams: a route's `to:`.
type Proxy struct {
	split   *Split
	canary  *Canary       // nil: there is none
	mirror  *Mirror       // nil: there is none
	timeout time.Duration // whole exchange, instead of the upstream's; 0: the upstream's
	ownHost bool          // the endpoint's name goes into Host
	gate    *Gate         // of the route; nil: exchanges pass
}

// NewProxy gives an action that spreads exchanges over targets by weight. At least one weight must be above zero. With
// ownHost an endpoint gets its configured name as Host, instead of what the client asked for.
func NewProxy(targets []Target, timeout time.Duration, ownHost bool, loops int) *Proxy {
	return &Proxy{split: NewSplit(targets, nil, loops), timeout: timeout, ownHost: ownHost}
}

// Shape gives p, before it is used, a split in the place of its own, a canary and a mirror. Each may be nil.
func (p *Proxy) Shape(s *Split, c *Canary, m *Mirror) *Proxy {
	if s != nil {
		p.split = s
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
		return p.canary.to.whole
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
	total := p.timeout
	if total == 0 {
		total = set.Total
	}
	if total > 0 {
		x.Deadline = x.Times.Start + int64(total)
	}
	if x.Request.GRPC && !boundCall(x) {
		x.Fail(errGRPCTimeout)
		return
	}
	x.ReplayLimit = set.ReplayBytes
	if b := set.Balancing; b != nil {
		b.affinity(x, given)
	}
	forward(x)
	if p.mirror != nil {
		p.mirror.see(x)
	}
	l.Watch(x.Downstream.Conn())
	if err := s.try(x, set, p.ownHost); err != nil {
		l.Watch(nil)
		x.Fail(err)
		return
	}
	if x.Listener.Forward.Via != "" {
		addVia(&x.Response, x.Listener.Forward.Via)
	}
	given.give(&x.Response)
}

// boundCall lets the client's own deadline end a gRPC call; false: what it says is malformed.
func boundCall(x *core.Exchange) bool {
	d, ok := x.Request.GRPCTimeout()
	if own := x.Times.Start + int64(d); d > 0 && (x.Deadline == 0 || own < x.Deadline) {
		x.Deadline, x.Hasty = own, true
	}
	return ok
}

var errGRPCTimeout = &core.Error{Status: 400, Reason: "bad_request", Detail: "malformed grpc-timeout"}

// try makes attempts until one is answered or none may follow.
func (s *share) try(x *core.Exchange, set *Settings, ownHost bool) *core.Error {
	fresh, turned := false, 0
	for n := 1; ; n++ {
		way, err := s.connect(x, set, fresh)
		if err == core.ErrRefused && turned < maxTurned { // nothing was sent: that was no attempt
			turned++
			n--
			continue
		}
		var tried *Endpoint
		if err == nil {
			x.Upstream, tried = way, way.target()
			if ownHost || !x.Request.Has(core.FieldHost) {
				x.Request.Set(core.FieldHost, tried.host)
			}
			if err = way.do(x, set); err == nil {
				return nil
			}
			way.counted().land(x, err)
			way.abort(x)
			if err.Retry == core.RetryRefused && turned < maxTurned {
				turned++
				n--
			}
		}
		if n == maxAttempts || !s.mayRepeat(x, err) {
			return err
		}
		if tried != nil {
			s.shun(x, tried, err)
		}
		fresh = err.Retry == core.RetryIfReused
		x.Worker.Failed(x, err)
		x.Sent.Retries++
	}
}

// mayRepeat says whether the request may be sent once more after err, and makes it ready for that.
func (s *share) mayRepeat(x *core.Exchange, err *core.Error) bool {
	switch err.Retry {
	case core.RetryUnsent:
		return x.Attempt.Count() < min(lb.MaxTried, len(s.usable))
	case core.RetryRefused:
		return x.Replay()
	case core.RetryIfReused:
		return x.Request.Method.Idempotent() && x.Request.Protocol == nil && x.Replay()
	}
	return false
}

// shun keeps the next attempt from an endpoint that did not answer, as long as another may. Where a kept connection has ended an
// affinity key goes before that: an endpoint may close what is idle.
func (s *share) shun(x *core.Exchange, e *Endpoint, err *core.Error) {
	if err.Retry == core.RetryIfReused && x.Attempt.Keyed {
		return
	}
	if x.Attempt.Count()+1 < len(s.usable) && !x.Attempt.Has(&e.Endpoint) {
		x.Attempt.Tried(&e.Endpoint)
	}
}

// way is an exchange's way to an endpoint and back: a connection of its own, or a place in one that it shares.
type way interface {
	core.Upstream
	// target is where it leads.
	target() *Endpoint
	// counted is the attempt as the endpoint's load counts it.
	counted() *flight
	// do sends the request and waits for the head of the answer.
	do(x *core.Exchange, set *Settings) *core.Error
	// abort ends it after a failure.
	abort(x *core.Exchange)
}

// connect gives a way to an endpoint that the exchange has not tried: over a kept connection unless fresh is wanted, else over a
// new one. While every endpoint has all the connections it may have, the exchange waits in the queue.
func (s *share) connect(x *core.Exchange, set *Settings, fresh bool) (way, *core.Error) {
	found, failure := s.find(x, set, fresh)
	if failure == core.ErrQueueFull {
		found, failure = s.wait(x, set, fresh)
	}
	if failure != nil {
		return nil, failure
	}
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
		failure = dialError(err)
		f.land(x, failure)
		return nil, failure
	}
	c.flight = f
	return c, nil
}

// ride gives the exchange its place in a connection that it shares with others.
func (s *share) ride(x *core.Exchange, set *Settings, found seat) (*ride, *core.Error) {
	m := found.mux
	if m == nil {
		m = s.newMux(found.place)
	}
	r, err := m.board(x, set)
	switch {
	case err == nil:
		return r, nil
	case err.Retry == core.RetryUnsent:
		x.Attempt.Tried(&m.endpoint.Endpoint)
	}
	return nil, err
}

// seat is what an exchange was given to reach an endpoint with; one of the three.
type seat struct {
	conn  *conn     // that was kept, for it alone
	mux   *Mux      // in which a place is promised to it
	place *Endpoint // to which it may make a connection, which is counted already
}

func dialError(err error) *core.Error {
	switch {
	case errors.Is(err, loop.ErrTimeout):
		return core.ErrConnectTimeout
	case errors.Is(err, loop.ErrHangup):
		return core.ErrClientGone
	case errors.Is(err, loop.ErrStopped):
		return core.ErrStopping
	}
	var handshake *handshakeError
	if errors.As(err, &handshake) {
		return core.ErrHandshakeFailed
	}
	return core.ErrConnectFailed
}
