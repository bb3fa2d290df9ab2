package server

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/lb"
)

func (s *Server) upstreamStatus() (out []admin.UpstreamStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for i, u := range now.compiled.Upstreams {
		one := admin.UpstreamStatus{Name: u.Name, Balance: now.compiled.Config.Upstreams[i].Balance.Algorithm, Pending: u.Pending(), Panic: u.Panic()}
		shares := u.Shares()
		added, removed := now.compiled.Roster(u.Name)
		one.Removed = removed
		checker := now.compiled.Checker(u.Name)
		for _, s := range now.compiled.Sources(u.Name) {
			one.Sources = append(one.Sources, admin.SourceStatus{Name: s.Name, Kind: kindOf(s), Endpoints: s.Endpoints, Found: s.Found, Next: s.Next,
				Failures: s.Failures, Problem: s.Problem})
		}
		for _, e := range u.Endpoints() {
			status := s.endpointStatus(u, e, shares[e])
			status.Health = healthStatus(checker, e)
			if slices.Contains(added, e.Name) {
				status.Overrides = append(status.Overrides, "added")
			}
			one.Endpoints = append(one.Endpoints, status)
		}
		s.addResilience(&one, u, now.compiled)
		out = append(out, one)
	}
	return out
}

func (s *Server) endpointStatus(u *upstream.Upstream, e *upstream.Endpoint, share float64) admin.EndpointStatus {
	d := e.Described()
	one := admin.EndpointStatus{
		Address: e.Address, Name: e.Name, Weight: d.Weight, Configured: d.Weight, Priority: d.Priority, Zone: d.Zone, Labels: d.Labels, Share: share,
		InFlight: e.Load.InFlight(), Latency: u.Latency(e).Seconds(), Open: e.Open(),
	}
	flags := e.Load.Flags()
	for _, f := range flagNames() {
		if flags&f.flag != 0 {
			one.Flags = append(one.Flags, f.name)
		}
	}
	if w := e.Load.Weight(); w >= 0 {
		one.Weight = w
		one.Overrides = append(one.Overrides, "weight")
	}
	for _, f := range flagNames() {
		if flags&f.flag&(lb.Draining|lb.Disabled) != 0 {
			one.Overrides = append(one.Overrides, f.name)
		}
	}
	for index, l := range s.loops {
		count := make(chan int, 1)
		if l.Do(time.Second, func() { count <- e.Idle(index) }) == nil {
			one.Idle += <-count
		}
	}
	return one
}

type flagName struct {
	flag lb.Flag
	name string
}

// flagNames are the flags of endpoints as the admin API and the metrics call them.
func flagNames() [5]flagName {
	return [...]flagName{{lb.FailedCheck, "check"}, {lb.Ejected, "ejected"}, {lb.Draining, "draining"}, {lb.Disabled, "disabled"}, {lb.Unchecked, "unchecked"}}
}

// setEndpoints changes endpoints at run time, and returns when every loop knows.
func (s *Server) setEndpoints(set admin.SetEndpoints) error {
	now := s.state.Load()
	if now == nil {
		return errStarting
	}
	if err := now.compiled.Override(set.Upstream, set.Endpoints, set.Change, set.Weight); err != nil {
		return err
	}
	for _, l := range s.loops {
		_ = l.Do(time.Second, func() {}) // one that is held up will know when it goes on
	}
	return nil
}

// exportOverrides gives what was changed of endpoints at run time, by upstream.
func (s *Server) exportOverrides(c *compile.Compiled) (any, error) { return c.Overrides(), nil }

func (s *Server) restoreOverrides(c *compile.Compiled, body []byte) error {
	var all map[string]compile.ExportedOverrides
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	return c.RestoreOverrides(all)
}

// collectUpstream tells of an upstream and its endpoints what is not each loop's own.
func collectUpstream(u *upstream.Upstream, sink *observe.Sink) {
	sink.Gauge("sluice_upstream_pending", "Requests that wait for a connection.", float64(u.Pending()), "upstream", u.Name)
	sink.Gauge("sluice_upstream_retrying", "Attempts under way that follow on others.", float64(u.Retrying()), "upstream", u.Name)
	sink.Gauge("sluice_upstream_panic", "1 while health is disregarded because too few endpoints are healthy.", oneIf(u.Panic()), "upstream", u.Name)
	shares := u.Shares()
	for _, e := range u.Endpoints() {
		labels := []string{"upstream", u.Name, "endpoint", e.Address}
		sink.Gauge("sluice_upstream_connections", "Open connections to an endpoint.", float64(e.Open()), labels...)
		sink.Gauge("sluice_upstream_in_flight", "Requests at an endpoint whose answer has not ended.", float64(e.Load.InFlight()), labels...)
		sink.Gauge("sluice_upstream_share", "Part of the requests that an endpoint is meant to get.", shares[e], labels...)
		if t := u.Latency(e); t > 0 {
			sink.Gauge("sluice_upstream_latency_seconds", "Peak-sensitive average of an endpoint's latency, where the balance goes by it.", t.Seconds(), labels...)
		}
		flags := e.Load.Flags()
		for _, f := range flagNames() {
			sink.Gauge("sluice_upstream_flag", "1 while there is this reason not to use an endpoint.", oneIf(flags&f.flag != 0), append(labels, "flag", f.name)...)
		}
	}
}

func kindOf(s compile.Source) string {
	if s.File {
		return "file"
	}
	return "dns"
}

// collectSources tells of names and files that endpoints come from.
func collectSources(c *compile.Compiled, sink *observe.Sink) {
	for _, u := range c.Upstreams {
		for _, s := range c.Sources(u.Name) {
			labels := []string{"upstream", u.Name, "source", s.Name, "kind", kindOf(s)}
			sink.Gauge("sluice_discovery_endpoints", "Endpoints that a name or a file stands for, as last known.", float64(s.Endpoints), labels...)
			sink.Gauge("sluice_discovery_failing", "1 while a name does not resolve, or a file is wrong or missing: what was known last stays.", oneIf(s.Problem != ""), labels...)
			sink.Counter("sluice_discovery_failures_total", "Times that a name did not resolve, or a file was found wrong or missing.", float64(s.Failures), labels...)
			if !s.Found.IsZero() {
				sink.Gauge("sluice_discovery_found_seconds", "When endpoints were last known anew, as a Unix time.", float64(s.Found.UnixMilli())/1000, labels...)
			}
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
