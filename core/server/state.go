package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// statePart is a piece of state that moves to the process that takes over. A version that the other process does not know is
// ignored there, as is a name: so that the form of a part may change, and parts may come and go.
type statePart struct {
	name    string
	version uint16
	export  func(s *Server, c *compile.Compiled) (any, error)       // as JSON; nil: there is nothing
	restore func(s *Server, c *compile.Compiled, body []byte) error // before c is in force
}

// stateParts are the parts, in the order in which they are restored.
func stateParts() []statePart {
	return []statePart{
		{pinningPart, pinningVersion, (*Server).exportAllowed, (*Server).restoreAllowed},
		{"service", 1, (*Server).exportService, (*Server).restoreService},
		{"ticket-keys", 1, (*Server).exportTicketKeys, (*Server).restoreTicketKeys},
		{"identity-keys", 1, (*Server).exportIdentityKeys, (*Server).restoreIdentityKeys},
		{"canaries", 1, (*Server).exportCanaries, (*Server).restoreCanaries},
		{"splits", 1, (*Server).exportSplits, (*Server).restoreSplits},
		{"overrides", 1, (*Server).exportOverrides, (*Server).restoreOverrides},
		{"ejections", 1, (*Server).exportEjections, (*Server).restoreEjections},
		{"breakers", 1, (*Server).exportBreakers, (*Server).restoreBreakers},
		{"jwks", 1, (*Server).exportKeySources, (*Server).restoreKeySources},
		{"sessions", 1, (*Server).exportSessions, (*Server).restoreSessions},
		{countersPart, 1, (*Server).exportCounters, (*Server).restoreCounters},
		{"health-checks", 1, (*Server).exportChecks, (*Server).restoreChecks},
		{"revocations", 1, (*Server).exportRevocations, (*Server).restoreRevocations},
		{limitsPart, limitsVersion, (*Server).exportLimits, (*Server).restoreLimits},
	}
}

// countersPart moves twice: with all others, and at the end of the old process with what it has counted since.
const countersPart = "counters"

// exportState gives all parts. One that fails is left out.
func (s *Server) exportState(c *compile.Compiled) (parts []handover.Part) {
	for _, p := range stateParts() {
		what, err := p.export(s, c)
		if err == nil && what != nil {
			var body []byte
			if body, err = json.Marshal(what); err == nil {
				parts = append(parts, handover.Part{Name: p.name, Version: p.version, Body: body})
			}
		}
		if err != nil {
			s.log.Warn("state is not handed over", "part", p.name, "error", err)
		}
	}
	return parts
}

// restoreState takes over what it knows of the parts. What is damaged is left out, with a warning.
func (s *Server) restoreState(c *compile.Compiled, parts []handover.Part) {
	for _, known := range stateParts() {
		for i := range parts {
			p := &parts[i]
			if p.Name != known.name {
				continue
			}
			if p.Version != known.version {
				s.log.Info("state of another version is ignored", "part", p.Name, "version", p.Version, "known", known.version)
				continue
			}
			if err := known.restore(s, c, p.Body); err != nil {
				s.log.Warn("state is ignored", "part", p.Name, "error", err)
			}
		}
	}
}

// life is what is told of the service as a whole, whichever process serves.
type life struct {
	Generation int       `json:"generation"` // of the configuration
	Started    time.Time `json:"started"`
	Upgrades   int       `json:"upgrades"`
}

func (s *Server) exportService(c *compile.Compiled) (any, error) {
	return life{c.Snapshot.Generation, s.life.Started, s.life.Upgrades}, nil
}

func (s *Server) restoreService(c *compile.Compiled, body []byte) error {
	var v life
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	if v.Generation < 0 || v.Generation >= maxGeneration || v.Upgrades < 0 || v.Started.IsZero() || v.Started.After(time.Now().Add(time.Hour)) {
		return fmt.Errorf("generation %d, %d upgrades, start %v cannot be", v.Generation, v.Upgrades, v.Started)
	}
	s.life = life{v.Generation, v.Started, v.Upgrades + 1}
	c.Snapshot.Generation = v.Generation + 1
	s.observer.Began(v.Started)
	return nil
}

const maxGeneration = 1 << 40

// exportTicketKeys gives the keys by listener, so that sessions are resumed by the new process.
func (s *Server) exportTicketKeys(c *compile.Compiled) (any, error) {
	keys := map[string][]byte{}
	for name, e := range c.Encrypted {
		if e.Tickets != nil {
			keys[name] = e.Tickets.Export()
		}
	}
	return keys, nil
}

func (s *Server) restoreTicketKeys(c *compile.Compiled, body []byte) error {
	var keys map[string][]byte
	if err := json.Unmarshal(body, &keys); err != nil {
		return err
	}
	var failed []error
	for name, e := range c.Encrypted {
		if k, ok := keys[name]; ok && e.Tickets != nil {
			if err := e.Tickets.Import(k); err != nil {
				failed = append(failed, fmt.Errorf("listener %q: %w", name, err))
			}
		}
	}
	return errors.Join(failed...)
}

// exportCounters remembers what it gives, so that the end can be told as a difference.
func (s *Server) exportCounters(*compile.Compiled) (any, error) {
	s.handed = s.observer.Totals()
	return s.handed, nil
}

// lastCounters are what has been counted since.
func (s *Server) lastCounters() ([]handover.Part, error) {
	body, err := json.Marshal(s.observer.Totals().Since(s.handed))
	if err != nil {
		return nil, err
	}
	return []handover.Part{{Name: countersPart, Version: 1, Body: body}}, nil
}

func (s *Server) restoreCounters(_ *compile.Compiled, body []byte) error {
	var t observe.Totals
	if err := json.Unmarshal(body, &t); err != nil {
		return err
	}
	if left := s.observer.Add(t); left > 0 {
		s.log.Info("counters that are not known here were left out", "number", left)
	}
	return nil
}
