package server

import (
	"encoding/json"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/probe"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// healthStatus is what a checker knows of an endpoint; nil: it is not checked.
func healthStatus(c *probe.Checker, e *upstream.Endpoint) *admin.HealthStatus {
	if c == nil {
		return nil
	}
	s, checked := c.State(e.Load)
	if !checked {
		return nil
	}
	return &admin.HealthStatus{State: healthWord(&s), Settled: s.Settled, Since: s.Since, Asked: s.Asked, Reason: s.Reason}
}

func healthWord(s *probe.State) string {
	switch {
	case s.Off:
		return "off"
	case s.Fresh:
		return "unchecked"
	case s.Healthy:
		return "healthy"
	}
	return "unhealthy"
}

// collectChecks tells of the checks of an upstream.
func collectChecks(u *upstream.Upstream, c *probe.Checker, sink *observe.Sink) {
	if c == nil {
		return
	}
	counts := c.Counts()
	used := false
	for _, e := range u.Endpoints() {
		if s, checked := c.State(e.Load); checked {
			used = true
			sink.Gauge("sluice_health_check_healthy", "1 while checks find an endpoint healthy, or nothing is known that says otherwise.",
				oneIf(s.Healthy), "upstream", u.Name, "endpoint", e.Address)
		}
	}
	if !used && counts == (probe.Counts{}) {
		return
	}
	for kind, n := range counts.Probes {
		sink.Counter("sluice_health_check_probes_total", "Probes of endpoints that have ended.", float64(n), "upstream", u.Name, "result", probe.Kind(kind).String())
	}
	const help = "Times checks have changed what an endpoint is taken for."
	sink.Counter("sluice_health_check_changes_total", help, float64(counts.Healthy), "upstream", u.Name, "to", "healthy")
	sink.Counter("sluice_health_check_changes_total", help, float64(counts.Unhealthy), "upstream", u.Name, "to", "unhealthy")
}

// exportChecks gives the states of endpoints by upstream.
func (s *Server) exportChecks(c *compile.Compiled) (any, error) { return c.CheckRecords(), nil }

func (s *Server) restoreChecks(c *compile.Compiled, body []byte) error {
	var all map[string][]probe.Record
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	return c.InheritChecks(all)
}
