package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/loop"
)

// selfCheck finds out whether the gateway serves: every loop answers, and every listener accepts on it what the kernel has
// accepted for it. It makes no connection of its own, which would take its turn in a flood, count against limits and stand in
// the log: the kernel tells how many wait.
type selfCheck struct {
	loops []*loop.Loop
	last  []map[*listen.Port]listen.Progress // by loop
}

// run checks all loops at once, each of which must answer within the patience. The error names what does not work.
func (c *selfCheck) run(listeners []*listener, patience time.Duration) error {
	if c.last == nil {
		c.last = make([]map[*listen.Port]listen.Progress, len(c.loops))
	}
	failures := make(chan error, len(c.loops))
	for i := range c.loops {
		go func() { failures <- c.checkLoop(i, listeners, patience) }()
	}
	var err error
	for range c.loops {
		err = errors.Join(err, <-failures)
	}
	return err
}

func (c *selfCheck) checkLoop(i int, listeners []*listener, patience time.Duration) error {
	now := map[*listen.Port]listen.Progress{} // made anew each time: a late loop writes after Do has given up
	if err := c.loops[i].Do(patience, func() {
		for _, l := range listeners {
			if p := l.ports[i]; !p.Draining() {
				now[p] = p.Progress()
			}
		}
	}); err != nil {
		return fmt.Errorf("loop %d: %w", i, err)
	}
	before := c.last[i]
	c.last[i] = now
	for _, l := range listeners {
		p, ok := now[l.ports[i]]
		if !ok {
			continue
		}
		last := before[l.ports[i]]
		switch {
		case p.Sockets == 0:
			return fmt.Errorf("loop %d: listener %q has no socket", i, l.name)
		case p.Queued > 0 && last.Queued > 0 && p.Handled == last.Handled:
			// The loop has turned since, or it had not answered: what waited then has not been seen.
			return fmt.Errorf("loop %d: listener %q does not accept: %d connections wait", i, l.name, p.Queued)
		}
	}
	return nil
}
