package server

import (
	"os"
	"strings"

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
	claim(func(_ *config.Listener, b config.Bind, s systemd.Socket) bool {
		return s.Name == addressName(bindOf(b))
	})
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
	sockets, stale := siftStale(s.service.Sockets())
	used, unused := assign(sockets, c.Listeners)
	s.service.passed = used
	inUse := map[string]bool{"": true}
	for _, sockets := range used {
		for _, socket := range sockets {
			inUse[socket.Name] = true
		}
	}
	for _, socket := range stale {
		s.log.Warn("a unix socket that systemd kept is of no use: its file was removed or replaced, and no client finds it; see RuntimeDirectoryPreserve= of the unit if its folder goes with the service",
			"socket", socket)
	}
	for _, socket := range unused {
		s.log.Warn("a socket that systemd passed is not used: no listener is bound to its address or bears its name", "socket", socket)
		if _, stored := storedFile(socket); stored {
			_ = os.Remove(socket.Path) // this gateway has made it
		}
	}
	for _, socket := range append(stale, unused...) {
		socket.Close()
		if !inUse[socket.Name] {
			inUse[socket.Name] = true
			s.complain(s.service.Forget(socket.Name))
		}
	}
	if len(stale)+len(unused) > 0 {
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
	if _, stored := storedFile(passed[0]); stored { // with its file, as from the process before
		next.sockets, err = listen.Inherit(b, len(s.loops), fds)
	} else {
		next.passed = true
		next.sockets, err = listen.Adopt(b, fds, len(s.loops))
	}
	if err == nil {
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
			if name := b.storeName(); name != "" && !stays[l.name+" "+b.bind.String()] {
				s.complain(s.service.Forget(name))
			}
		}
	}
	for _, binds := range o.binds {
		for _, b := range binds {
			if b.sockets == nil || b.passed {
				continue
			}
			if name := b.storeName(); name != "" {
				fds := b.sockets.Descriptors()
				if b.bind.Path != "" {
					fds = fds[:1] // of the others each is a copy
				}
				s.complain(s.service.Store(name, fds))
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
		if b.passed {
			return ""
		}
		return b.storeName()
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
			if name := b.storeName(); name != "" && b.left(l.name, to.left) {
				s.complain(s.service.Forget(name))
			}
		}
	}
	s.complain(s.service.MainPID(to.pid))
}

// ownFiles takes over the files of the unix sockets that systemd kept, or the process before has left, once the start has succeeded: one
// that fails leaves them to the next, or to that process.
func (s *Server) ownFiles() {
	for _, l := range s.listeners {
		for _, b := range l.binds {
			if b.passed {
				continue // the file is of whoever passed it
			}
			if err := b.sockets.Own(); err != nil {
				s.log.Warn("the socket's file will not be removed at the end", "listener", l.name, "error", err)
			}
		}
	}
}

// leaveFiles leaves the files of the unix sockets that systemd keeps where they are: clients find them, and wait for the next start.
func (s *Server) leaveFiles() {
	if !s.service.Notified() {
		return
	}
	for _, l := range s.listeners {
		for _, b := range l.binds {
			if !b.passed && b.storeName() != "" {
				b.sockets.Disown()
			}
		}
	}
}

// storeName is the name of a bind's sockets in systemd's store; "": the next start could not use them: they have an address that the
// kernel has chosen, or a file that is not this gateway's. The file of a unix socket is part of the name, so that the next start knows
// whether clients still find the socket by it.
func (b bound) storeName() (name string) {
	switch {
	case b.bind.Path == "" && b.bind.Addr.Port() == 0:
		return ""
	case b.bind.Path == "":
		return addressName(b.bind)
	case b.sockets == nil || b.sockets.File() == "":
		return ""
	}
	if name = addressName(b.bind) + fileMark + b.sockets.File(); len(name) > systemd.MaxNameBytes {
		return "" // of a path with many odd characters
	}
	return name
}

// fileMark stands between path and file in the name of a unix socket.
const fileMark = "@"

// storedFile says which file a unix socket had when this gateway has stored it; not ok: it was not stored so.
func storedFile(s systemd.Socket) (file string, ok bool) {
	if s.Path == "" {
		return "", false
	}
	return strings.CutPrefix(s.Name, addressName(listen.Bind{Path: s.Path})+fileMark)
}

// siftStale parts the stored unix sockets whose file has gone, or is another socket's by now, from all others.
func siftStale(all []systemd.Socket) (rest, stale []systemd.Socket) {
	for _, s := range all {
		if file, stored := storedFile(s); stored && file != listen.FileAt(s.Path) {
			stale = append(stale, s)
		} else {
			rest = append(rest, s)
		}
	}
	return rest, stale
}

// addressName is an address as part of a name in systemd's store.
func addressName(b listen.Bind) string { return systemd.Name(b.String()) }
