package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/tls"
)

// pass sets the names of a route's matches down in the tables of the listeners whose connections meet them.
func (c *Compiled) pass(spec *config.Route, target *core.Route) error {
	for i := range spec.Matches {
		m := &spec.Matches[i]
		for j := range c.Config.Listeners {
			if !m.Passes(&c.Config.Listeners[j]) {
				continue
			}
			t := c.Listeners[j].TLS
			if t.Passed == nil {
				t.Passed = &tls.NameTable[*core.Route]{}
			}
			if err := t.Passed.Add(m.Host.String(), target); err != nil {
				return fmt.Errorf("%s: cannot compile route %q: %w", m.Pos, spec.Name, err)
			}
		}
	}
	return nil
}
