package server

import (
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/tuning"
)

// failureReason is why a reload was refused or an upgrade failed, as metrics and the status name it.
type failureReason uint8

const (
	failedOther          failureReason = iota
	failedConfig                       // what the file says is wrong
	failedCertificate                  // a certificate, key, authority or revocation list cannot be read or used
	failedBindInUse                    // somebody else listens there
	failedBindPermission               // the gateway may not listen there
	failedBindAddress                  // the host does not have the address
	failedBind                         // it cannot be listened on for another reason, such as a folder that is not there
	failedDescriptors                  // the process or the host has no descriptor left
	failedSocketOption                 // the kernel refuses one that is required
	failedProcessors                   // the process cannot be pinned to them
	failedLog                          // a log cannot be opened
	// Of upgrades alone from here on.
	failedBusy       // another one is under way, or the process before has not ended
	failedBinary     // it is not there, cannot be run, or is another program
	failedNewProcess // it ended without a word, or was not ready in time
	failedStopped    // the gateway stopped meanwhile
	failureReasons
)

func (r failureReason) String() string {
	return [...]string{"other", "config", "certificate", "bind_in_use", "bind_permission", "bind_address", "bind", "descriptors",
		"socket_option", "processors", "log", "busy", "binary", "new_process", "stopped"}[r]
}

// failureReasonNamed is the reason that another version calls so; failedOther where this one does not know it.
func failureReasonNamed(name string) failureReason {
	for r := range failureReasons {
		if r.String() == name {
			return r
		}
	}
	return failedOther
}

// failure is an error with its reason. It reads as the error does.
type failure struct {
	error
	reason failureReason
}

func (f *failure) Unwrap() error { return f.error }

// because gives err a reason, unless one that is closer to the cause is known; nil stays nil.
func because(r failureReason, err error) error {
	if err == nil || reasonOf(err) != failedOther {
		return err
	}
	return &failure{err, r}
}

// becauseBind is because for an address that cannot be listened on.
func becauseBind(err error) error {
	of := func(all ...error) bool {
		return slices.ContainsFunc(all, func(one error) bool { return errors.Is(err, one) })
	}
	var option tuning.Refusal
	switch {
	case errors.As(err, &option): // before what the kernel said of it
		return because(failedSocketOption, err)
	case of(unix.EADDRINUSE):
		return because(failedBindInUse, err)
	case of(unix.EACCES, unix.EPERM, unix.EROFS):
		return because(failedBindPermission, err)
	case of(unix.EADDRNOTAVAIL):
		return because(failedBindAddress, err)
	}
	return because(failedBind, err)
}

// reasonOf finds the reason of an error.
func reasonOf(err error) failureReason {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.reason
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE): // whatever needed one
		return failedDescriptors
	case errors.Is(err, compile.ErrCertificate):
		return failedCertificate
	}
	return failedOther
}

// failures counts what a host has kept the gateway from. Any goroutine may add.
type failures struct {
	reloads  [failedBusy]atomic.Uint64
	upgrades [failureReasons]atomic.Uint64
	upgraded atomic.Uint64 // upgrades that did not fail: to this process's successor
	stale    [2]atomic.Uint64
}

// The owners of files of unix sockets that a process has left that was killed.
const (
	staleAdmin = iota
	staleListener
)

func (f *failures) collect(sink *observe.Sink) {
	for r := range f.reloads {
		sink.Counter("sluice_reload_failures_total", "Reloads that were refused, by why.", float64(f.reloads[r].Load()), "reason", failureReason(r).String())
	}
	failed := uint64(0)
	for r := range f.upgrades {
		n := f.upgrades[r].Load()
		failed += n
		sink.Counter("sluice_upgrade_failures_total", "Upgrades that failed, by why.", float64(n), "reason", failureReason(r).String())
	}
	const upgrades = "Upgrades that were asked for, by result."
	sink.Counter("sluice_upgrades_total", upgrades, float64(f.upgraded.Load()), "result", "done")
	sink.Counter("sluice_upgrades_total", upgrades, float64(failed), "result", "failed")
	const stale = "Files of unix sockets that a process has left that was killed, and that were replaced."
	sink.Counter("sluice_stale_sockets_total", stale, float64(f.stale[staleAdmin].Load()), "of", "admin")
	sink.Counter("sluice_stale_sockets_total", stale, float64(f.stale[staleListener].Load()), "of", "listener")
}
