package health

import (
	"fmt"
)

type checkPlayer struct{ check *Check }

func newCheckPlayer(s *settings) player {
	spec := DefaultCheck()
	s.duration("interval", &spec.Interval)
	s.duration("unhealthy_interval", &spec.UnhealthyInterval)
	s.duration("start_interval", &spec.StartInterval)
	s.integer("healthy", &spec.Healthy)
	s.integer("unhealthy", &spec.Unhealthy)
	initial := "healthy"
	s.text("initial", &initial)
	spec.InitiallyHealthy = initial == "healthy"
	c, err := NewCheck(spec, 0)
	s.must(err)
	return &checkPlayer{c}
}

func (p *checkPlayer) play(event []string, now int64) string {
	change := ""
	if event[0] != "state" && p.check.Result(event[0] == "pass", now) {
		change = "becomes "
	}
	state := "unhealthy"
	if p.check.Healthy() {
		state = "healthy"
	}
	return fmt.Sprintf("%s%s, next in %s", change, state, p.check.Interval())
}
