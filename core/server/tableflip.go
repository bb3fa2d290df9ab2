package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/server/handover"
)

const (
	// startTimeout is how long a new process may take until it accepts; then it is killed.
	startTimeout = time.Minute
	// exitPatience is how long the end of the process before may take to be seen by tableflip once we have seen it.
	exitPatience = time.Second
	// inheritedPair is the name under which tableflip passes the one descriptor that it passes: all others come through that.
	inheritedPair = "handover"
	// tableflipVariables are the start of the names by which tableflip tells a process that it has a parent.
	tableflipVariables = "TABLEFLIP_"
)

// Upgrader starts the process that takes this one's place, and lets the two know that the other is ready.
type Upgrader interface {
	// Upgrade starts binary, an absolute path, with the arguments of this process, and with variables (NAME=VALUE) beside its
	// environment. It returns when it is ready, or why it is not.
	Upgrade(binary string, variables []string) error
	// Ready says that this process serves: the one that it takes the place of may stop, and this one may be replaced in turn.
	Ready() error
	// Stop ends an upgrade that is under way, and prevents others.
	Stop()
}

// Upgrade is how a process is replaced by another. It lives as long as the process.
type Upgrade struct {
	Upgrader Upgrader
	Pair     *handover.Pair  // to the process that takes over
	Before   *handover.Taker // to the process that this one takes over from; nil: there is none
	Binary   string          // what this process was started from, which may be another file by now
}

// NewUpgrade makes upgrades possible by tableflip. It can be called once in a process.
//
// Listening sockets do not go through tableflip: what it was once given it holds until an upgrade succeeds, and a socket that
// is held but not accepted from swallows connections.
func NewUpgrade() (*Upgrade, error) {
	t, err := tableflip.New(tableflip.Options{UpgradeTimeout: startTimeout})
	if err != nil {
		return nil, fmt.Errorf("cannot prepare for upgrades: %w", err)
	}
	u := &Upgrade{Upgrader: flipper{t}}
	if u.Binary, err = startedFrom(); err != nil {
		return nil, err
	}
	if t.HasParent() {
		// tableflip's own pipes, which must not reach the processes that we start.
		unix.CloseOnExec(3)
		unix.CloseOnExec(4)
		theirs, err := t.File(inheritedPair)
		if err == nil && theirs == nil {
			err = errors.New("the process before is of a version that hands over nothing")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot take over from the process before: %w", err)
		}
		if u.Before, err = handover.NewTaker(theirs); err != nil {
			return nil, err
		}
	}
	if u.Pair, err = handover.NewPair(); err != nil {
		return nil, err
	}
	if err := t.AddFile(inheritedPair, u.Pair.Theirs()); err != nil {
		return nil, fmt.Errorf("cannot prepare for upgrades: %w", err)
	}
	return u, nil
}

// startedFrom is the path by which this process was started, with its symbolic links: they may lead to a new version soon.
func startedFrom() (string, error) {
	self, err := os.Executable() // without links
	if err != nil {
		return "", fmt.Errorf("cannot find the own binary: %w", err)
	}
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return self, nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return self, nil
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat("/proc/self/exe")
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return self, nil
	}
	return path, nil
}

// flipper is tableflip's Upgrader as ours.
type flipper struct{ *tableflip.Upgrader }

func (f flipper) Upgrade(binary string, variables []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), exitPatience)
	defer cancel()
	if err := f.WaitForParent(ctx); errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the process before this one has not ended")
	}
	for _, v := range variables { // tableflip passes on what this process has
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("cannot set %s: %w", name, err)
		}
		defer func() { _ = os.Unsetenv(name) }()
	}
	before := os.Args[0]
	os.Args[0] = binary // what tableflip starts
	err := f.Upgrader.Upgrade()
	os.Args[0] = before
	return err
}

// plainEnvironment is this process's without what tableflip has added.
func plainEnvironment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, tableflipVariables) {
			env = append(env, v)
		}
	}
	return env
}
