package server

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

const (
	// drainPoll is how often a draining server looks whether it is done.
	drainPoll = 20 * time.Millisecond
	// reportEvery is how often it tells the process that has taken over how far it is; and how often it looks while nothing but tunnels
	// is left, which may be for hours.
	reportEvery = 500 * time.Millisecond
	// cutPatience is how long what is cut off may take to end.
	cutPatience = 100 * time.Millisecond
)

// drain is how far the end of a server is. It belongs to the server's goroutine.
type drain struct {
	s        *Server
	to       *successor // nil: the gateway stops
	limit    config.Drain
	since    time.Time
	deadline *time.Timer
	tick     *time.Ticker
	reported time.Time
	stops    int  // signals to stop that end it at once, when so many have come
	tunnels  bool // the time for the rest is over: tunnels are all that is waited for
}

// drain stops accepting, lets what is under way end, and returns when nothing is left or the configured time is up. A
// second signal to stop ends it at once. to is the process that accepts instead, for which tunnels may have longer than the rest; nil: the
// gateway stops. A process that is told to stop has no longer for them either, whoever accepts.
func (s *Server) drain(signals <-chan os.Signal, to *successor) {
	d := &drain{s: s, to: to, limit: s.state.Load().compiled.Config.Drain, since: time.Now(), stops: 1}
	s.draining.Store(true)
	s.registry.RestCanaries()
	if to == nil {
		d.limit.Tunnels = d.limit.Time
		s.log.Info("draining", "for at most", d.limit.Time)
		s.tellDraining(d.limit.Time)
		s.end()
	} else {
		d.stops = 2 // the service may be stopped meanwhile
		s.log.Info("draining", "for at most", d.limit.Time, "tunnels", d.limit.Tunnels)
		defer s.handOver(to, d.limit.Time)()
	}
	d.deadline, d.tick = time.NewTimer(d.limit.Time), time.NewTicker(drainPoll)
	defer d.deadline.Stop()
	defer d.tick.Stop()
	if d.wait(signals) {
		s.log.Info("drained")
		return
	}
	s.cut()
}

// wait returns true when nothing is left, or false when what is left is to end now, which it has said.
func (d *drain) wait(signals <-chan os.Signal) bool {
	s := d.s
	for d.busy() {
		if d.orphaned() {
			s.log.Warn("drain cut short, so that systemd sees that the service has ended", "connections", s.openConnections())
			return false
		}
		select {
		case <-d.tick.C:
			if d.to == nil {
				s.tellDraining(d.limit.Time - time.Since(d.since))
			}
		case <-d.deadline.C:
			if d.over() {
				return false
			}
		case sig := <-signals:
			switch {
			case sig == syscall.SIGUSR1:
				s.reopen()
			case isStop(sig) && d.stop():
				return false
			}
		case done := <-s.reloads:
			done <- s.cannot(d.to)
		case r := <-s.upgrades:
			r.done <- s.cannot(d.to)
		}
	}
	return true
}

// busy says whether something is left that is waited for.
func (d *drain) busy() bool {
	if d.tunnels {
		return d.s.tunnels() > 0
	}
	return d.s.busy() || d.s.before.alive()
}

// over is called when a time is up, and says whether it was the last: else all but tunnels is ended, and they go on.
func (d *drain) over() bool {
	s := d.s
	left := s.tunnels()
	switch {
	case d.tunnels:
		s.log.Warn("drain ended: the time for tunnels is over", "tunnels", left)
		return true
	case left == 0 || d.limit.Tunnels <= d.limit.Time:
		s.log.Warn("drain ended with open connections", "connections", s.openConnections())
		return true
	}
	before := s.openConnections()
	d.tunnels = true
	s.registry.RestUpstreams()
	onEach(s.loops, func(i int) { listen.KeepTunnels(s.loops[i]) })
	s.log.Info("drained, but for tunnels", "tunnels", left, "for at most", time.Until(d.until(left)).Round(time.Millisecond),
		"connections closed", before-s.openConnections())
	d.deadline.Reset(time.Until(d.until(left)))
	d.tick.Reset(reportEvery)
	return false
}

// stop takes a signal to stop, and says whether that ends the drain now.
func (d *drain) stop() bool {
	s := d.s
	s.before.stop()
	if d.stops--; d.stops == 0 {
		s.log.Warn("drain cut short by a second signal", "connections", s.openConnections())
		return true
	}
	d.limit.Tunnels = d.limit.Time
	if d.tunnels {
		s.log.Warn("told to stop: open tunnels end", "tunnels", s.tunnels())
		return true
	}
	s.log.Info("told to stop: the drain goes on", "for at most", time.Until(d.since.Add(d.limit.Time)).Round(time.Millisecond))
	return false
}

// until is when it ends at the latest, with so many tunnels open.
func (d *drain) until(tunnels int) time.Time {
	if tunnels > 0 {
		return d.since.Add(d.limit.Tunnels)
	}
	return d.since.Add(d.limit.Time)
}

// orphaned reports, now and then, to the process that has taken over, and says whether that has ended and this one must, too.
func (d *drain) orphaned() bool {
	s, to := d.s, d.to
	if to == nil || to.gone || time.Since(d.reported) < reportEvery {
		return false
	}
	d.reported = time.Now()
	r := handover.Report{Connections: s.openConnections(), Exchanges: s.exchanges(), Tunnels: s.tunnels(), Since: d.since}
	r.Until = d.until(r.Tunnels)
	s.report(to, r)
	return to.gone && s.service.Notified()
}

// cut closes what is left, and gives it a moment to end: an exchange that does is in the access log and the last counters.
func (s *Server) cut() {
	onEach(s.loops, func(i int) { listen.CloseAll(s.loops[i]) })
	for until := time.Now().Add(cutPatience); s.exchanges() > 0 && time.Now().Before(until); {
		time.Sleep(time.Millisecond) // the loops work on it
	}
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
	s.leaveFiles()
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
func (s *Server) report(to *successor, r handover.Report) {
	err := to.pair.Report(r)
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

// tunnels is the number of open tunnels, passages among them.
func (s *Server) tunnels() (n int) {
	onEach(s.loops, func(i int) { n += s.workers[i].Tunnels() })
	return n
}

func (s *Server) openConnections() (n int) {
	for _, l := range s.listeners {
		n += l.caps.Open()
	}
	return n
}
