// Package systemd is the part of a service in systemd's protocols: it tells the service manager how the process fares
// (sd_notify(3)), shows that it lives (sd_watchdog_enabled(3)), takes listening sockets that the manager has opened
// (sd_listen_fds(3)), and leaves sockets with it for the next start (FDSTORE=1). It needs no library of systemd's, and no
// running systemd to be tested.
//
// The folder also holds the unit files that make install puts in place.
package systemd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"
)

// Variables of the protocols. Open unsets all of them.
const (
	notifySocket = "NOTIFY_SOCKET"
	watchdogUsec = "WATCHDOG_USEC"
	watchdogPID  = "WATCHDOG_PID"
	listenFDs    = "LISTEN_FDS"
	listenPID    = "LISTEN_PID"
	listenNames  = "LISTEN_FDNAMES"
	listenPIDFD  = "LISTEN_PIDFDID" // newer systemds set it beside LISTEN_PID
)

// firstFD is the number of the first passed descriptor: SD_LISTEN_FDS_START.
const firstFD = 3

// Environment is what of the process the package depends on.
type Environment struct {
	Lookup  func(name string) (value string, ok bool)
	Unset   func(name string) error
	PID     int
	FirstFD int // of the passed sockets
}

// ProcessEnvironment is that of this process.
func ProcessEnvironment() Environment {
	return Environment{Lookup: os.LookupEnv, Unset: os.Unsetenv, PID: os.Getpid(), FirstFD: firstFD}
}

// Service is this process as a service of systemd's. It is immutable and may be used from anywhere but a loop. Nil is a
// process that systemd did not start: it has nobody to tell, no watchdog and no sockets.
type Service struct {
	address  string // of the manager's socket; "": nobody wants to be told
	watchdog time.Duration
	sockets  []Socket
}

// Open reads what systemd has put into the environment, once: the variables are unset, so that no process that this one
// starts takes them for its own. Those that are meant for another process are not looked at. What is malformed is an error,
// since nothing but a wrong set-up, or somebody else, writes it.
func Open(env Environment) (*Service, error) {
	s := &Service{}
	address, watchdog, err := env.notification()
	if err == nil {
		s.address, s.watchdog = address, watchdog
		s.sockets, err = env.sockets()
	}
	for _, name := range []string{notifySocket, watchdogUsec, watchdogPID, listenFDs, listenPID, listenNames, listenPIDFD} {
		err = errors.Join(err, env.Unset(name))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what systemd passed: %w", err)
	}
	return s, nil
}

// Notified says whether there is somebody to tell.
func (s *Service) Notified() bool { return s != nil && s.address != "" }

// Watchdog is the time within which Alive must be called, again and again, before systemd takes the process for hung; 0:
// it does not watch.
func (s *Service) Watchdog() time.Duration {
	if !s.Notified() {
		return 0
	}
	return s.watchdog
}

// Sockets are those that systemd passed, in its order. Each belongs to whoever uses it; all are closed by exec.
func (s *Service) Sockets() []Socket {
	if s == nil {
		return nil
	}
	return s.sockets
}

// Successor is what the environment of a process must hold that takes this one's place: whom to tell and how often. The
// process ids and sockets that systemd named are not handed on: they are this process's.
func (s *Service) Successor() (environment []string) {
	if !s.Notified() {
		return nil
	}
	environment = append(environment, notifySocket+"="+s.address)
	if s.watchdog > 0 {
		environment = append(environment, watchdogUsec+"="+strconv.FormatInt(s.watchdog.Microseconds(), 10))
	}
	return environment
}

// notification reads whom to tell, and how often.
func (e *Environment) notification() (address string, watchdog time.Duration, err error) {
	if address, _ = e.Lookup(notifySocket); address != "" {
		if err := checkAddress(address); err != nil {
			return "", 0, fmt.Errorf("%s %q: %w", notifySocket, address, err)
		}
	}
	text, ok := e.Lookup(watchdogUsec)
	if !ok {
		return address, 0, nil
	}
	// Without a process id it is everybody's, as it is for the successor of the process that systemd started.
	if ours, err := e.ours(watchdogPID, true); err != nil || !ours {
		return address, 0, err
	}
	usec, ok := decimal(text, math.MaxInt64/uint64(time.Microsecond))
	if !ok || usec == 0 {
		return "", 0, fmt.Errorf("%s %q: want microseconds", watchdogUsec, text)
	}
	return address, time.Duration(usec) * time.Microsecond, nil
}

// ours says whether a variable names this process.
func (e *Environment) ours(name string, ifUnset bool) (bool, error) {
	text, ok := e.Lookup(name)
	if !ok {
		return ifUnset, nil
	}
	pid, ok := decimal(text, math.MaxInt32)
	if !ok || pid == 0 {
		return false, fmt.Errorf("%s %q: want a process id", name, text)
	}
	return int(pid) == e.PID, nil
}

// decimal reads a number of at most most, without sign, space or leading zeros.
func decimal(text string, most uint64) (uint64, bool) {
	if text == "" || text[0] == '0' && len(text) > 1 || text[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n <= most
}
