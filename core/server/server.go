// Package server puts the gateway together: loops, listeners, configuration, logs and the admin API; and takes it through
// its life: start, reload, drain.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/http1"
	"github.com/sluice-gateway/sluice/core/http2"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/systemd"
	"github.com/sluice-gateway/sluice/tuning"
)

// Options are what the command line says.
type Options struct {
	ConfigFile      string
	Version, Commit string
	Stderr          io.Writer
	Upgrade         *Upgrade            // nil: the process can be ended, but not replaced
	Systemd         systemd.Environment // zero: the process's
	Usage           func() tuning.Usage // of memory; nil: the process's and its cgroup's
}

// ErrRefused says that the configuration was refused; its problems have been printed.
var ErrRefused = errors.New("the configuration is refused")

// watchdogInterval is how often the watchdog looks at the loops.
const watchdogInterval = 250 * time.Millisecond

// Server is a running gateway. Its goroutine is that of Run; others read what is atomic.
type Server struct {
	options  Options
	errorLog *observe.ErrorLog
	log      *slog.Logger
	observer *observe.Observer
	loops    []*loop.Loop
	workers  []*core.Worker
	http1    []*http1.Server // by loop
	http2    []*http2.Server // likewise
	gateway  *core.Gateway
	registry *compile.Registry
	watchdog *loop.Watchdog
	service  service
	fitted   fitted
	pinning  pinning
	secrets  secrets
	life     life
	began    time.Time // this process

	listeners []*listener
	accessLog config.AccessLog
	admin     *adminServer

	state      atomic.Pointer[state]
	lastReload atomic.Pointer[admin.ReloadStatus]
	draining   atomic.Bool
	checked    atomic.Bool     // no endpoint waits for its first check, or none did once: what a reload adds does not count
	reloads    chan chan error // asked for by the admin API

	before      *predecessor // nil: there was none
	following   sync.WaitGroup
	upgrades    chan upgradeRequest // asked for by the admin API
	upgrading   *attempt
	upgraded    chan upgradeEnd
	lastUpgrade atomic.Pointer[admin.UpgradeStatus]
	failures    failures
	handed      observe.Totals // when a process that is to take over was last given everything
}

// state is what is in force, for those who look from other goroutines. Immutable.
type state struct {
	compiled  *compile.Compiled
	listeners []*listener
}

// Run serves the configuration file until SIGTERM or SIGINT, or another process takes over, and returns when all is drained.
// SIGHUP reloads, SIGUSR1 reopens the access log, SIGUSR2 has the binary that stands in the own one's place take over.
func Run(o Options) error {
	before, err := takeOver(&o)
	if err == nil {
		err = serve(o, before)
	}
	return err
}

// serve is Run after the process before, if there is one, has handed over.
func serve(o Options, before *predecessor) error {
	began := time.Now()
	s := &Server{options: o, before: before, began: began, life: life{Started: began}, reloads: make(chan chan error),
		upgrades: make(chan upgradeRequest), upgraded: make(chan upgradeEnd, 1),
		secrets: secrets{changed: make(chan *loaded), again: make(chan struct{}, 1)}}
	l := s.secrets.vaults.load(context.Background(), o.ConfigFile)
	cfg, problems := l.cfg, l.problems
	if len(problems) > 0 {
		_, _ = problems.WriteTo(o.Stderr)
	}
	if cfg == nil {
		before.failed(because(failedConfig, fmt.Errorf("%w: %s", ErrRefused, problems)))
		s.secrets.end()
		return ErrRefused
	}
	// Who has asked for SIGPIPE is not ended by it: that the reader of a log is gone is an error of that write. Nobody need hear it.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	defer s.close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := s.begin(cfg); err != nil {
		before.failed(err)
		return err
	}
	if s.admin != nil {
		s.admin.start(s.log)
	}
	s.secrets.put(l)
	s.watchSecrets()
	s.log.Info("serving", "config", o.ConfigFile, "loops", len(s.loops), "version", o.Version, "pid", os.Getpid())
	s.serve(signals)
	return nil
}

// begin starts all, until this process is the one that serves.
func (s *Server) begin(cfg *config.Config) error {
	if err := s.openService(); err != nil {
		return err
	}
	err := s.start(cfg)
	if err == nil {
		err = s.succeed()
	}
	if err != nil && s.before == nil {
		err = errors.Join(err, s.service.Status("cannot start: "+err.Error()))
	}
	return err
}

