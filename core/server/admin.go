package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/config"
)

var (
	errStarting = errors.New("the gateway is starting")
	errDraining = errors.New("the gateway is draining")
)

func isStop(sig os.Signal) bool { return sig == syscall.SIGTERM || sig == syscall.SIGINT }

// adminServer is the admin API on its socket.
type adminServer struct {
	bind     admin.Bind
	server   *admin.Server
	listener net.Listener
	done     chan struct{} // closed when it serves no more; nil: it never did
}

// openAdmin gives an admin API that listens on b, which nobody serves yet: the one that there is, if that does. nil: there is to be none.
func (s *Server) openAdmin(spec config.Bind) (*adminServer, error) {
	b := admin.Bind{Addr: spec.Addr, Path: spec.Path}
	switch {
	case s.admin != nil && s.admin.bind == b:
		return s.admin, nil
	case b == (admin.Bind{}):
		return nil, nil
	}
	l, err := s.listenAdmin(b)
	if err != nil {
		return nil, becauseBind(err)
	}
	return &adminServer{bind: b, server: admin.NewServer(s.source(), s.log), listener: l}, nil
}

// setAdmin puts what openAdmin gave in the place of the admin API that there is. At the first time it does not serve before start: of two
// processes that accept from one socket only the one that is ready may answer.
func (s *Server) setAdmin(next *adminServer, first bool) {
	if next == s.admin {
		return
	}
	if next != nil && !first {
		next.start(s.log)
	}
	go s.admin.close() // it may be answering the request that asked for this
	s.admin = next
}

// abandonAdmin closes what openAdmin gave for nothing.
func (s *Server) abandonAdmin(next *adminServer) {
	if next != s.admin {
		next.close()
	}
}

func (s *Server) listenAdmin(b admin.Bind) (net.Listener, error) {
	if socket := s.before.claimAdmin(b); socket != nil {
		l, err := admin.Inherit(b, socket)
		_ = socket.Close()
		if err == nil {
			return l, nil
		}
		s.log.Warn("a socket of the process before is of no use", "error", err)
	}
	l, stale, err := admin.Listen(b)
	if stale {
		s.tellStale(staleAdmin, b.Path)
	}
	return l, err
}

// tellStale tells of the file of a unix socket that was in the way.
func (s *Server) tellStale(of int, path string) {
	s.failures.stale[of].Add(1)
	s.log.Warn("a unix socket was replaced that a process has left without ending in order: see in its log, journalctl -u sluice, why it was killed or crashed",
		"path", path)
}

// start answers those who connect, until close.
func (a *adminServer) start(log *slog.Logger) {
	a.done = make(chan struct{})
	go func() {
		defer close(a.done)
		if err := a.server.Serve(a.listener); err != nil {
			log.Error("the admin API ended", "error", err)
		}
	}()
}

// leave is close after another process has the socket: whoever came to this one is answered.
func (a *adminServer) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = a.server.Leave(ctx, a.listener)
	<-a.done
}

func (a *adminServer) close() {
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = a.server.Shutdown(ctx)
	_ = a.listener.Close()
	if a.done != nil {
		<-a.done
	}
}

// source is the gateway as the admin API sees it.
func (s *Server) source() admin.Source {
	return admin.Source{
		Status:       s.status,
		Config:       func() []byte { return s.state.Load().compiled.Config.Dump() },
		Routes:       s.routeStatus,
		Upstreams:    s.upstreamStatus,
		Certs:        s.certificateStatus,
		Metrics:      s.observer.WriteMetrics,
		Ready:        s.ready,
		LogLevel:     s.observer.LogLevel,
		SetLogLevel:  s.observer.SetLogLevel,
		Keys:         s.keysStatus,
		SigningKeys:  s.signingKeysStatus,
		IdentityKeys: s.identityKeys,
		Revocations:  s.revocations,
		ChangeTokens: s.changeTokens,
		Logins:       s.loginsStatus,
		EndSessions:  s.endSessions,
		Limits:       s.limitStatus,
		Limit:        s.keyStatus,
		ResetLimit:   s.resetKey,
		SetEndpoints: s.setEndpoints,
		SetWeights:   s.setWeights,
		Canaries:     s.canaryStatus,
		ChangeCanary: s.changeCanary,
		Reload:       s.askReload,
		Upgrade:      s.askUpgrade,
	}
}

// askReload has the server's goroutine reload.
func (s *Server) askReload() error {
	done := make(chan error, 1)
	select {
	case s.reloads <- done:
		return <-done
	case <-time.After(loopPatience):
		return errors.New("the gateway is busy")
	}
}

func (s *Server) ready() error {
	switch {
	case s.state.Load() == nil:
		return errStarting
	case s.draining.Load():
		return errDraining
	case s.watchdog.Stalled() > 0:
		return fmt.Errorf("%d event loops are held up", s.watchdog.Stalled())
	case !s.checked.Load():
		if name := s.state.Load().compiled.Unchecked(); name != "" {
			return fmt.Errorf("endpoints of upstream %q wait for their first check", name)
		}
		s.checked.Store(true)
	}
	return nil
}

func (s *Server) status() admin.Status {
	st := admin.Status{
		State: "serving", Version: s.options.Version, Commit: s.options.Commit, Go: runtime.Version(), PID: os.Getpid(),
		Started: s.life.Started, ConfigFile: s.options.ConfigFile, Reload: s.lastReload.Load(),
		Process: s.life.Upgrades + 1, ProcessStarted: s.began, Upgrades: s.life.Upgrades, Upgrade: s.lastUpgrade.Load(), Older: s.before.status(),
		Tuning: s.tuningStatus(),
	}
	now := s.state.Load()
	if now == nil {
		st.State = "starting"
		return st
	}
	if s.draining.Load() {
		st.State = "draining"
	}
	st.Generation = now.compiled.Snapshot.Generation
	st.Cluster = clusterStatus(now.compiled.Redis())
	for i, l := range s.loops {
		one := admin.LoopStatus{Index: i}
		one.Stalled = l.Do(time.Second, func() { one.Exchanges = s.workers[i].Active() }) != nil
		if one.Stalled {
			one = admin.LoopStatus{Index: i, Stalled: true}
		}
		st.Loops = append(st.Loops, one)
	}
	for _, l := range now.listeners {
		one := admin.ListenerStatus{Name: l.name, Connections: l.caps.Open()}
		for _, b := range l.binds {
			one.Binds = append(one.Binds, b.sockets.String())
		}
		accepted := make([]uint64, len(s.loops))
		for i, loop := range s.loops {
			count := make(chan uint64, 1)
			if loop.Do(time.Second, func() { count <- l.ports[i].Counters().Accepted }) == nil {
				accepted[i] = <-count
			}
			one.Accepted += accepted[i]
		}
		st.Listeners = append(st.Listeners, one)
	}
	return st
}

func (s *Server) routeStatus() (out []admin.RouteStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for i := range now.compiled.Config.Routes {
		out = append(out, s.oneRoute(now.compiled, &now.compiled.Config.Routes[i]))
	}
	return out
}
