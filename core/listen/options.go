package listen

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/tuning"
)

var (
	// errNotShared says that an option needs the sockets of an address to be separate.
	errNotShared = errors.New("the loops share one socket, which was opened without SO_REUSEPORT: ReusePort=yes of the socket unit")
	// errTooManyLoops says that steering leaves loops without connections.
	errTooManyLoops = errors.New("a loop beyond the number of processors gets no connection: set loops to fewer, or drop steer")
)

// Refused are the options that the kernel has refused, each once.
func (s *Sockets) Refused() []tuning.Refusal { return s.refused }

// refuse keeps a refusal, once for all shards.
func (s *Sockets) refuse(refused ...tuning.Refusal) {
	for _, r := range refused {
		known := false
		for _, have := range s.refused {
			known = known || have.Option == r.Option
		}
		if !known {
			s.refused = append(s.refused, r)
		}
	}
}

// set sets the options of a shard.
func (s *Sockets) set(shard int) {
	if s.bind.Path == "" {
		s.refuse(s.bind.Options.Listen(s.fds[shard], shard%s.loops, tuning.AllowedCPUs())...)
	}
}

// setAll sets the options of shards that listen already.
func (s *Sockets) setAll() {
	for shard := range s.fds {
		s.set(shard)
		if s.bind.Path == "" && s.bind.Options.Backlog > 0 {
			_ = unix.Listen(s.fds[shard], s.backlog()) // it listens: what can fail has not failed
		}
	}
}

// settle sets what is of all shards together, once all listen, and says whether what is required was refused.
func (s *Sockets) settle() error {
	if s.bind.Path == "" && len(s.deaf) == 0 {
		s.refuse(steer(s.bind.Options.Steer, s.fds[0], s.loops, s.copiesFrom > 0)...)
	}
	if s.bind.Options.Required && len(s.refused) > 0 {
		var errs []error
		for _, r := range s.refused {
			errs = append(errs, r)
		}
		return errors.Join(errs...)
	}
	return nil
}

func steer(on bool, fd, loops int, shared bool) []tuning.Refusal {
	switch {
	case !on: // the process before may have steered
		_ = tuning.Unsteer(fd)
		return nil
	case shared:
		return []tuning.Refusal{{Option: "steer", Err: errNotShared}}
	}
	cpus := tuning.ReceivingCPUs()
	if err := tuning.SteerShards(fd, loops, cpus); err != nil {
		return []tuning.Refusal{{Option: "steer", Err: err}}
	}
	return idleLoops(loops, cpus)
}

// idleLoops says whether steering deals no processor to some loops. cpus may not be known.
func idleLoops(loops int, cpus []int) []tuning.Refusal {
	if len(cpus) == 0 || loops <= len(cpus) {
		return nil
	}
	return []tuning.Refusal{{Option: "steer", Err: fmt.Errorf("%d loops, and %d processors: %w", loops, len(cpus), errTooManyLoops)}}
}

// Retune sets other options on the sockets of s that the port accepts from. What the old options set and the new do not stays set.
func (p *Port) Retune(s *Sockets, o tuning.Socket) (refused []tuning.Refusal) {
	cpus := tuning.AllowedCPUs()
	for _, a := range p.accepts {
		if a.sockets != s || s.bind.Path != "" {
			continue
		}
		a.acceptor.Control(func(fd int) {
			refused = append(refused, o.Listen(fd, a.shard%s.loops, cpus)...)
			if o.Backlog > 0 {
				_ = unix.Listen(fd, o.Backlog)
			}
			refused = append(refused, steer(o.Steer, fd, s.loops, s.copiesFrom > 0)...)
		})
	}
	return refused
}
