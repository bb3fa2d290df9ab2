package server

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core/server/handover"
)

const (
	// drainPoll is how often a draining server looks whether it is done.
	drainPoll = 20 * time.Millisecond
	// reportEvery is how often it tells the process that has taken over how far it is.
	reportEvery = 500 * time.Millisecond
)

// drain stops accepting, lets what is under way end, and returns when nothing is left or the configured time is up. A
// second signal to stop ends it at once. to is the process that accepts instead; nil: the gateway stops.
func (s *Server) drain(signals <-chan os.Signal, to *successor) {
	limit := s.state.Load().compiled.Config.Drain
	s.draining.Store(true)
	s.registry.RestCanaries()
	s.log.Info("draining", "for at most", limit)
	since, stops := time.Now(), 1
	if to == nil {
		s.tellDraining(limit)
		s.end()
	} else {
		stops = 2 // the service may be stopped meanwhile
		defer s.handOver(to, limit)()
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var reported time.Time
	for s.busy() || s.before.alive() {
		if to != nil && !to.gone && time.Since(reported) >= reportEvery {
			reported = time.Now()
			if s.report(to, since, since.Add(limit)); to.gone && s.service.Notified() {
				s.log.Warn("drain cut short, so that systemd sees that the service has ended", "connections", s.openConnections())
				return
			}
		}
		select {
		case <-tick.C:
			if to == nil {
				s.tellDraining(limit - time.Since(since))
			}
		case <-deadline.C:
			s.log.Warn("drain ended with open connections", "connections", s.openConnections())
			return
		case sig := <-signals:
			if !isStop(sig) {
				continue
			}
			s.before.stop()
			if stops--; stops == 0 {
				s.log.Warn("drain cut short by a second signal", "connections", s.openConnections())
				return
			}
			s.log.Info("told to stop: the drain goes on")
		case done := <-s.reloads:
			done <- s.cannot(to)
		case r := <-s.upgrades:
			r.done <- s.cannot(to)
		}
	}
	s.log.Info("drained")
}

// cannot says why nothing is changed any more.
func (s *Server) cannot(to *successor) error {
	if to != nil {
		return fmt.Errorf("this process has been replaced by %d", to.pid)
	}
	return errDraining
}

// end accepts nothing more, and lets connections go as they become idle.
func (s *Server) end() {
	onEach(s.loops, func(i int) {
		s.workers[i].Drain()
		s.http2[i].Drain()
	})
	for _, l := range s.listeners {
		l.drain(s.loops)
		l.closeSockets()
	}
}

// handOver leaves the sockets to the process that has taken over, and gives what is to be done at the end. Clients of idle
// connections have half of the time to come with a request that is told to be their last here.
func (s *Server) handOver(to *successor, limit time.Duration) (finish func()) {
	onEach(s.loops, func(i int) {
		s.workers[i].HandOver()
		s.http2[i].Drain()
	})
	for _, l := range s.listeners {
		l.handOver(s, limit/2, to.left)
	}
	closed := make(chan struct{})
	old := s.admin
	s.admin = nil
	go func() { // it may be answering the request that asked for this
		defer close(closed)
		if old != nil {
			old.leave()
		}
	}()
	return func() {
		<-closed
		if to.gone {
			return
		}
		parts, err := s.lastCounters()
		if err == nil {
			err = to.pair.Last(parts)
		}
		if err != nil {
			s.log.Warn("the last counters are lost", "error", err)
		}
	}
}

// report tells the process that has taken over how far this one is. That it is gone is told once.
func (s *Server) report(to *successor, since, until time.Time) {
	err := to.pair.Report(handover.Report{Connections: s.openConnections(), Exchanges: s.exchanges(), Since: since, Until: until})
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		to.gone = true
		s.log.Error("the process that has taken over has ended", "pid", to.pid)
	} else if err != nil {
		s.log.Error("the process that has taken over does not hear", "pid", to.pid, "error", err)
	}
}

// busy says whether a connection or an exchange is left.
func (s *Server) busy() bool { return s.exchanges() > 0 || s.openConnections() > 0 }

func (s *Server) exchanges() (active int) {
	onEach(s.loops, func(i int) { active += s.workers[i].Active() })
	return active
}

func (s *Server) openConnections() (n int) {
	for _, l := range s.listeners {
		n += l.caps.Open()
	}
	return n
}
