package probe

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// State is what is known of an endpoint.
type State struct {
	Healthy bool
	Settled bool      // it rests on results, rather than on what is assumed at the start
	Fresh   bool      // nothing is known, and it gets nothing until that
	Since   time.Time // of Healthy
	Asked   time.Time // when the last probe ended; zero: none has
	Reason  string    // why the last probe failed; "": it passed, or there was none
	Off     bool      // nobody asks
}

// State is what is known of the endpoint of that load; false: it is not checked.
func (c *Checker) State(load *lb.Load) (s State, checked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[load]
	if t == nil {
		return State{}, false
	}
	s = State{Healthy: t.check.Healthy(), Settled: t.check.Settled(), Fresh: t.fresh, Since: c.wall(t.check.Since()), Off: t.probe == nil}
	if t.asked != 0 {
		s.Asked = c.wall(t.asked)
	}
	if t.failure != nil {
		s.Reason = t.failure.Text
	}
	return s, true
}

// Unsettled is how many endpoints are asked whose state does not rest on results yet.
func (c *Checker) Unsettled() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		if t.probe != nil && !t.check.Settled() {
			n++
		}
	}
	return n
}

// Counts are those since the checker was made.
func (c *Checker) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Record is the state of an address, for another process.
type Record struct {
	Address string        `json:"address"`
	Healthy bool          `json:"healthy"`
	Settled bool          `json:"settled"`
	Age     time.Duration `json:"age"` // of the state, in nanoseconds
}

// Records are the states of all endpoints that anything is known of.
func (c *Checker) Records() (all []Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		if r := t.check.Record(c.now()); r.Settled || t.asked != 0 {
			all = append(all, Record{t.endpoint.Address, r.Healthy, r.Settled, r.Age})
		}
	}
	return all
}

// Inherit makes the first endpoints that are assigned begin with the states that another process recorded. It takes all or none.
func (c *Checker) Inherit(all []Record) error {
	states := make(map[string]health.CheckRecord, len(all))
	check, err := health.NewCheck(health.DefaultCheck(), 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		state := health.CheckRecord{Healthy: r.Healthy, Settled: r.Settled, Age: r.Age}
		if err := check.Restore(state, 0); err != nil {
			return fmt.Errorf("endpoint %q: %w", clip(r.Address), err)
		}
		states[r.Address] = state
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inherited = states
	return nil
}