// serve answers signals and the admin API until the gateway is to stop, and drains it.
func (s *Server) serve(signals <-chan os.Signal) {
	replaced := s.before.replaced()
	for {
		select {
		case <-replaced:
			replaced = nil
			s.storeAgain()
			s.tend()
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				if s.upgrading != nil {
					s.upgrading.reload = true // afterwards, by whoever serves then
					continue
				}
				_ = s.reload()
			case syscall.SIGUSR2:
				s.beginUpgrade(upgradeRequest{})
			case syscall.SIGUSR1:
				s.reopen()
			default:
				s.before.stop()
				s.drain(signals, s.stopUpgrade())
				return
			}
		case done := <-s.reloads:
			if s.upgrading != nil {
				done <- errUpgrading
				continue
			}
			done <- s.reload()
		case l := <-s.secrets.changed:
			s.takeSecrets(l)
		case r := <-s.upgrades:
			s.beginUpgrade(r)
		case end := <-s.upgraded:
			if s.endUpgrade(end) {
				s.drain(signals, end.to)
				return
			}
		}
	}
}

// start brings everything up; what fails leaves nothing behind but what close ends.
func (s *Server) start(cfg *config.Config) (err error) {
	if s.errorLog, err = observe.NewErrorLog(cfg.Log.Level, cfg.Log.Format, s.options.Stderr); err != nil {
		return because(failedLog, err)
	}
	s.log = s.errorLog.Logger()
	if err := s.pinFirst(cfg.Tuning); err != nil {
		return because(failedProcessors, err)
	}
	s.tune(cfg.Tuning, true)
	if err := s.makeLoops(cfg); err != nil {
		return err
	}
	if err := s.checkSockets(cfg); err != nil {
		return err
	}
	if s.before != nil {
		s.takeSeed(s.before.parts)
	}
	compiled, err := s.registry.CompileFirst(cfg)
	if err != nil {
		return because(failedConfig, err)
	}
	accessLog, _, err := s.openAccessLog(cfg.AccessLog)
	if err != nil {
		return err
	}
	s.setAccessLog(cfg.AccessLog, accessLog)
	if s.before != nil {
		if s.before.problem != nil {
			s.log.Warn("state of the process before is incomplete", "error", s.before.problem)
		}
		s.restoreState(compiled, s.before.parts)
		s.before.parts = nil
	}
	next, err := s.openListeners(compiled, true)
	if err != nil {
		return err
	}
	api, err := s.openAdmin(cfg.Admin.Bind)
	if err != nil {
		next.abandon()
		return err
	}
	s.setAdmin(api, true)
	if err := next.listen(); err != nil {
		next.abandon()
		return err
	}
	for _, l := range s.loops {
		l.Start()
	}
	s.watchdog = loop.Watch(s.loops, watchdogInterval, s.log)
	s.apply(compiled, next)
	s.watchMemory()
	if s.before == nil {
		s.ownFiles()
		s.tend()
	}
	return nil
}

// makeLoops makes the loops and what each has of the gateway. Awaited work has a processor beside them: see divide.
func (s *Server) makeLoops(cfg *config.Config) error {
	n, processors := s.pinning.divide(cfg.Loops, runtime.GOMAXPROCS(0))
	s.runOn(n, processors)
	s.observer = observe.New(observe.Options{Loops: n, Version: s.options.Version, Commit: s.options.Commit, Log: s.errorLog})
	for i := range n {
		l, err := loop.New(loop.Options{Index: i, Log: s.log, Late: s.observer.Late(i), Panicked: s.observer.Panicked(i)})
		if err != nil {
			return err
		}
		l.BusyPoll(cfg.Tuning.BusyPolling)
		s.loops = append(s.loops, l)
	}
	s.observer.Attach(s.loops)
	s.gateway = core.NewGateway(&core.Snapshot{}, s.observer)
	for _, l := range s.loops {
		w := s.gateway.NewWorker(l)
		s.workers = append(s.workers, w)
		s.http1 = append(s.http1, http1.NewServer(w))
		s.http2 = append(s.http2, http2.NewServer(w))
	}
	s.registry = compile.NewRegistry(s.workers, s.observer.Registry(), s.log)
	s.collect()
	return nil
}

// openAccessLog opens the access log that c names; nil: there is none. changed: it is not the one that there is.
func (s *Server) openAccessLog(c config.AccessLog) (a *observe.AccessLog, changed bool, err error) {
	if c == s.accessLog {
		return nil, false, nil
	}
	if c.To != "" {
		if a, err = observe.OpenAccessLog(logSpec(c), len(s.loops), s.log); err != nil {
			return nil, false, because(failedLog, err)
		}
	}
	return a, true, nil
}

// setAccessLog puts what openAccessLog has opened for c in the place of what there was, whose last lines are lost if nobody takes them.
func (s *Server) setAccessLog(c config.AccessLog, a *observe.AccessLog) {
	s.accessLog = c
	if err := s.observer.SetAccessLog(a); err != nil {
		s.log.Warn("the access log before is left with lines that are not written", "error", err)
	}
}

