package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// predecessor is the process that this one has taken over from, until it has ended. A nil one has.
type predecessor struct {
	taker   *handover.Taker
	hello   handover.Hello
	process *os.Process // by a descriptor: another process with its number is never signalled
	parts   []handover.Part
	problem error
	sockets map[string]int // that nobody here uses yet
	report  atomic.Pointer[handover.Report]
	drains  chan struct{} // closed when it has said that it drains, or has ended
	gone    chan struct{} // closed when it has ended
	hurried bool          // it was told to stop, and the service does not
}

// takeOver asks the process before for what it has; nil: there is none.
func takeOver(o *Options) (*predecessor, error) {
	if o.Upgrade == nil || o.Upgrade.Before == nil {
		return nil, nil
	}
	p := &predecessor{taker: o.Upgrade.Before, sockets: map[string]int{}, drains: make(chan struct{}), gone: make(chan struct{})}
	var err error
	if p.process, err = os.FindProcess(os.Getppid()); err != nil {
		return nil, fmt.Errorf("cannot find the process before: %w", err)
	}
	got, err := p.taker.Take(handover.Hello{PID: os.Getpid(), Version: o.Version})
	if err != nil {
		return nil, err
	}
	p.hello, p.parts, p.problem = got.Hello, got.Parts, got.Problem
	for _, s := range got.Sockets {
		if _, twice := p.sockets[s.Name]; twice {
			_ = unix.Close(s.FD)
			continue
		}
		p.sockets[s.Name] = s.FD
	}
	return p, nil
}

// failed tells it why this process gives up.
func (p *predecessor) failed(err error) {
	if p != nil {
		_ = p.taker.Failed(err.Error(), reasonOf(err).String()) // if nobody hears it, it is in the log
	}
}

// socketName is what a socket is called on its way to another process: "0.0.0.0:443#3". Where the kernel chose the port number,
// and several listeners may have asked for that, the listener's name stands before it. A socket that systemd passed is called
// so, because its address need not be the bind's, and its file is never the gateway's.
func socketName(listener string, b bound, shard int) string {
	name := fmt.Sprintf("%s#%d", b.bind, shard)
	if b.bind.Path == "" && b.bind.Addr.Port() == 0 {
		name = listener + " " + name
	}
	if b.passed {
		name = "passed " + name
	}
	return name
}

// claim gives the sockets of a bind, by shard, which are the caller's. A nil predecessor has none.
func (p *predecessor) claim(listener string, b bound) (fds []int) {
	if p == nil {
		return nil
	}
	for {
		name := socketName(listener, b, len(fds))
		fd, ok := p.sockets[name]
		if !ok {
			return fds
		}
		delete(p.sockets, name)
		fds = append(fds, fd)
	}
}

// claimAdmin gives the socket of the admin API; nil: there is none.
func (p *predecessor) claimAdmin(b admin.Bind) *os.File {
	if p == nil {
		return nil
	}
	name := adminSocketName(b)
	fd, ok := p.sockets[name]
	if !ok {
		return nil
	}
	delete(p.sockets, name)
	return os.NewFile(uintptr(fd), name)
}

func adminSocketName(b admin.Bind) string {
	if b.Path != "" {
		return "admin unix:" + b.Path
	}
	return "admin " + b.Addr.String()
}

// leave gives back what nobody claimed: the process before still accepts from it, and must end that itself.
func (p *predecessor) leave() error {
	var names []string
	for name, fd := range p.sockets {
		_ = unix.Close(fd)
		names = append(names, name)
	}
	p.sockets = nil
	slices.Sort(names)
	return p.taker.Leave(names)
}

// alive says whether it has not ended.
func (p *predecessor) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// replaced is closed once the process before leaves everything to this one: it has told systemd so, too, before it drains.
// Of a nil predecessor it never is.
func (p *predecessor) replaced() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.drains
}

// stop passes on that the service is to stop: whoever told us does not know the older process, which ends with us.
func (p *predecessor) stop() {
	switch {
	case !p.alive():
	case p.hurried: // it has heard it once; the next one ends it at once
		p.hurried = false
	default:
		_ = p.process.Signal(syscall.SIGTERM)
	}
}

