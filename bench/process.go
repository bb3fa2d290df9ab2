package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	errNoSuchProcess = syscall.ESRCH

	readyTimeout = 30 * time.Second
	stopTimeout  = 3 * time.Second
	pollInterval = 5 * time.Millisecond
	tailBytes    = 2048
)

// launcher starts processes, each bound to its processors, and is their owner: whatever it has started is gone after close.
type launcher struct {
	requests chan func()
	finished chan struct{}

	mu      sync.Mutex
	running map[*process]struct{}
}

// process is one started program. Its fields are not changed after start.
type process struct {
	name   string
	cmd    *exec.Cmd
	output string        // file of its output, for messages; may be empty
	ended  chan struct{} // closed when it has been reaped
}

// program says what to start and where.
type program struct {
	name   string
	path   string
	args   []string
	env    []string // added to this process's
	cpus   []int
	stdin  io.Reader
	stdout io.Writer // nil: to the output file
	output string    // file that standard error, and standard output if stdout is nil, are appended to
}

func newLauncher() *launcher {
	l := &launcher{requests: make(chan func()), finished: make(chan struct{}), running: make(map[*process]struct{})}
	go l.serve()
	return l
}

// serve keeps one thread for all starts: a child inherits the thread's affinity, and the signal that a child gets
// when its parent dies is sent when the starting thread ends.
func (l *launcher) serve() {
	defer close(l.finished)
	runtime.LockOSThread()
	for request := range l.requests {
		request()
	}
}

// close stops what is still running.
func (l *launcher) close() {
	l.mu.Lock()
	left := make([]*process, 0, len(l.running))
	for p := range l.running {
		left = append(left, p)
	}
	l.mu.Unlock()
	for _, p := range left {
		l.stop(p)
	}
	close(l.requests)
	<-l.finished
}

func (l *launcher) start(what program) (*process, error) {
	cmd := exec.Command(what.path, what.args...)
	cmd.Env = append(os.Environ(), what.env...)
	cmd.Stdin, cmd.Stdout = what.stdin, what.stdout
	// ^C is for the bench, which stops its children in order; the parent's death is for when it cannot.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = stopTimeout
	if what.output != "" {
		file, err := os.OpenFile(what.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("cannot open the output of %s: %w", what.name, err)
		}
		defer file.Close() //nolint:errcheck // the child has its own descriptor
		cmd.Stderr = file
		if what.stdout == nil {
			cmd.Stdout = file
		}
	}
	started := make(chan error)
	l.requests <- func() {
		var set unix.CPUSet
		for _, cpu := range what.cpus {
			set.Set(cpu)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			started <- fmt.Errorf("cannot bind to processors %v: %w", what.cpus, err)
			return
		}
		started <- cmd.Start()
	}
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", what.name, err)
	}
	p := &process{name: what.name, cmd: cmd, output: what.output, ended: make(chan struct{})}
	l.mu.Lock()
	l.running[p] = struct{}{}
	l.mu.Unlock()
	go func() {
		cmd.Wait() //nolint:errcheck // the state is read from cmd.ProcessState by whoever cares
		close(p.ended)
	}()
	return p, nil
}

// stop ends a process and its descendants and waits for it. It may be called again.
func (l *launcher) stop(p *process) {
	if p == nil {
		return
	}
	select {
	case <-p.ended:
	default:
		p.end()
	}
	l.mu.Lock()
	delete(l.running, p)
	l.mu.Unlock()
}

func (p *process) end() {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended by itself
	select {
	case <-p.ended:
		return
	case <-time.After(stopTimeout):
	}
	// A killed master cannot stop its workers, so they are listed before it dies.
	descendants, err := systemProc.tree(p.pid())
	if err != nil {
		descendants = []int{p.pid()}
	}
	for _, pid := range descendants {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended by itself
	}
	<-p.ended
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait is for programs that end by themselves.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ended:
	}
	if !p.cmd.ProcessState.Success() {
		return p.failure()
	}
	return nil
}

// alive returns an error that says why the process has ended, if it has.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return p.failure()
	default:
		return nil
	}
}

func (p *process) failure() error {
	message := fmt.Sprintf("%s ended with %s", p.name, p.cmd.ProcessState)
	if text := tail(p.output); text != "" {
		message += ": " + text
	}
	return errors.New(message)
}

// tail is the end of a file on one line, or nothing.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(text) > tailBytes {
		text = text[len(text)-tailBytes:]
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// awaitReady returns when address accepts a connection.
func (p *process) awaitReady(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	dialer := net.Dialer{}
	err := poll(ctx, func() (bool, error) {
		if err := p.alive(); err != nil {
			return false, err
		}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		return fmt.Errorf("cannot reach %s at %s: %w", p.name, address, err)
	}
	return nil
}

// poll calls done until it is, fails, or the context ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// pause waits for things to settle, or for the end.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// freeAddress picks a loopback port that nobody listens on now.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("cannot free port of %s: %w", address, err)
	}
	return address, nil
}

// processors is how the machine is shared out.
type processors struct {
	proxy []int
	load  []int
}

// splitCPUs gives the proxy one of the processors that this process may use, and all others to the load.
func splitCPUs(proxy int) (processors, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return processors{}, fmt.Errorf("cannot read the processors of this process: %w", err)
	}
	var allowed []int
	for cpu := 0; len(allowed) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			allowed = append(allowed, cpu)
		}
	}
	return assignCPUs(allowed, proxy)
}

func assignCPUs(allowed []int, proxy int) (processors, error) {
	if len(allowed) < 2 {
		return processors{}, errors.New("cannot separate proxy and load: need two processors")
	}
	if proxy < 0 {
		proxy = allowed[len(allowed)-1]
	}
	var cpus processors
	for _, cpu := range allowed {
		if cpu == proxy {
			cpus.proxy = append(cpus.proxy, cpu)
		} else {
			cpus.load = append(cpus.load, cpu)
		}
	}
	if len(cpus.proxy) == 0 {
		return processors{}, fmt.Errorf("cannot use processor %d: have %v", proxy, allowed)
	}
	return cpus, nil
}
