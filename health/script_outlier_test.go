package health

import (
	"fmt"
	"strconv"
	"strings"
)

type outlierPlayer struct {
	detector *Detector
	tallies  map[string]*Tally
}

func newOutlierPlayer(s *settings) player {
	spec := DefaultOutlier()
	s.integer("consecutive_5xx", &spec.Consecutive5xx)
	s.integer("consecutive_gateway_failure", &spec.ConsecutiveGatewayFailure)
	s.integer("consecutive_local_origin_failure", &spec.ConsecutiveLocalOrigin)
	s.flag("split_external_local_origin_errors", &spec.SplitLocalOrigin)
	s.duration("interval", &spec.Interval)
	s.duration("base_ejection_time", &spec.BaseEjectionTime)
	s.duration("max_ejection_time", &spec.MaxEjectionTime)
	s.duration("max_ejection_time_jitter", &spec.MaxEjectionTimeJitter)
	s.integer("max_ejection_percent", &spec.MaxEjectionPercent)
	s.flag("always_eject_one", &spec.AlwaysEjectOne)
	s.flag("keep_last", &spec.KeepLast)
	s.flag("successful_active_health_check_uneject_host", &spec.CheckUnejects)
	s.integer("success_rate_minimum_hosts", &spec.SuccessRateMinHosts)
	s.integer("success_rate_request_volume", &spec.SuccessRateVolume)
	s.integer("success_rate_stdev_factor", &spec.SuccessRateStdev)
	s.integer("failure_percentage_threshold", &spec.FailurePercentThreshold)
	s.integer("failure_percentage_minimum_hosts", &spec.FailurePercentMinHosts)
	s.integer("failure_percentage_request_volume", &spec.FailurePercentVolume)
	for c := range spec.Enforcing {
		s.integer("enforcing_"+Cause(c).String(), &spec.Enforcing[c])
	}
	shows := 0
	s.integer("dice", &shows)
	d, err := NewDetector(spec, dice(shows))
	s.must(err)
	p := &outlierPlayer{d, map[string]*Tally{}}
	names := ""
	s.text("endpoints", &names)
	for _, name := range strings.Split(names, ",") {
		p.tallies[name] = d.Add(name, 2)
	}
	return p
}

func (p *outlierPlayer) play(event []string, now int64) string {
	switch event[0] {
	case "interval":
		return events(p.detector.Interval(now)...)
	case "remove":
		p.detector.Remove(p.tallies[event[1]])
		return ""
	case "check": // check NAME pass|fail healthy|unhealthy
		if e, ok := p.detector.Checked(p.tallies[event[1]], event[2] == "pass", event[3] == "healthy", now); ok {
			return events(e)
		}
		return ""
	}
	t := p.tallies[event[0]]
	o := map[string]Outcome{"refused": ConnectFailed, "reset": Reset, "timeout": Timeout}[event[1]]
	if status, err := strconv.Atoi(event[1]); err == nil {
		o = StatusOutcome(status)
	}
	loop := 0
	if len(event) > 2 && event[2] == "loop2" {
		loop = 1
	}
	return events(p.detector.Triggered(t, t.Report(loop, o), now)...)
}

func events(all ...Event) string {
	var texts []string
	for _, e := range all {
		s := e.Tally.Name + " " + e.Action.String()
		if e.For != 0 {
			s += " for " + e.For.String()
		}
		if e.Action != Returned {
			s += ": " + e.Cause.String()
			if e.Threshold != 0 {
				s += fmt.Sprintf(" %.4g of %.4g", e.Rate, e.Threshold)
			}
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, ", ")
}
