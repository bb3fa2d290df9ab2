package server

import (
	"encoding/json"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// addResilience tells of what keeps requests from an upstream and its endpoints.
func (s *Server) addResilience(one *admin.UpstreamStatus, u *upstream.Upstream, c *compile.Compiled) {
	one.Breaker = s.breakerStatus(c.UpstreamBreaker(u.Name))
	if l := c.Limit(u.Name); l != nil {
		one.Concurrency = &admin.ConcurrencyStatus{Limit: l.Limit(), InFlight: l.InFlight(), Least: l.Least().Seconds()}
	}
	one.Active = u.Active()
	_, ejected, _ := c.Outliers(u.Name)
	for i := range one.Endpoints {
		if e, ok := ejected[one.Endpoints[i].Address]; ok {
			one.Endpoints[i].Ejection = &admin.EjectionStatus{Cause: e.Cause, Since: e.Since.Seconds(), Left: e.Left.Seconds()}
		}
	}
}

func (s *Server) breakerStatus(b *upstream.Breaker) *admin.BreakerStatus {
	if b == nil {
		return nil
	}
	stats := b.Stats(s.now())
	return &admin.BreakerStatus{State: stats.State.String(), Left: stats.Left.Seconds(), Opened: sum(stats.Opened[:]), Refused: stats.Refused, Fallbacks: stats.Fallbacks}
}

// now is the clock of loads.
func (s *Server) now() int64 { return s.loops[0].Clock() }

func sum(list []uint64) (n uint64) {
	for _, v := range list {
		n += v
	}
	return n
}

// collectResilience tells of ejections, breakers and limits that are found.
func (s *Server) collectResilience(c *compile.Compiled, sink *observe.Sink) {
	for _, u := range c.Upstreams {
		stats, _, on := c.Outliers(u.Name)
		if on {
			for i := range stats.Detected {
				cause := health.Cause(i).String()
				sink.Counter("sluice_upstream_outliers_detected_total", "Endpoints found to fail more than they should, ejected or not.", float64(stats.Detected[i]), "upstream", u.Name, "cause", cause)
				sink.Counter("sluice_upstream_ejections_total", "Endpoints ejected.", float64(stats.Enforced[i]), "upstream", u.Name, "cause", cause)
			}
			sink.Counter("sluice_upstream_ejections_spared_total", "Endpoints not ejected because no more may be.", float64(stats.Spared), "upstream", u.Name)
			sink.Gauge("sluice_upstream_ejected", "Endpoints that are ejected.", float64(stats.Active), "upstream", u.Name)
		}
		s.collectBreaker(c.UpstreamBreaker(u.Name), sink, "upstream", u.Name)
		if l := c.Limit(u.Name); l != nil {
			sink.Gauge("sluice_upstream_concurrency_limit", "Requests that may be under way at once, as found by how long they take.", float64(l.Limit()), "upstream", u.Name)
			sink.Gauge("sluice_upstream_concurrency", "Requests under way, of those that the limit found bounds.", float64(l.InFlight()), "upstream", u.Name)
			sink.Gauge("sluice_upstream_least_latency_seconds", "Latency without load, as measured last; 0: not yet.", l.Least().Seconds(), "upstream", u.Name)
		}
	}
	for _, r := range c.Snapshot.Routes {
		s.collectBreaker(c.RouteBreaker(r.Name), sink, "route", r.Name)
	}
}

// collectBreaker tells of what stands before an upstream or a route.
func (s *Server) collectBreaker(b *upstream.Breaker, sink *observe.Sink, kind, name string) {
	if b == nil {
		return
	}
	stats, prefix := b.Stats(s.now()), "sluice_"+kind+"_breaker_"
	for _, state := range []health.BreakerState{health.Closed, health.Open, health.HalfOpen} {
		sink.Gauge(prefix+"state", "1 for the state that a breaker is in.", oneIf(stats.State == state), kind, name, "state", state.String())
	}
	for i, n := range stats.Opened {
		if cause := health.BreakerCause(i); cause != health.ByNothing {
			sink.Counter(prefix+"opened_total", "Times that a breaker has opened.", float64(n), kind, name, "cause", cause.String())
		}
	}
	sink.Counter(prefix+"half_opened_total", "Times that a breaker has let a few requests try.", float64(stats.HalfOpened), kind, name)
	sink.Counter(prefix+"closed_total", "Times that a breaker has closed again.", float64(stats.Closed), kind, name)
	sink.Counter(prefix+"refused_total", "Requests that a breaker has not let pass.", float64(stats.Refused), kind, name)
	sink.Counter(prefix+"fallbacks_total", "Of those, requests that its fallback answered.", float64(stats.Fallbacks), kind, name)
}

func (s *Server) exportEjections(c *compile.Compiled) (any, error) { return c.Ejections(), nil }

func (s *Server) restoreEjections(c *compile.Compiled, body []byte) error {
	var all compile.Ejections
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	return c.RestoreEjections(all)
}

func (s *Server) exportBreakers(c *compile.Compiled) (any, error) { return c.Breakers(s.now()), nil }

func (s *Server) restoreBreakers(c *compile.Compiled, body []byte) error {
	var all compile.Breakers
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	return c.RestoreBreakers(all, s.now())
}
