package server

import (
	"os"
	"time"
)

// drainPoll is how often a draining server looks whether it is done.
const drainPoll = 20 * time.Millisecond

// drain stops accepting, lets what is under way end, and returns when nothing is left or the configured time is up. A
// second signal to stop ends it at once.
func (s *Server) drain(signals <-chan os.Signal) {
	limit := s.state.Load().compiled.Config.Drain
	s.draining.Store(true)
	s.log.Info("draining", "for at most", limit)
	until := time.Now().Add(limit)
	s.tellDraining(limit)
	onEach(s.loops, func(i int) {
		s.workers[i].Drain()
		s.http2[i].Drain()
	})
	for _, l := range s.listeners {
		l.drain(s.loops)
		l.closeSockets()
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for s.busy() {
		select {
		case <-tick.C:
			s.tellDraining(time.Until(until))
		case <-deadline.C:
			s.log.Warn("drain ended with open connections", "connections", s.openConnections())
			return
		case sig := <-signals:
			if isStop(sig) {
				s.log.Warn("drain cut short by a second signal", "connections", s.openConnections())
				return
			}
		case done := <-s.reloads:
			done <- errDraining
		}
	}
	s.log.Info("drained")
}

// busy says whether a connection or an exchange is left.
func (s *Server) busy() bool {
	active := 0
	onEach(s.loops, func(i int) { active += s.workers[i].Active() })
	return active > 0 || s.openConnections() > 0
}

func (s *Server) openConnections() (n int) {
	for _, l := range s.listeners {
		n += l.caps.Open()
	}
	return n
}
