package server

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
)

// oneRoute tells of a route.
func (s *Server) oneRoute(c *compile.Compiled, r *config.Route) admin.RouteStatus {
	weights, changed := c.RouteWeights(r.Name)
	if len(weights) != len(r.To) { // one upstream, or a reload is just putting another split in force
		weights, changed = nil, false
	}
	one := admin.RouteStatus{Name: r.Name, Action: actionText(r, weights), Breaker: s.breakerStatus(c.RouteBreaker(r.Name))}
	for j := range r.Matches {
		one.Matches = append(one.Matches, r.Matches[j].Text)
	}
	for i, w := range weights {
		one.Targets = append(one.Targets, admin.TargetStatus{Upstream: r.To[i].Name(), Weight: w, Configured: r.To[i].Weight})
	}
	if changed {
		one.Overrides = []string{"weight"}
	}
	if m := c.Mirrors[r.Name]; m != nil {
		one.Mirror = s.mirrorStatus(m)
	}
	return one
}

// actionText is a route's action as a configuration says it, with the weights in force.
func actionText(r *config.Route, weights []int) string {
	switch {
	case r.Respond != nil && r.Respond.Keys:
		return "respond jwks"
	case r.Respond != nil:
		return "respond " + strconv.Itoa(r.Respond.Status)
	case r.Redirect != nil:
		return "redirect " + r.Redirect.To
	}
	var names []string
	for i := range r.To {
		name := r.To[i].Name()
		if i < len(weights) {
			name += ": " + strconv.Itoa(weights[i])
		}
		names = append(names, name)
	}
	text := "to " + strings.Join(names, ", ")
	if r.Passthrough {
		text = "passthrough " + strings.Join(names, ", ")
	}
	if r.Canary != nil {
		text += "; canary " + r.Canary.To.Name()
	}
	if r.Mirror != nil {
		text += "; mirror " + r.Mirror.To
	}
	return text
}

// mirrorStatus adds up what the loops have counted. A loop that does not answer in time is left out.
func (s *Server) mirrorStatus(m *upstream.Mirror) *admin.MirrorStatus {
	out := &admin.MirrorStatus{Upstream: m.To().Name, UnderWay: m.Flying()}
	took := int64(0)
	for i, l := range s.loops {
		answer := make(chan upstream.MirrorCounts, 1)
		if l.Do(time.Second, func() { answer <- m.Counts(i) }) != nil {
			continue
		}
		c := <-answer
		out.Sent += c.Sent
		out.Answered += c.Answered
		out.Failed += c.Failed
		out.Dropped += c.Dropped
		out.TooLong += c.TooLong
		took += c.Took
	}
	if out.Answered > 0 {
		out.Seconds = float64(took) / 1e9 / float64(out.Answered)
	}
	return out
}

// setWeights changes weights of a route's upstreams at run time.
func (s *Server) setWeights(set admin.SetWeights) error {
	if s.state.Load() == nil {
		return errStarting
	}
	return s.registry.SetRouteWeights(set.Route, set.Weights)
}

func (s *Server) changeCanary(change admin.ChangeCanary) error {
	now := s.state.Load()
	if now == nil {
		return errStarting
	}
	return now.compiled.ChangeCanary(change.Route, change.Change)
}

func (s *Server) canaryStatus() (out []admin.CanaryStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for _, k := range now.compiled.Canaries() {
		out = append(out, admin.CanaryStatus{
			Route: k.Route, Canary: k.To, Stable: k.Others, State: k.State.String(), Percent: k.Percent, Step: k.Step + 1, Steps: k.Steps,
			Since: time.Now().Add(-k.For), Why: k.Why, Changes: k.Changes,
			Sides: map[string]admin.SideStatus{"canary": sideStatus(&k.Canary), "stable": sideStatus(&k.Stable)},
		})
	}
	return out
}

func sideStatus(s *health.SideStatus) admin.SideStatus {
	return admin.SideStatus{Requests: s.Requests, Failures: s.Failures, P50: s.P50.Seconds(), P99: s.P99.Seconds()}
}

// collectCanaries tells of the canaries of all routes.
func collectCanaries(c *compile.Compiled, sink *observe.Sink) {
	for _, k := range c.Canaries() {
		labels := []string{"route", k.Route, "upstream", k.To}
		sink.Gauge("sluice_canary_percent", "Part of a route's requests that its canary gets.", float64(k.Percent), labels...)
		for _, state := range []health.CanaryState{health.Progressing, health.Paused, health.Promoted, health.Aborted} {
			sink.Gauge("sluice_canary_state", "1 for the state that a canary is in.", oneIf(k.State == state), append(labels, "state", state.String())...)
		}
		for what, n := range k.Changes {
			sink.Counter("sluice_canary_changes_total", "Changes of a canary: begun, forward, paused, resumed, promoted, aborted.", float64(n),
				append(labels, "change", what)...)
		}
	}
}

// collectMirrors tells what loop i has counted.
func collectMirrors(c *compile.Compiled, i int, sink *observe.Sink) {
	for route, m := range c.Mirrors {
		labels := []string{"route", route, "upstream", m.To().Name}
		n := m.Counts(i)
		for _, r := range []struct {
			result string
			n      uint64
		}{{"answered", n.Answered}, {"failed", n.Failed}, {"dropped", n.Dropped}, {"too_long", n.TooLong}} {
			sink.Counter("sluice_mirror_requests_total", "Copies of requests: answered, failed, dropped since too many were under way, or not made since the body was too long.",
				float64(r.n), append(labels, "result", r.result)...)
		}
		sink.Counter("sluice_mirror_sent_total", "Copies of requests that were sent, or tried to be.", float64(n.Sent), labels...)
		sink.Counter("sluice_mirror_seconds_total", "Time up to the ends of the answers of those that were answered.", float64(n.Took)/1e9, labels...)
	}
}

// collectFaults tells what loop i has counted.
func collectFaults(c *compile.Compiled, i int, sink *observe.Sink) {
	for policy, f := range c.Faults {
		n := f.Counts(i)
		for _, r := range []struct {
			kind string
			n    uint64
		}{{"delay", n.Delayed}, {"abort", n.Aborted}, {"spared", n.Spared}} {
			sink.Counter("sluice_faults_total", "Requests that a policy has delayed, aborted, or not delayed since too many were.", float64(r.n),
				"policy", policy, "kind", r.kind)
		}
	}
}

func (s *Server) exportCanaries(c *compile.Compiled) (any, error) {
	return c.ExportCanaries(), nil
}

func (s *Server) restoreCanaries(c *compile.Compiled, body []byte) error {
	var states map[string]compile.ExportedCanary
	if err := json.Unmarshal(body, &states); err != nil {
		return err
	}
	return c.RestoreCanaries(states)
}

func (s *Server) exportSplits(c *compile.Compiled) (any, error) {
	return c.ExportSplits(), nil
}

func (s *Server) restoreSplits(c *compile.Compiled, body []byte) error {
	var splits map[string]compile.ExportedSplit
	if err := json.Unmarshal(body, &splits); err != nil {
		return err
	}
	return c.RestoreSplits(splits)
}
