package compile

import (
	"context"
	"log/slog"
	"sync"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// breakerKey is what a breaker stands before: an upstream, or a route.
type breakerKey struct {
	route bool
	name  string
}

func (k breakerKey) kind() string {
	if k.route {
		return "route"
	}
	return "upstream"
}

// breaking is a breaker in force, or one that will be.
type breaking struct {
	*upstream.Breaker
	spec health.BreakerSpec
}

// breakerSpec is what health wants of b.
func breakerSpec(b *config.Breaker) health.BreakerSpec {
	return health.BreakerSpec{ErrorPercent: b.Errors, SlowPercentile: b.SlowPercentile, SlowOver: b.SlowOver, Consecutive: b.Consecutive,
		Window: b.Window, MinRequests: b.MinRequests, Cooldown: b.Cooldown, Growth: b.Growth, MaxCooldown: b.MaxCooldown, Probes: b.Probes}
}

// gate makes what stands before an upstream or a route; nil: nothing. The breaker is that of the configuration in force if nothing of it has
// changed but the fallback.
func (r *Registry) gate(c *Compiled, key breakerKey, b *config.Breaker) (*upstream.Gate, error) {
	if b == nil {
		return nil, nil
	}
	one := r.breakers[key]
	if spec := breakerSpec(b); one == nil || one.spec != spec {
		state, err := upstream.NewBreaker(spec, func(change upstream.BreakerChange) { r.changes.put(key, change) })
		if err != nil {
			return nil, err
		}
		one = &breaking{state, spec}
	}
	c.breakers[key] = one
	g := &upstream.Gate{Breaker: one.Breaker}
	switch f := &b.Fallback; {
	case f.Respond != nil:
		action, err := respond(f.Respond)
		if err != nil {
			return nil, err
		}
		g.Fallback.Respond = action
	case f.To != nil:
		g.Fallback.To = c.found[f.To.Upstream].upstream // the grammar knows that there is one
	}
	return g, nil
}

// maxChanges bounds the changes of breakers that wait to be logged.
const maxChanges = 256

// breakerChanges logs what breakers tell of on loops, which must not wait for a log.
type breakerChanges struct {
	queue chan breakerChange
	log   *slog.Logger
	quit  context.CancelFunc // nil: it does not run
	done  sync.WaitGroup
}

type breakerChange struct {
	key breakerKey
	upstream.BreakerChange
}

func newBreakerChanges(log *slog.Logger) *breakerChanges {
	return &breakerChanges{queue: make(chan breakerChange, maxChanges), log: log}
}

// put is called on loops. Where more changes come than can be logged the rest is counted by the breakers alone.
func (c *breakerChanges) put(key breakerKey, change upstream.BreakerChange) {
	select {
	case c.queue <- breakerChange{key, change}:
	default:
	}
}

// start is called again for each configuration that has a breaker.
func (c *breakerChanges) start() {
	if c.quit != nil {
		return
	}
	ctx, quit := context.WithCancel(context.Background())
	c.quit = quit
	c.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case change := <-c.queue:
				c.write(&change)
			}
		}
	})
}

func (c *breakerChanges) stop() {
	if c.quit != nil {
		c.quit()
		c.done.Wait()
	}
}

func (c *breakerChanges) write(b *breakerChange) {
	log := c.log.With(b.key.kind(), b.key.name)
	switch b.To {
	case health.Open:
		log.Warn("breaker opened", "cause", b.Cause.String(), "requests", b.Requests, "failures", b.Failures, "slow", b.Slow, "cooldown", b.Cooldown.String())
	case health.HalfOpen:
		log.Info("breaker half-open: a few requests try")
	default:
		log.Info("breaker closed")
	}
}

// UpstreamBreaker is the breaker of an upstream; nil: there is none.
func (c *Compiled) UpstreamBreaker(name string) *upstream.Breaker {
	return c.breaker(breakerKey{false, name})
}

// RouteBreaker is the breaker of a route; nil: there is none.
func (c *Compiled) RouteBreaker(name string) *upstream.Breaker {
	return c.breaker(breakerKey{true, name})
}

func (c *Compiled) breaker(key breakerKey) *upstream.Breaker {
	if b := c.breakers[key]; b != nil {
		return b.Breaker
	}
	return nil
}
