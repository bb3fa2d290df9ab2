package server

import (
	"time"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// listener is a listener of the configuration in force: its sockets, and a port on each loop.
type listener struct {
	name  string
	caps  *listen.Caps
	ports []*listen.Port // by loop
	binds []bound
}

type bound struct {
	bind    listen.Bind
	sockets *listen.Sockets
	passed  bool // by systemd, which keeps them
}

// opened is the listeners of a configuration that is not in force yet: those that stay, and new sockets.
type opened struct {
	compiled *compile.Compiled
	binds    [][]bound // by listener; sockets nil: the listener has them already
	fresh    []*listen.Sockets
}

// openListeners opens the sockets that c needs and s does not have.
func (s *Server) openListeners(c *compile.Compiled, first bool) (*opened, error) {
	o := &opened{compiled: c}
	if first {
		s.assignPassed(c.Config)
	}
	for i := range c.Config.Listeners {
		spec := &c.Config.Listeners[i]
		have := s.listener(spec.Name)
		options := compile.Socket(&spec.Socket)
		var binds []bound
		for j, b := range spec.Binds {
			want := bindOf(b)
			want.Exclusive, want.Deferred, want.Options = first && s.before == nil, first && s.before != nil, options
			next := bound{bind: want}
			if have == nil || have.sockets(want) == nil {
				var err error
				if next, err = s.openBind(bindKey{spec.Name, j}, want, first); err != nil {
					o.abandon()
					return nil, becauseBind(err)
				}
				o.fresh = append(o.fresh, next.sockets)
			}
			binds = append(binds, next)
		}
		o.binds = append(o.binds, binds)
	}
	return o, nil
}

// listen makes what was opened deaf listen: nothing can fail any more but that.
func (o *opened) listen() error {
	for _, s := range o.fresh {
		if err := s.Listen(); err != nil {
			return becauseBind(err)
		}
	}
	return nil
}

func bindOf(b config.Bind) listen.Bind { return listen.Bind{Addr: b.Addr, Path: b.Path} }

// abandon closes what was opened for nothing.
func (o *opened) abandon() {
	for _, s := range o.fresh {
		s.Close()
	}
}

// take makes the listeners of o those of s: settings in force on every loop, new sockets accepting, others left.
func (o *opened) take(s *Server) (next []*listener) {
	s.store(o)
	o.tellRefused(s)
	staying := map[*listener]bool{}
	for i, settings := range o.compiled.Listeners {
		l := s.listener(settings.Listener.Name)
		if l == nil {
			l = s.newListener(settings)
		}
		staying[l] = true
		next = append(next, l.with(s, settings, o.binds[i]))
	}
	for _, l := range s.listeners {
		if !staying[l] {
			l.drain(s.loops)
			onEach(s.loops, func(i int) { s.http2[i].DrainPort(l.ports[i]) })
			l.closeSockets()
		}
	}
	return next
}

func (s *Server) listener(name string) *listener {
	for _, l := range s.listeners {
		if l.name == name {
			return l
		}
	}
	return nil
}

func (l *listener) sockets(b listen.Bind) *listen.Sockets {
	if have := l.bound(b); have != nil {
		return have.sockets
	}
	return nil
}

// bound is the bind with the address of b; nil: there is none.
func (l *listener) bound(b listen.Bind) *bound {
	for i := range l.binds {
		if have := &l.binds[i]; have.bind.Addr == b.Addr && have.bind.Path == b.Path {
			return have
		}
	}
	return nil
}

func (s *Server) newListener(settings listen.Settings) *listener {
	l := &listener{name: settings.Listener.Name, caps: listen.NewCaps()}
	l.setRate(s, settings.Rate)
	l.caps.Heed(&s.fitted.shed)
	for i := range s.loops {
		worker, server, server2 := s.workers[i], s.http1[i], s.http2[i]
		speak := func(c *loop.Conn, p *listen.Port, a listen.Accepted) loop.Handler {
			if a.Route != nil {
				return a.Route.Action.(*upstream.Passthrough).NewConn(worker, c, p, a.Peer, a.TLS, a.Route, a.Early)
			}
			if a.HTTP2 {
				return server2.NewConn(c, p, a.Peer, a.TLS, a.Early)
			}
			return server.NewConn(c, p, a.Peer, a.TLS, a.Early)
		}
		l.ports = append(l.ports, listen.NewPort(s.loops[i], l.caps, settings, speak))
	}
	return l
}

// setRate puts the rate of a client's connections in force. The grammar lets nothing through that cannot be one.
func (l *listener) setRate(s *Server, r listen.Rate) {
	if err := l.caps.Configure(r, s.loops[0].WallAt(s.loops[0].Clock())); err != nil {
		s.log.Error("cannot limit the rate of connections", "listener", l.name, "error", err)
	}
}

// with is l with other settings and binds. l itself stays as it is, for those who look at it.
func (l *listener) with(s *Server, settings listen.Settings, binds []bound) *listener {
	next := &listener{name: l.name, caps: l.caps, ports: l.ports}
	next.setRate(s, settings.Rate)
	var fresh, gone []*listen.Sockets
	for _, b := range binds {
		if b.sockets == nil {
			have := l.bound(b.bind)
			if b.sockets = have.sockets; have.bind.Options != b.bind.Options {
				l.retune(s, b.sockets, have.bind.Options, b.bind.Options)
			}
		} else {
			fresh = append(fresh, b.sockets)
		}
		next.binds = append(next.binds, b)
	}
	for _, have := range l.binds {
		if next.sockets(have.bind) == nil {
			gone = append(gone, have.sockets)
		}
	}
	onEach(s.loops, func(i int) {
		port := l.ports[i]
		port.Configure(settings)
		for _, sockets := range fresh {
			if err := port.Listen(sockets); err != nil {
				s.log.Error("cannot accept", "listener", l.name, "loop", i, "error", err)
			}
		}
		for _, sockets := range gone {
			port.Leave(sockets)
		}
	})
	for _, sockets := range gone {
		sockets.Close()
	}
	return next
}

// drain makes the listener accept no more, and close its connections as they become idle.
func (l *listener) drain(loops []*loop.Loop) {
	onEach(loops, func(i int) { l.ports[i].Drain() })
}

// handOver is drain while another process accepts from the sockets, those apart whose names it has left.
func (l *listener) handOver(s *Server, idle time.Duration, left map[string]bool) {
	taken := map[*listen.Sockets]bool{}
	for _, b := range l.binds {
		if taken[b.sockets] = !b.left(l.name, left); taken[b.sockets] {
			b.sockets.Disown()
		}
	}
	onEach(s.loops, func(i int) { l.ports[i].HandOver(idle, taken) })
	l.closeSockets()
}

// left says whether the process that has taken over does not use the sockets.
func (b bound) left(listener string, names map[string]bool) bool {
	for shard := range b.sockets.Shards() {
		if names[socketName(listener, b, shard)] {
			return true
		}
	}
	return false
}

func (l *listener) closeSockets() {
	for _, b := range l.binds {
		b.sockets.Close()
	}
}

// loopPatience is how long a loop may take to come to what the server asks of it.
const loopPatience = 5 * time.Second

// onEach runs f on every loop, one after the other, and waits for it; a loop that is held up runs it later.
func onEach(loops []*loop.Loop, f func(index int)) {
	for i, l := range loops {
		_ = l.Do(loopPatience, func() { f(i) })
	}
}
