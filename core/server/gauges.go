package server

import (
	"strconv"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/http2"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/observe"
)

// collect tells the observer of what is counted elsewhere: connections, exchanges under way, and the states of pools.
func (s *Server) collect() {
	s.observer.CollectOnLoops(func(i int, sink *observe.Sink) {
		sink.Gauge("sluice_exchanges", "Exchanges under way.", float64(s.workers[i].Active()), "loop", strconv.Itoa(i))
		collectHTTP2(s.http2[i].Counters(), sink)
		const polled = "Times that an event loop looked for events instead of parking at once, by what came of it."
		polls := s.loops[i].BusyPolling()
		sink.Counter("sluice_busy_polls_total", polled, float64(polls.Found), "result", "found")
		sink.Counter("sluice_busy_polls_total", polled, float64(polls.Missed), "result", "missed")
		now := s.state.Load()
		if now == nil {
			return
		}
		for _, l := range now.listeners {
			collectPort(l, i, sink)
		}
		collectLimits(now.compiled.Limiters, i, sink)
		collectMirrors(now.compiled, i, sink)
		collectFaults(now.compiled, i, sink)
		collectForwards(now.compiled.Forwards, i, sink)
		collectIntrospections(now.compiled.Introspections, i, sink)
		collectLogins(now.compiled.Logins, i, sink)
		collectIdentityTokens(now.compiled, i, sink)
		for _, u := range now.compiled.Upstreams {
			sink.Gauge("sluice_upstream_tunnels", "Open tunnels, and connections whose TLS is passed through.", float64(u.Tunnels(i)), "upstream", u.Name)
			collectRetries(u, i, sink)
			for _, e := range u.Endpoints() {
				sink.Gauge("sluice_upstream_idle_connections", "Connections to an endpoint that no exchange uses.",
					float64(e.Idle(i)), "upstream", u.Name, "endpoint", e.Address)
			}
		}
	})
	s.observer.Collect(func(sink *observe.Sink) {
		s.secrets.collect(sink)
		s.failures.collect(sink)
		now := s.state.Load()
		if now == nil {
			return
		}
		for _, u := range now.compiled.Upstreams {
			collectUpstream(u, sink)
			if all, failed, ok := now.compiled.TokenFetches(u.Name); ok {
				const fetches = "Tokens that were asked for to authorize requests to an upstream."
				sink.Counter("sluice_upstream_token_fetches_total", fetches, float64(all-min(failed, all)), "upstream", u.Name, "result", "ok")
				sink.Counter("sluice_upstream_token_fetches_total", fetches, float64(failed), "upstream", u.Name, "result", "failed")
			}
			collectChecks(u, now.compiled.Checker(u.Name), sink)
		}
		collectSources(now.compiled, sink)
		s.collectResilience(now.compiled, sink)
		s.collectCertificates(now.compiled, sink)
		collectTables(now.compiled.Limiters, sink)
		collectRedis(now.compiled.Redis(), sink)
		collectKeys(now.compiled, sink)
		collectFollowed(now.compiled, sink)
		collectSessions(now.compiled.Logins, sink)
		collectCanaries(now.compiled, sink)
		s.collectTuning(sink)
		sink.Counter("sluice_loop_stalls_total", "Times an event loop was held up for more than a second.", float64(s.watchdog.Stalls()))
	})
}

func collectForwards(all []compile.Forward, i int, sink *observe.Sink) {
	for _, f := range all {
		c := f.Policy.Counts(i)
		const judged = "Requests that a service was to judge, by what came of them."
		sink.Counter("sluice_forward_requests_total", judged, float64(c.Allowed), "policy", f.Name, "result", "allowed")
		sink.Counter("sluice_forward_requests_total", judged, float64(c.Denied), "policy", f.Name, "result", "denied")
		sink.Counter("sluice_forward_requests_total", judged, float64(c.Failed), "policy", f.Name, "result", "failed")
		sink.Counter("sluice_forward_requests_total", judged, float64(c.Busy), "policy", f.Name, "result", "busy")
		sink.Counter("sluice_forward_unjudged_total", "Requests that passed although no service has judged them.", float64(c.Passed), "policy", f.Name)
		sink.Counter("sluice_forward_calls_total", "Questions to a service.", float64(c.Asked), "policy", f.Name)
		sink.Counter("sluice_forward_cached_total", "Requests that were judged by an earlier answer.", float64(c.Cached), "policy", f.Name)
	}
}

func collectIntrospections(all []compile.Introspection, i int, sink *observe.Sink) {
	for _, p := range all {
		c := p.Policy.Counts(i)
		sink.Counter("sluice_introspection_calls_total", "Questions about tokens to their issuer.", float64(c.Asked), "policy", p.Name)
		sink.Counter("sluice_introspection_cached_total", "Requests whose token was judged by an earlier answer.", float64(c.Cached), "policy", p.Name)
		const unjudged = "Requests whose token could not be judged, by why."
		sink.Counter("sluice_introspection_unjudged_total", unjudged, float64(c.Failed), "policy", p.Name, "reason", "failed")
		sink.Counter("sluice_introspection_unjudged_total", unjudged, float64(c.Busy), "policy", p.Name, "reason", "busy")
		sink.Counter("sluice_introspection_passed_total", "Of these, the requests that passed as nobody's.", float64(c.Passed), "policy", p.Name)
	}
}

func collectPort(l *listener, i int, sink *observe.Sink) {
	c := l.ports[i].Counters()
	sink.Gauge("sluice_connections", "Open downstream connections.", float64(c.Open), "listener", l.name)
	sink.Counter("sluice_connections_accepted_total", "Connections accepted.", float64(c.Accepted), "listener", l.name)
	for _, r := range listen.Reasons() {
		sink.Counter("sluice_connections_rejected_total", "Connections refused before their first request.",
			float64(c.Refused[r]), "listener", l.name, "reason", r.String())
	}
	sink.Gauge("sluice_tls_handshaking", "Connections in their TLS handshake.", float64(c.Handshaking), "listener", l.name)
	sink.Counter("sluice_tls_handshakes_total", "TLS handshakes that succeeded.", float64(c.Handshakes-c.Resumed), "listener", l.name, "resumed", "no")
	sink.Counter("sluice_tls_handshakes_total", "TLS handshakes that succeeded.", float64(c.Resumed), "listener", l.name, "resumed", "yes")
	sink.Counter("sluice_tls_passed_total", "Connections whose TLS was passed through.", float64(c.Passed), "listener", l.name)
	sink.Counter("sluice_accept_failures_total", "Accepts that failed for want of descriptors or memory.", float64(c.Failures), "listener", l.name)
}

func collectHTTP2(c http2.Counters, sink *observe.Sink) {
	sink.Gauge("sluice_http2_connections", "Open HTTP/2 connections of clients.", float64(c.Connections))
	sink.Gauge("sluice_http2_streams", "HTTP/2 streams whose exchange is under way.", float64(c.Streams))
	sink.Counter("sluice_http2_resets_total", "HTTP/2 streams that clients reset.", float64(c.Resets))
	for i, reason := range http2.CalmReasons() {
		sink.Counter("sluice_http2_abuse_total", "HTTP/2 connections ended for abuse.", float64(c.Calm[i]), "reason", reason)
	}
}
