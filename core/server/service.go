package server

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/systemd"
)

const (
	// tellEvery is how often systemd is told the status, if it changes; the watchdog may ask for more frequent checks.
	tellEvery = 5 * time.Second
	// readyEvery is how often a starting gateway looks whether it accepts.
	readyEvery = 20 * time.Millisecond
	// checksPerWatchdog is how often the gateway checks itself in the time after which systemd takes it for hung: one check
	// that is late or fails by chance does not end it.
	checksPerWatchdog = 3
	// extendEvery and extendBy keep systemd from ending a drain that is longer than the unit allows: systemd must hear of it
	// within extendBy, which leaves room for loops that are held up.
	extendEvery = 5 * time.Second
	extendBy    = 30 * time.Second
	// barrierPatience is how long a start waits for systemd to close sockets.
	barrierPatience = 2 * time.Second
)

// service is the gateway as systemd sees it. The zero value, without a systemd.Service, tells nobody.
type service struct {
	*systemd.Service
	passed map[bindKey][]systemd.Socket // at the start, by who uses them; nil afterwards

	ready    atomic.Bool // systemd knows that the gateway serves, or is about to be told
	extended time.Time   // when a drain was last told
	stop     chan struct{}
	done     sync.WaitGroup
}

// openService reads what systemd passed.
func (s *Server) openService() (err error) {
	env := s.options.Systemd
	if env.Lookup == nil {
		env = systemd.ProcessEnvironment()
	}
	s.service.Service, err = systemd.Open(env)
	return err
}

// tend tells systemd how the gateway fares until close, on a goroutine of its own: a reload that takes long is no hang. Ready
// is told when all listeners accept, and the watchdog only after a check that found the gateway well.
func (s *Server) tend() {
	if !s.service.Notified() {
		return
	}
	s.service.stop = make(chan struct{})
	s.service.done.Add(1)
	go func() {
		defer s.service.done.Done()
		every := tellEvery
		if w := s.service.Watchdog(); w > 0 {
			every = min(every, w/checksPerWatchdog)
		}
		t := &tending{s: s, patience: min(every, loopPatience), check: selfCheck{loops: s.loops}}
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-s.service.stop:
				return
			case <-timer.C:
			}
			t.turn()
			if s.service.ready.Load() {
				timer.Reset(every)
			} else {
				timer.Reset(readyEvery)
			}
		}
	}()
}

// endService ends what tend began.
func (s *Server) endService() {
	if s.service.stop != nil {
		close(s.service.stop)
		s.service.done.Wait()
		s.service.stop = nil
	}
	for _, sockets := range s.service.passed { // of a start that failed
		for _, socket := range sockets {
			socket.Close()
		}
	}
}

// tending is what tend's goroutine has between its turns.
type tending struct {
	s        *Server
	patience time.Duration
	check    selfCheck
	failed   bool // the last check
	mute     bool // systemd could not be told
	rate     requestRate
	status   string
	told     time.Time
}

func (t *tending) turn() {
	service := &t.s.service
	err := t.check.run(t.s.state.Load().listeners, t.patience)
	if err != nil && !t.failed && service.ready.Load() {
		t.s.log.Error("self-check failed: until one succeeds the watchdog is not told", "error", err)
	}
	t.failed = err != nil
	switch {
	case err != nil:
		return
	case !service.ready.Load():
		if t.s.draining.Load() {
			return // it would take back that the gateway stops
		}
		t.told = time.Now()
		t.tell(func() error {
			t.rate.start(t.s)
			service.ready.Store(true) // before systemd hears of it, whose reload may follow at once
			err := service.Ready(t.s.statusLine(""))
			if err != nil {
				service.ready.Store(false)
			}
			return err
		})
	case service.Watchdog() > 0:
		t.tell(service.Alive)
	}
	if now := time.Now(); now.Sub(t.told) >= tellEvery && !t.s.draining.Load() {
		t.told = now
		if line := t.s.statusLine(t.rate.text(t.s, now)); line != t.status {
			t.status = line
			t.tell(func() error { return service.Status(line) })
		}
	}
}

// tell reports the first of failures in a row.
func (t *tending) tell(f func() error) {
	err := f()
	if err != nil && !t.mute {
		t.s.log.Error("systemd is not told", "error", err)
	}
	t.mute = err != nil
}

// statusLine is what `systemctl status` shows.
func (s *Server) statusLine(rate string) string {
	now := s.state.Load()
	line := count(len(now.listeners), "listener") + ", " + count(len(now.compiled.Snapshot.Routes), "route") + ", " +
		count(s.connections(now), "connection") + rate
	if r := s.lastReload.Load(); r != nil {
		if r.Applied {
			line += "; reloaded " + r.At.Format(time.TimeOnly)
		} else {
			line += "; reload refused " + r.At.Format(time.TimeOnly) + ", the configuration before it is in force"
		}
	}
	return line
}

// connections is the number of open connections; unlike openConnections it may be asked from anywhere.
func (s *Server) connections(now *state) (n int) {
	for _, l := range now.listeners {
		n += l.caps.Open()
	}
	return n
}

// tellReloading is told before a reload, and what it returns after it.
func (s *Server) tellReloading() (over func()) {
	if !s.service.ready.Load() {
		return func() {}
	}
	s.complain(s.service.Reloading())
	return func() { s.complain(s.service.Ready(s.statusLine(""))) }
}

// tellDraining tells, now and then, that a drain goes on, which has so much time left.
func (s *Server) tellDraining(left time.Duration) {
	now := time.Now()
	if now.Sub(s.service.extended) < extendEvery {
		return
	}
	status := fmt.Sprintf("draining: %s, at most %v left", count(s.connections(s.state.Load()), "connection"), left.Round(time.Second))
	if s.service.extended.IsZero() {
		s.complain(s.service.Stopping(status))
	}
	s.service.extended = now
	s.complain(s.service.ExtendTimeout(extendBy, status))
}

func (s *Server) complain(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		s.log.Error("systemd is not told", "error", err)
	}
}

// requestRate is the requests a second between two looks.
type requestRate struct {
	total uint64
	at    time.Time // zero: total is not known
}

func (r *requestRate) start(s *Server) { r.text(s, time.Now()) }

// text is the rate since the last look as part of a status; "" where it is not known.
func (r *requestRate) text(s *Server, now time.Time) (text string) {
	total, ok := s.observer.Requests()
	if took := now.Sub(r.at).Seconds(); ok && !r.at.IsZero() && total >= r.total && took > 0 {
		text = ", " + grouped(int(float64(total-r.total)/took+0.5)) + " req/s"
	}
	if *r = (requestRate{}); ok {
		*r = requestRate{total: total, at: now}
	}
	return text
}

// count is a number of things: "1 route", "1,204 connections".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return grouped(n) + " " + what
}

// grouped writes n >= 0 with a comma between thousands.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
