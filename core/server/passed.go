package server

import (
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/server/handover"
	"github.com/sluice-gateway/sluice/systemd"
)

// bindKey is a bind of a listener.
type bindKey struct {
	listener string
	index    int
}

// assign says which passed sockets are for which bind: those with its address, which are one's own shards when they come
// back from systemd's store; else those stored under its name, whose address another host may have given it; else those that
// bear the listener's name, as FileDescriptorName= of a socket unit says it, unless another bind has their address.
func assign(passed []systemd.Socket, listeners []config.Listener) (used map[bindKey][]systemd.Socket, unused []systemd.Socket) {
	used = map[bindKey][]systemd.Socket{}
	rest := passed
	claim := func(matches func(l *config.Listener, b config.Bind, s systemd.Socket) bool) {
		for i := range listeners {
			l := &listeners[i]
			for j, b := range l.Binds {
				key := bindKey{l.Name, j}
				if used[key] == nil {
					used[key], rest = sift(rest, func(s systemd.Socket) bool { return matches(l, b, s) })
				}
			}
		}
	}
	claim(func(_ *config.Listener, b config.Bind, s systemd.Socket) bool {
		return s.Addr == b.Addr && s.Path == b.Path
	})
	claim(func(_ *config.Listener, b config.Bind, s systemd.Socket) bool { return s.Name == storeName(bindOf(b)) })
	claim(func(l *config.Listener, _ config.Bind, s systemd.Socket) bool { return s.Name == l.Name })
	return used, rest
}

// sift takes the listening sockets that match from all; of those, only those with the first one's address.
func sift(all []systemd.Socket, matches func(systemd.Socket) bool) (taken, rest []systemd.Socket) {
	for _, s := range all {
		if s.Listening && matches(s) && (taken == nil || s.Addr == taken[0].Addr && s.Path == taken[0].Path) {
			taken = append(taken, s)
		} else {
			rest = append(rest, s)
		}
	}
	return taken, rest
}

// assignPassed finds the binds for the sockets that systemd passed. The others are closed, by systemd too if it had stored
// them, before anything is opened: their addresses may be wanted.
func (s *Server) assignPassed(c *config.Config) {
	used, unused := assign(s.service.Sockets(), c.Listeners)
	s.service.passed = used
	inUse := map[string]bool{"": true}
	for _, sockets := range used {
		for _, socket := range sockets {
			inUse[socket.Name] = true
		}
	}
	for _, socket := range unused {
		s.log.Warn("a socket that systemd passed is not used: no listener is bound to its address or bears its name", "socket", socket)
		socket.Close()
		if !inUse[socket.Name] {
			inUse[socket.Name] = true
			s.complain(s.service.Forget(socket.Name))
		}
	}
	if len(unused) > 0 {
		s.complain(s.service.Barrier(barrierPatience))
	}
}

// openBind opens the sockets of a listener's bind. At the start those of the process before come first, then those that systemd
// passed: after an upgrade it has passed none.
func (s *Server) openBind(key bindKey, b listen.Bind, first bool) (next bound, err error) {
	if first {
		for _, next := range []bound{{bind: b}, {bind: b, passed: true}} {
			fds := s.before.claim(key.listener, next)
			if len(fds) == 0 {
				continue
			}
			if next.passed { // of any address, and not always opened to be shared
				next.sockets, err = listen.Adopt(b, fds, len(s.loops))
			} else {
				next.sockets, err = listen.Inherit(b, len(s.loops), fds)
			}
			if err == nil {
				return next, nil
			}
			s.log.Warn("a socket of the process before is of no use", "listener", key.listener, "error", err)
		}
	}
	next.bind = b
	passed := s.service.passed[key]
	if len(passed) == 0 {
		if next.sockets, err = listen.Open(b, len(s.loops)); err == nil && next.sockets.Replaced() {
			s.tellStale(staleListener, b.Path)
		}
		return next, err
	}
	delete(s.service.passed, key)
	var fds []int
	for _, socket := range passed {
		fds = append(fds, socket.FD)
	}
	next.passed = true
	if next.sockets, err = listen.Adopt(b, fds, len(s.loops)); err == nil {
		s.log.Info("listening on sockets that systemd passed", "listener", key.listener, "bind", b, "name", passed[0].Name,
			"address", next.sockets, "sockets", len(fds))
	}
	return next, err
}

// store leaves copies of the sockets that o has opened with systemd, which passes them to the next start: clients that
// connect in between wait in the kernel's queues. What systemd itself has opened it keeps anyway. Copies of those that will be
// listened on no longer it closes: they would go on to take connections. These go first, since a listener that got another
// name has its address still.
func (s *Server) store(o *opened) {
	if !s.service.Notified() || s.before != nil && s.state.Load() == nil { // systemd does not hear this process yet
		return
	}
	stays := map[string]bool{}
	for i, l := range o.compiled.Listeners {
		for _, b := range o.binds[i] {
			if b.sockets == nil {
				stays[l.Listener.Name+" "+b.bind.String()] = true
			}
		}
	}
	for _, l := range s.listeners {
		for _, b := range l.binds {
			if storable(b.bind) && !stays[l.name+" "+b.bind.String()] {
				s.complain(s.service.Forget(storeName(b.bind)))
			}
		}
	}
	for _, binds := range o.binds {
		for _, b := range binds {
			if b.sockets != nil && !b.passed && storable(b.bind) {
				s.complain(s.service.Store(storeName(b.bind), b.sockets.Descriptors()))
			}
		}
	}
}

// storeAgain stores everything that this process listens on, once it is the service's main one. What the process before has
// stored is there already, and is not stored twice.
func (s *Server) storeAgain() {
	if !s.service.Notified() {
		return
	}
	copies, err := s.copySockets(s.listeners, func(_ string, b bound, _ int) string {
		if b.passed || !storable(b.bind) {
			return ""
		}
		return storeName(b.bind)
	})
	if err != nil {
		s.complain(err)
		return
	}
	defer handover.CloseAll(copies)
	fds := map[string][]int{}
	for _, c := range copies {
		if c.Name != "" {
			fds[c.Name] = append(fds[c.Name], c.FD)
		}
	}
	for name, some := range fds {
		s.complain(s.service.Store(name, some))
	}
}

// resign tells systemd that another process is the service's main one, and nothing after that: the other tells its own. What it
// does not listen on goes from the store before, as systemd would not hear of it later.
func (s *Server) resign(to *successor) {
	s.endService()
	if !s.service.Notified() {
		return
	}
	for _, l := range s.listeners {
		for _, b := range l.binds {
			if storable(b.bind) && b.left(l.name, to.left) {
				s.complain(s.service.Forget(storeName(b.bind)))
			}
		}
	}
	s.complain(s.service.MainPID(to.pid))
}

// storable says whether the next start could use a bind's sockets: not those of a unix socket, whose file goes when this
// gateway ends, nor those of an address that the kernel has chosen.
func storable(b listen.Bind) bool { return b.Path == "" && b.Addr.Port() != 0 }

// storeName is the name of a bind's sockets in systemd's store.
func storeName(b listen.Bind) string { return systemd.Name(b.String()) }