func logSpec(c config.AccessLog) observe.LogSpec {
	spec := observe.LogSpec{To: c.To, Sample: c.Sample, Queue: c.Queue, ByStatus: map[int]float64{}}
	for _, s := range c.ByStatus {
		if s.Status > 0 {
			spec.ByStatus[s.Status] = s.Share
		}
	}
	return spec
}

// reopen opens the access log anew, also in the process before, whose exchanges are written to the same file.
func (s *Server) reopen() {
	if err := s.observer.ReopenAccessLog(); err != nil {
		s.log.Error("cannot reopen the access log", "error", err)
	}
	if s.before.alive() {
		_ = s.before.process.Signal(syscall.SIGUSR1)
	}
}

// apply puts a compiled configuration in force. It cannot fail.
func (s *Server) apply(c *compile.Compiled, next *opened) {
	s.registry.Apply(c)
	onEach(s.loops, func(int) {}) // every loop has its endpoints before a request can ask for them
	s.gateway.Switch(c.Snapshot)
	s.listeners = next.take(s)
	s.state.Store(&state{compiled: c, listeners: s.listeners})
}

// close ends what runs, in the reverse of start.
func (s *Server) close() {
	s.secrets.end()
	s.endService()
	s.endTuning()
	if s.registry != nil {
		s.registry.Close()
	}
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	if s.observer != nil {
		_ = s.observer.SetAccessLog(nil)
	}
	for _, l := range s.loops {
		if err := l.Stop(); err != nil {
			s.log.Error("event loop ended", "loop", l.Index(), "error", err)
		}
	}
	s.admin.close()
	if s.before != nil {
		s.before.taker.Close()
		s.following.Wait()
	}
	if s.errorLog != nil {
		_ = s.errorLog.Close()
	}
}

// reload puts the configuration file in force, or keeps what is. The error says why it was refused.
func (s *Server) reload() error { return s.change(s.tryReload) }

// change tells everybody of a reload.
func (s *Server) change(try func() error) error {
	over := s.tellReloading()
	err := try()
	status := &admin.ReloadStatus{At: time.Now(), Applied: err == nil}
	s.observer.Reloaded(err == nil)
	if err != nil {
		reason := reasonOf(err)
		s.failures.reloads[min(reason, failedBusy-1)].Add(1)
		status.Error, status.Reason = err.Error(), reason.String()
		s.log.Error("configuration refused: the old one stays in force", "config", s.options.ConfigFile, "reason", reason, "error", err)
	} else {
		c := s.state.Load().compiled
		s.log.Info("configuration applied", "config", s.options.ConfigFile, "generation", c.Snapshot.Generation,
			"listeners", len(c.Listeners), "routes", len(c.Snapshot.Routes), "upstreams", len(c.Upstreams))
	}
	s.lastReload.Store(status)
	over()
	return err
}

func (s *Server) tryReload() error {
	l := s.secrets.vaults.load(context.Background(), s.options.ConfigFile)
	if l.cfg == nil {
		return because(failedConfig, fmt.Errorf("%d problems:\n%s", len(l.problems), l.problems))
	}
	for _, p := range l.problems {
		s.log.Warn("configuration", "problem", p.String())
	}
	return s.put(l)
}

// put puts what was read in force, or keeps what is: all that may be refused is done before the first change.
func (s *Server) put(l *loaded) error {
	cfg := l.cfg
	if n := cfg.Loops; n != 0 && n != len(s.loops) {
		s.log.Warn("the number of loops changes with the next start", "now", len(s.loops), "configured", n)
	}
	if err := s.pinning.may(cfg.Tuning); err != nil {
		return because(failedProcessors, err)
	}
	if err := s.checkSockets(cfg); err != nil {
		return err
	}
	compiled, err := s.registry.Compile(cfg)
	if err != nil {
		return because(failedConfig, err)
	}
	next, err := s.openListeners(compiled, false)
	if err != nil {
		return err
	}
	api, err := s.openAdmin(cfg.Admin.Bind)
	if err != nil {
		next.abandon()
		return err
	}
	accessLog, relog, err := s.openAccessLog(cfg.AccessLog)
	if err != nil {
		s.abandonAdmin(api)
		next.abandon()
		return err
	}
	pinned, err := s.pinAgain(cfg)
	if err != nil {
		accessLog.Abandon()
		s.abandonAdmin(api)
		next.abandon()
		return because(failedProcessors, err)
	}
	s.setAdmin(api, false) // from here on nothing is refused
	if relog {
		s.setAccessLog(cfg.AccessLog, accessLog)
	}
	_ = s.errorLog.SetLevel(cfg.Log.Level) // the grammar lets no unknown one through
	s.apply(compiled, next)
	if pinned {
		s.preferAgain()
	}
	s.secrets.put(l)
	s.tune(cfg.Tuning, false)
	return nil
}
