package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// errUpgrading is the answer to who wants to change what is being handed over.
var errUpgrading = errors.New("an upgrade is under way")

// upgradeRequest is a wish of the admin API.
type upgradeRequest struct {
	binary string // "": what this process was started from
	hurry  bool   // the process before, if it still drains, ends first
	done   chan error
}

// attempt is an upgrade that is under way. It belongs to the server's goroutine.
type attempt struct {
	asked  chan error // who waits for the outcome; nil: nobody
	cancel context.CancelFunc
	reload bool // SIGHUP came meanwhile
}

// successor is the process that has taken over.
type successor struct {
	pair    *handover.Pair
	pid     int
	version string
	left    map[string]bool // names of sockets that it does not use
	gone    bool            // it has ended before us, as far as we know
}

// upgradeEnd is what an attempt came to: a successor or an error.
type upgradeEnd struct {
	to  *successor
	err error
}

// beginUpgrade starts an upgrade beside what serves. Its end comes over s.upgraded.
func (s *Server) beginUpgrade(r upgradeRequest) {
	if err := s.mayUpgrade(r.hurry); err != nil {
		s.failures.upgrades[failedBusy].Add(1)
		s.log.Error("cannot upgrade", "reason", failedBusy, "error", err)
		if r.done != nil {
			r.done <- err
		}
		return
	}
	binary := r.binary
	if binary == "" {
		binary = s.options.Upgrade.Binary
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.upgrading = &attempt{asked: r.done, cancel: cancel}
	s.lastUpgrade.Store(&admin.UpgradeStatus{At: time.Now(), UnderWay: true})
	s.log.Info("upgrading", "binary", binary)
	if s.before.alive() {
		s.log.Info("the process before is told to end its tunnels, and waited for", "pid", s.before.hello.PID)
		s.before.hurry()
	}
	limit := s.state.Load().compiled.Config.Drain.Time + hurryPatience
	go func() {
		var to *successor
		err := because(failedBusy, s.before.ended(ctx, limit))
		if err == nil {
			to, err = s.replace(ctx, binary)
		}
		if err != nil && ctx.Err() != nil {
			err = &failure{err, failedStopped}
		}
		s.upgraded <- upgradeEnd{to, err}
	}()
}

// hurryPatience is how much longer than a drain's time the end of a process before is waited for that has been told to hurry.
const hurryPatience = 5 * time.Second

func (s *Server) mayUpgrade(hurry bool) error {
	switch {
	case s.options.Upgrade == nil:
		return errors.New("this process cannot be replaced: it was not started by sluice run")
	case s.upgrading != nil:
		return errUpgrading
	case s.before.alive() && !hurry:
		return errors.New(s.before.draining())
	}
	return nil
}

// endUpgrade says whether another process serves now.
func (s *Server) endUpgrade(end upgradeEnd) bool {
	a := s.upgrading
	a.cancel()
	s.upgrading = nil
	status := &admin.UpgradeStatus{At: time.Now()}
	if end.err != nil {
		reason := reasonOf(end.err)
		s.failures.upgrades[reason].Add(1)
		status.Error, status.Reason = end.err.Error(), reason.String()
		s.log.Error("upgrade failed: this process goes on", "reason", reason, "error", end.err)
	} else {
		s.failures.upgraded.Add(1)
		s.log.Info("upgraded: this process drains", "pid", end.to.pid, "version", end.to.version)
	}
	s.lastUpgrade.Store(status)
	if end.err == nil {
		s.resign(end.to)
	}
	if end.err == nil && s.admin != nil { // whoever asks from now on is answered by the other process
		admin.Own(s.admin.listener, end.to.left[adminSocketName(s.admin.bind)])
		_ = s.admin.listener.Close()
	}
	if a.asked != nil {
		a.asked <- end.err
	}
	if a.reload && end.err == nil {
		signalProcess(end.to.pid, syscall.SIGHUP) // it may have read the configuration before
	} else if a.reload {
		_ = s.reload()
	}
	return end.err == nil
}

func signalProcess(pid int, sig os.Signal) {
	if p, err := os.FindProcess(pid); err == nil && pid > 1 {
		_ = p.Signal(sig)
	}
}

// stopUpgrade ends an attempt for good, because the gateway stops. If it has succeeded in this moment the other process is told.
func (s *Server) stopUpgrade() (to *successor) {
	if s.upgrading == nil {
		return nil
	}
	s.upgrading.cancel()
	s.options.Upgrade.Upgrader.Stop()
	end := <-s.upgraded
	s.upgrading.reload = false
	if s.endUpgrade(end) {
		signalProcess(end.to.pid, syscall.SIGTERM)
	}
	return end.to
}

// replace has binary take over. It runs beside the server's goroutine, which changes nothing of what is handed over meanwhile.
func (s *Server) replace(ctx context.Context, binary string) (*successor, error) {
	version, err := verify(ctx, binary, s.options.ConfigFile)
	if err != nil {
		return nil, err
	}
	u := s.options.Upgrade
	if err := u.Pair.Flush(); err != nil {
		return nil, err
	}
	u.Pair.Again()
	to := &successor{pair: u.Pair, version: version}
	type offered struct {
		handover.Answer
		err error
	}
	offer := make(chan offered, 1)
	go func() {
		a, err := u.Pair.Offer(s.give)
		offer <- offered{a, err}
	}()
	err = u.Upgrader.Upgrade(binary, s.service.Successor())
	u.Pair.Recall()
	got := <-offer
	switch {
	case err == nil && !got.Taken:
		// It is ready, so that it has taken over; without its word nothing is left to us.
		s.log.Error("the new process says nothing", "error", got.err)
	case err != nil && got.Failed != "":
		err = because(failureReasonNamed(got.Reason), fmt.Errorf("the new process, version %s, gave up: %s", version, got.Failed))
	case err != nil && got.err != nil:
		err = because(failedNewProcess, fmt.Errorf("the new process, version %s, does not serve: %w: %w", version, err, got.err))
	case err != nil:
		err = because(failedNewProcess, fmt.Errorf("the new process, version %s, does not serve: %w; what it says is in its standard error", version, err))
	}
	if err != nil {
		runtime.GC() // tableflip leaves the pipes of a process that failed to the collector
		// A process that was killed may have left descriptors on the way: nobody may keep them.
		return nil, errors.Join(err, u.Pair.Flush())
	}
	u.Pair.CloseTheirs()
	to.pid, to.left = got.Hello.PID, got.Left
	return to, nil
}

// give gathers what the new process gets.
func (s *Server) give() (g handover.Give, err error) {
	now := s.state.Load()
	g.Hello = handover.Hello{PID: os.Getpid(), Version: s.options.Version, Process: s.life.Upgrades + 1,
		Generation: now.compiled.Snapshot.Generation, Started: s.began}
	if g.Sockets, err = s.copySockets(now.listeners, socketName); err != nil {
		return g, err
	}
	if s.admin != nil {
		fd, err := admin.Copy(s.admin.listener)
		if err != nil {
			return g, err
		}
		g.Sockets = append(g.Sockets, handover.Socket{Name: adminSocketName(s.admin.bind), FD: fd})
	}
	g.Parts = s.exportState(now.compiled)
	return g, nil
}

// copySockets copies the listening sockets, which only their loops may touch, under the names that name gives.
func (s *Server) copySockets(listeners []*listener, name func(listener string, b bound, shard int) string) (all []handover.Socket, err error) {
	type bind struct {
		listener string
		bound
	}
	binds := map[*listen.Sockets]bind{}
	for _, l := range listeners {
		for _, b := range l.binds {
			binds[b.sockets] = bind{l.name, b}
		}
	}
	for i, l := range s.loops {
		got, err := copyOn(l, func(add func(handover.Socket)) error {
			for _, l := range listeners {
				err := l.ports[i].Copy(func(of *listen.Sockets, shard, fd int) {
					b := binds[of]
					add(handover.Socket{Name: name(b.listener, b.bound, shard), FD: fd})
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		all = append(all, got...)
		if err != nil {
			handover.CloseAll(all)
			return nil, fmt.Errorf("cannot copy the sockets of loop %d: %w", i, err)
		}
	}
	return all, nil
}

// copyOn runs f on a loop. What a loop that was given up on copies later is closed again.
func copyOn(l *loop.Loop, f func(add func(handover.Socket)) error) (all []handover.Socket, err error) {
	var settled atomic.Bool // by whoever comes first: the loop with its copies, or the wait with its end
	var copies []handover.Socket
	var failed error
	late := l.Do(loopPatience, func() {
		failed = f(func(s handover.Socket) { copies = append(copies, s) })
		if !settled.CompareAndSwap(false, true) {
			handover.CloseAll(copies)
		}
	})
	if late != nil && settled.CompareAndSwap(false, true) {
		return nil, late
	}
	return copies, failed
}

// askUpgrade has the server's goroutine upgrade, and waits for the end.
func (s *Server) askUpgrade(binary string, hurry bool) error {
	r := upgradeRequest{binary, hurry, make(chan error, 1)}
	select {
	case s.upgrades <- r:
		return <-r.done
	case <-time.After(loopPatience):
		return errors.New("the gateway is busy")
	}
}