// hurry has it end its tunnels, and everything else once the time for that is over, as when the service stops. It is told once: a second
// time would end it at once, with what is under way.
func (p *predecessor) hurry() {
	if !p.hurried {
		p.stop()
		p.hurried = true
	}
}

// ended waits for its end.
func (p *predecessor) ended(ctx context.Context, limit time.Duration) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
	}
	if ctx.Err() == context.Canceled {
		return errors.New("the gateway stops")
	}
	return errors.New(p.draining())
}

// draining says that it is a reason not to replace this process, and what can be done.
func (p *predecessor) draining() string {
	o := p.status()
	if o == nil { // it has ended this moment
		return "the process before this one has only just ended: try again"
	}
	text := fmt.Sprintf("the process before this one, %d, still drains: %d connections, %d exchanges, %d tunnels", o.PID, o.Connections, o.Exchanges, o.Tunnels)
	if !o.Until.IsZero() {
		text += fmt.Sprintf("; it ends within %v", time.Until(o.Until).Round(time.Second))
	}
	if o.Tunnels > 0 {
		text += "; sluice upgrade --hurry ends its tunnels first"
	}
	return text
}

// status describes it for people; nil: it has ended.
func (p *predecessor) status() *admin.OlderStatus {
	if !p.alive() {
		return nil
	}
	h := &p.hello
	st := &admin.OlderStatus{PID: h.PID, Version: h.Version, Process: h.Process, Generation: h.Generation, Started: h.Started}
	if r := p.report.Load(); r != nil {
		st.Connections, st.Exchanges, st.Tunnels, st.Since, st.Until = r.Connections, r.Exchanges, r.Tunnels, r.Since, r.Until
	}
	return st
}

// follow hears the process before until it has ended.
func (s *Server) follow(p *predecessor) {
	drains := sync.OnceFunc(func() { close(p.drains) })
	defer func() {
		drains()
		p.taker.Close()
		_ = p.process.Release()
		close(p.gone)
	}()
	err := p.taker.Follow(func(r handover.Report) {
		p.report.Store(&r)
		drains()
	}, func(parts []handover.Part, err error) {
		if err != nil {
			s.log.Warn("the last counters of the process before are lost", "pid", p.hello.PID, "error", err)
		}
		s.restoreState(nil, slices.DeleteFunc(parts, func(p handover.Part) bool { return p.Name != countersPart }))
	})
	if errors.Is(err, net.ErrClosed) { // this process ends before it, its time being up
		return
	}
	if err != nil {
		s.log.Error("the process before is lost from sight", "pid", p.hello.PID, "error", err)
		return
	}
	s.log.Info("the process before has ended", "pid", p.hello.PID)
}

// succeed completes the start: once all loops accept, the process before may stop.
func (s *Server) succeed() error {
	if s.before == nil {
		if s.options.Upgrade == nil {
			return nil
		}
		return s.options.Upgrade.Upgrader.Ready()
	}
	if err := s.accepting(); err != nil {
		return err
	}
	if err := s.before.leave(); err != nil {
		return err
	}
	if err := s.before.taker.Taken(); err != nil {
		return err
	}
	s.ownFiles()
	if s.admin != nil {
		admin.Own(s.admin.listener, true)
	}
	if err := s.options.Upgrade.Upgrader.Ready(); err != nil {
		// It is gone, or it would read: whatever it was, this process is the one that serves.
		s.log.Warn("the process before was not told", "error", err)
	}
	s.log.Info("took over", "from", s.before.hello.PID, "version", s.before.hello.Version, "upgrades", s.life.Upgrades)
	s.following.Go(func() { s.follow(s.before) })
	return nil
}

// accepting says which loop does not accept from a socket that is its.
func (s *Server) accepting() error {
	for i, loop := range s.loops {
		for _, l := range s.listeners {
			for _, b := range l.binds {
				have, want := 0, b.sockets.ShardsOf(i)
				if err := loop.Do(loopPatience, func() { have = l.ports[i].Accepting(b.sockets) }); err != nil {
					return fmt.Errorf("cannot accept on %s: loop %d: %w", b.sockets, i, err)
				}
				if have != want {
					return fmt.Errorf("cannot accept on %s: loop %d has %d of %d sockets", b.sockets, i, have, want)
				}
			}
		}
	}
	return nil
}
