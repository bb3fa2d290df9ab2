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

// Proxy answers exchanges from upstreams: a route's `to:`.
type Proxy struct {
	targets []*Upstream
	pickers []lb.Picker   // over targets, by loop; nil: there is but one
	timeout time.Duration // whole exchange, instead of the upstream's; 0: the upstream's
	ownHost bool          // the endpoint's name goes into Host
	untried lb.Attempt    // never changed
}

// Target is one upstream of a Proxy. A weight of 0 gets nothing.
type Target struct {
	Upstream *Upstream
	Weight   int
}

// NewProxy gives an action that spreads exchanges over targets by weight. At least one weight must be above zero. With
// ownHost an endpoint gets its configured name as Host, instead of what the client asked for.
func NewProxy(targets []Target, timeout time.Duration, ownHost bool, loops int) *Proxy {
	p := &Proxy{timeout: timeout, ownHost: ownHost}
	var choices []*lb.Endpoint
	for _, t := range targets {
		if t.Weight > 0 {
			p.targets = append(p.targets, t.Upstream)
			choices = append(choices, &lb.Endpoint{Name: t.Upstream.Name, Weight: t.Weight, State: t.Upstream})
		}
	}
	for i := 0; i < loops && len(choices) > 1; i++ {
		p.pickers = append(p.pickers, lb.NewRoundRobin(choices, i))
	}
	return p
}

// Targets are the upstreams that get exchanges.
func (p *Proxy) Targets() []*Upstream { return p.targets }

func (p *Proxy) choose(index int) *Upstream {
	if p.pickers == nil {
		return p.targets[0]
	}
	return p.pickers[index].Pick(&p.untried).State.(*Upstream)
}

// Answer leaves an endpoint's answer in x, or fails x.
func (p *Proxy) Answer(x *core.Exchange) {
	l := x.Worker.Loop
	s := p.choose(l.Index()).shares[l.Index()]
	set := s.upstream.Settings()
	total := p.timeout
	if total == 0 {
		total = set.Total
	}
	if total > 0 {
		x.Deadline = x.Times.Start + int64(total)
	}
	x.ReplayLimit = set.ReplayBytes
	x.Sent.Pool = &s.upstream.Pool
	forward(x)
	l.Watch(x.Downstream.Conn())
	if err := s.try(x, set, p.ownHost); err != nil {
		l.Watch(nil)
		x.Fail(err)
		return
	}
	if x.Listener.Forward.Via != "" {
		addVia(&x.Response, x.Listener.Forward.Via)
	}
}

// try makes attempts until one is answered or none may follow.
func (s *share) try(x *core.Exchange, set *Settings, ownHost bool) *core.Error {
	fresh := false
	for n := 1; ; n++ {
		c, err := s.connect(x, set, fresh)
		if err == nil {
			x.Upstream = c
			if ownHost || !x.Request.Has(core.FieldHost) {
				x.Request.Set(core.FieldHost, c.endpoint.host)
			}
			if err = c.transport.Do(x, int64(set.Header), int64(set.Idle)); err == nil {
				return nil
			}
			c.abort(x)
		}
		if n == maxAttempts || !s.mayRepeat(x, err) {
			return err
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
		return x.Attempt.Count() < min(lb.MaxTried, s.size)
	case core.RetryIfReused:
		return x.Request.Method.Idempotent() && x.Request.Protocol == nil && x.Replay()
	}
	return false
}

// connect gives a connection to an endpoint that the exchange has not tried: a kept one unless fresh is wanted, else a new
// one. While every endpoint has all the connections it may have, the exchange waits in the queue.
func (s *share) connect(x *core.Exchange, set *Settings, fresh bool) (*conn, *core.Error) {
	c, e, failure := s.find(x, set, fresh)
	if failure == core.ErrQueueFull {
		c, e, failure = s.wait(x, set, fresh)
	}
	if failure != nil {
		return nil, failure
	}
	x.Sent.Endpoint = &e.Endpoint
	if c != nil {
		return c, nil
	}
	c, err := s.dial(x, e, set)
	if err != nil {
		x.Attempt.Tried(&e.Endpoint)
		return nil, dialError(err)
	}
	return c, nil
}

// find looks for a connection that was kept, and where there is none for a place at an endpoint to which one may be made.
// ErrQueueFull: there are endpoints, and all have the connections they may have.
func (s *share) find(x *core.Exchange, set *Settings, fresh bool) (*conn, *Endpoint, *core.Error) {
	full := false
	for range s.size {
		picked := s.picker.Pick(&x.Attempt)
		if picked == nil {
			break
		}
		e := picked.State.(*Endpoint)
		x.Sent.Endpoint = picked
		if !fresh {
			if c := s.reuse(e, x); c != nil {
				return c, e, nil
			}
		}
		if e.take(set) {
			return nil, e, nil
		}
		if (fresh || e.proxy != ProxyNone) && s.evict(e, set) {
			return nil, e, nil
		}
		full = true
	}
	if full {
		return nil, nil, core.ErrQueueFull
	}
	return nil, nil, core.ErrNoEndpoint
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
