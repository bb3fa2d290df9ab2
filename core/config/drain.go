package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Drain bounds the end in good order of a process, from its beginning. The file says a duration, which is both, or a map.
type Drain struct {
	Time time.Duration // for what is under way, 0..24h; 30s
	// Tunnels, passages among them, have so long in a process that another has taken over from, Time..24h; Time. A process that stops
	// without a successor, or is told to stop while it has one, ends them with everything else.
	Tunnels time.Duration
}

const defaultDrain = 30 * time.Second

// drain reads a duration, or a map.
func (d *decoder) drain(key string, n ast.Node) {
	n = d.resolve(n)
	to := &d.cfg.Drain
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		d.duration(key, n, 0, &to.Time)
		to.Tunnels = to.Time
		return
	}
	tunnels, written, before := time.Duration(-1), n, d.errors
	d.mapping(key, n, "time tunnels", func(key string, _, v ast.Node) bool {
		switch key {
		case "time":
			d.duration(key, v, 0, &to.Time)
		case "tunnels":
			d.duration(key, v, 0, &tunnels)
			written = v
		default:
			return false
		}
		return true
	})
	to.Tunnels = max(tunnels, to.Time)
	if tunnels >= 0 && tunnels < to.Time && d.errors == before {
		d.problem(written, "", "%q is below %q: %s and %s", "tunnels", "time", formatDuration(tunnels), formatDuration(to.Time))
	}
}
