package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
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

// served says for which hosts a listener's connections may be used. Immutable once all routes have been compiled.
type served struct {
	store    *tls.Store
	settings *listen.TLS
}

// ServesName implements core.Names: a host whose TLS is passed through is served by nobody here, whatever certificate covers it.
func (s *served) ServesName(serverName, host string) bool {
	if _, passed := s.settings.Passed.Find(host); passed {
		return false
	}
	return s.store.ServesName(serverName, host)
}
