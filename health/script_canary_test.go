package health

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

type canaryPlayer struct {
	t      *testing.T
	spec   CanarySpec
	canary *Canary
}

func newCanaryPlayer(s *settings) player {
	spec := DefaultCanary()
	steps := ""
	s.text("steps", &steps)
	for _, step := range strings.Split(steps, ",") {
		n, err := strconv.Atoi(step)
		s.must(err)
		spec.Steps = append(spec.Steps, n)
	}
	s.duration("hold", &spec.Hold)
	s.duration("window", &spec.Window)
	s.integer("min_requests", &spec.MinRequests)
	s.text("abort", &spec.Abort)
	spec.Abort = strings.ReplaceAll(spec.Abort, "_", " ")
	c, err := NewCanary(spec, 0)
	s.must(err)
	return &canaryPlayer{s.t, spec, c}
}

func (p *canaryPlayer) play(event []string, now int64) string {
	c := p.canary
	changed := false
	switch event[0] {
	case "canary", "stable": // canary|stable N ok|failed TIME
		n, _ := strconv.Atoi(event[1])
		took, err := time.ParseDuration(event[3])
		if err != nil {
			p.t.Fatal(err)
		}
		for range n {
			c.Report(event[0] == "canary", event[2] == "failed", took)
		}
		return ""
	case "state":
		changed = true
	case "tick":
		changed = c.Tick(now)
	case "pause":
		changed = c.Pause("by hand", now)
	case "resume":
		changed = c.Resume("by hand", now)
	case "forward":
		changed = c.Forward("by hand", now)
	case "abort":
		changed = c.Abort("by hand", now)
	case "promote":
		changed = c.Promote("by hand", now)
	case "restart": // in another process, whose clock is another
		next, err := ImportCanary(p.spec, c.Export(now), now)
		if err != nil {
			p.t.Fatal(err)
		}
		p.canary = next
		return ""
	default:
		p.t.Fatalf("unknown event %q", event[0])
	}
	if !changed && event[0] != "tick" {
		return "refused"
	}
	s := c.Status()
	return fmt.Sprintf("%s at %d%%: %s", s.State, s.Percent, s.Why)
}
