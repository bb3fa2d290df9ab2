package server

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server/handover"
	"github.com/sluice-gateway/sluice/tuning"
)

// pinning is on which processors the threads of this process run. It belongs to the server's goroutine.
type pinning struct {
	host   *tuning.Host
	before tuning.CPUs // that the process was allowed before the configuration chose some; nil: it has not chosen
	pinned string      // that the configuration has chosen; "": none, or not yet
}

// pinningPart carries what was allowed: a process that is started by one that is pinned inherits less.
const (
	pinningPart    = "pinning"
	pinningVersion = 1
)

// allowed are the processors among which the configuration may choose; nil where the host does not tell.
func (p *pinning) allowed() tuning.CPUs {
	if p.before != nil {
		return p.before
	}
	return p.host.Allowed()
}

// may says why threads cannot be put where the configuration wants them.
func (p *pinning) may(c config.Tuning) error {
	if c.CPUs == "" || c.CPUs == p.pinned {
		return nil
	}
	cpus, err := tuning.ParseCPUs(c.CPUs)
	if err == nil {
		err = p.host.MayPin(cpus, p.allowed())
	}
	return placed(c, err)
}

// placed is an error with the place of the key.
func placed(c config.Tuning, err error) error {
	if err == nil {
		return nil
	}
	if c.CPUs == "" {
		return fmt.Errorf("cannot give the process back its processors: %w", err)
	}
	return fmt.Errorf("%s: cannot pin to cpus %q: %w", c.CPUAt, c.CPUs, err)
}

// pin puts all threads where the configuration wants them, or back where they may be if it wants them nowhere. After an error they are
// where they were. What GOMAXPROCS is by default follows; one that the environment says stands.
func (p *pinning) pin(c config.Tuning) (changed bool, err error) {
	if c.CPUs == p.pinned && (c.CPUs != "" || p.before == nil) {
		return false, nil
	}
	allowed := p.allowed()
	to := allowed
	if c.CPUs != "" {
		if to, err = tuning.ParseCPUs(c.CPUs); err != nil {
			return false, placed(c, err)
		}
	}
	was := p.host.Allowed()
	if err := tuning.Pin(to); err != nil {
		_ = tuning.Pin(was)
		return false, placed(c, err)
	}
	if p.pinned, p.before = c.CPUs, allowed; c.CPUs == "" {
		p.before = nil
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS()
	}
	return true, nil
}

// pinFirst pins before there are loops, so that there are as many as processors.
func (s *Server) pinFirst(c config.Tuning) error {
	p := &s.pinning
	p.host = &tuning.Host{Files: os.DirFS("/")}
	if s.before != nil {
		s.takeAllowed(s.before.parts)
	}
	if err := p.may(c); err != nil {
		return err
	}
	_, err := p.pin(c)
	return err
}

// pinAgain pins as a reload wants it. The loops are as many as before.
func (s *Server) pinAgain(c *config.Config) (changed bool, err error) {
	if changed, err = s.pinning.pin(c.Tuning); !changed {
		return false, err
	}
	wanted, _ := s.pinning.divide(0, runtime.GOMAXPROCS(0))
	s.runOn(s.pinning.divide(len(s.loops), runtime.GOMAXPROCS(0)))
	s.log.Info("pinned", "processors", s.pinning.host.Allowed().String())
	if c.Loops == 0 && wanted != len(s.loops) {
		s.log.Warn("the number of loops follows the processors with the next start or upgrade", "now", len(s.loops), "then", wanted)
	}
	return true, nil
}

// divide says how many loops there are where the configuration wants so many, 0: as many as may be, and how many processors run Go code,
// where the runtime has chosen chosen, from affinity and the cgroup's quota unless GOMAXPROCS is in the environment.
//
// Awaited work has a processor beside the loops: it may compute for long, which would hold a loop up. Where affinity is the bound, that is one
// more than can run at once, and the kernel has them share. Where the quota is, it would use time that the quota does not have, and the kernel
// would stop the whole process for it: there the runtime's choice has to do, loops are one fewer unless written, and awaited work
// waits for a loop's turn to end if they are written to take it all.
func (p *pinning) divide(wanted, chosen int) (loops, processors int) {
	quota := p.host.QuotaCPUs()
	if quota > 0 {
		if allowed := len(p.host.Allowed()); allowed > 0 && allowed <= quota {
			quota = 0 // it cannot be exceeded
		}
	}
	if loops = wanted; loops == 0 {
		if loops = chosen; quota > 0 {
			loops = max(1, chosen-1)
		}
	}
	processors = loops + 1
	if quota > 0 {
		processors = min(processors, quota)
	}
	return loops, max(processors, chosen)
}

// runOn has Go code run on as many processors as divide says.
func (s *Server) runOn(loops, processors int) {
	if runtime.GOMAXPROCS(0) != processors { // setting it ends the runtime's own watch over the quota
		runtime.GOMAXPROCS(processors)
	}
	if processors <= loops {
		s.log.Warn("the loops take all processors of the cgroup's quota: awaited work, such as signatures, holds them up; write fewer loops, or none",
			"loops", loops, "processors", processors)
	}
}

// preferAgain has the sockets of the i-th loop prefer packets of the i-th of other processors, or get them where connections are steered.
func (s *Server) preferAgain() {
	for _, l := range s.listeners {
		for _, b := range l.binds {
			if o := b.bind.Options; o.IncomingCPU || o.Steer {
				onEach(s.loops, func(i int) { _ = l.ports[i].Retune(b.sockets, o) })
			}
		}
	}
}

func (s *Server) exportAllowed(*compile.Compiled) (any, error) {
	if s.pinning.before == nil {
		return nil, nil
	}
	return s.pinning.before.String(), nil
}

// restoreAllowed has nothing to do: takeAllowed has been before there were loops.
func (s *Server) restoreAllowed(*compile.Compiled, []byte) error { return nil }

// takeAllowed learns what the process before was allowed before it pinned itself, and with it this process.
func (s *Server) takeAllowed(parts []handover.Part) {
	i := slices.IndexFunc(parts, func(p handover.Part) bool { return p.Name == pinningPart && p.Version == pinningVersion })
	if i < 0 {
		return
	}
	var text string
	err := json.Unmarshal(parts[i].Body, &text)
	if err == nil {
		s.pinning.before, err = tuning.ParseCPUs(text)
	}
	if err != nil {
		s.log.Warn("state is ignored", "part", pinningPart, "error", err)
	}
}
