package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary stand in for the sluice binary: the scripts start it again under the name of "sluice",
// so that -race and coverage see the gateway as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"sluice": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScript runs the scripts that show what the product does.
func TestScript(t *testing.T) { runScripts(t, "testdata/script") }

// TestEngine runs the scripts that show what the commands of the scripts do, with fake upstreams and no gateway.
func TestEngine(t *testing.T) { runScripts(t, "testdata/engine") }

func runScripts(t *testing.T, dir string) {
	ports := &portRange{next: 20000 + os.Getpid()*16%10000}
	commands := map[string]func(*testscript.TestScript, bool, []string){}
	for name, f := range scriptCommands() {
		commands[name] = adaptCommand(f)
	}
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		Cmds:               commands,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			return setUpScript(env, ports)
		},
	})
}

// scriptCommands are the words of the scripts beyond those of testscript. README.md in testdata/script describes them.
func scriptCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"upstream":       cmdUpstream,
		"upstream-stop":  cmdUpstreamStop,
		"upstream-count": cmdUpstreamCount,
		"upstream-saw":   cmdUpstreamSaw,
		"release":        cmdRelease,
		"config":         cmdConfig,
		"sluice-start":   cmdSluiceStart,
		"certificate":    cmdCertificate,
		"check":          cmdCheck,
		"ctl":            cmdCtl,
		"signal":         cmdSignal,
		"reload":         cmdReload,
		"wait-exit":      cmdWaitExit,
		"log":            cmdLog,
		"metric":         cmdMetric,
		"wait-file":      cmdWaitFile,
		"fds":            cmdFDs,
		"send":           cmdSend,
		"recv":           cmdRecv,
		"hangup":         cmdHangup,
		"tunnel":         cmdTunnel,
		"table":          cmdTable,
		"get":            cmdGet,
		"parallel":       cmdParallel,
	}
}

// scriptCommand does what one line of a script says. An error fails the script, or passes it where the line begins
// with "!"; a usageError fails it either way.
type scriptCommand func(c *call) error

// call is one execution of a command.
type call struct {
	*script
	ts   *testscript.TestScript
	args []string
	neg  bool          // the line begins with "!": for commands that wait, which then look only once
	out  *bytes.Buffer // nil until the command has an answer for `stdout`
}

// stdout returns what the next `stdout` line of the script looks at.
func (c *call) stdout() *bytes.Buffer {
	if c.out == nil {
		c.out = &bytes.Buffer{}
	}
	return c.out
}

type usageError string

func (e usageError) Error() string { return "usage: " + string(e) }

func adaptCommand(f scriptCommand) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := ts.Value(scriptKey{}).(*script)
		c := &call{script: s, ts: ts, args: args, neg: neg}
		err := f(c)
		if c.out != nil {
			_, _ = ts.Stdout().Write(c.out.Bytes())
		}
		var usage usageError
		switch {
		case errors.As(err, &usage):
			ts.Fatalf("%v", err)
		case err != nil && !neg:
			ts.Fatalf("%v", err)
		case err == nil && neg:
			ts.Fatalf("succeeded, but must fail")
		case err != nil:
			ts.Logf("failed as it must: %v", err)
		}
	}
}

// script is the state of one running script. Its commands run one after the other on one goroutine.
type script struct {
	tb        testing.TB
	work      string
	ports     *portRange
	upstreams map[string]*upstream
	conns     map[string]*clientConn // kept under a name by `send -keep`
	gateway   *gateway               // nil until sluice-start
	fds       int                    // open files of the gateway when `fds remember` looked
}

type scriptKey struct{}

func setUpScript(env *testscript.Env, ports *portRange) error {
	s := &script{
		tb:        env.T().(testing.TB),
		work:      env.WorkDir,
		ports:     ports,
		upstreams: map[string]*upstream{},
		conns:     map[string]*clientConn{},
	}
	for name, host := range map[string]string{"HTTP": "127.0.0.1", "HTTP2": "127.0.0.1", "HTTP6": "::1"} {
		port, err := ports.take()
		if err != nil {
			return err
		}
		env.Setenv(name, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	env.Setenv("GORACE", "atexit_sleep_ms=10")
	env.Setenv("ADMIN", "unix:"+env.WorkDir+"/admin.sock")
	env.Values[scriptKey{}] = s
	env.Defer(s.tearDown)
	return nil
}

// tearDown ends what the script began: clients first, so that the gateway has nothing left to drain.
func (s *script) tearDown() {
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	for _, u := range s.upstreams {
		u.release()
		u.stop()
	}
	if s.gateway == nil {
		return
	}
	if err := s.gateway.end(); err != nil {
		s.tb.Errorf("the gateway did not end well: %v", err)
	}
	if s.tb.Failed() {
		s.tb.Logf("the gateway's log:\n%s", s.gateway.stderr.String())
	}
}

// expand replaces $NAME where NAME, in capitals, is set in the script: configuration keeps its $1 and ${param}.
func (c *call) expand(text string) string {
	name := regexp.MustCompile(`\$[A-Z][A-Z0-9_]*`)
	return name.ReplaceAllStringFunc(text, func(ref string) string {
		if value := c.ts.Getenv(ref[1:]); value != "" {
			return value
		}
		return ref
	})
}

// portRange gives out TCP ports below the range from which the kernel takes source ports, so that no outgoing
// connection of a script that runs at the same time can hold one.
type portRange struct {
	mu   sync.Mutex
	next int
}

func (p *portRange) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 1000 {
		port := p.next
		p.next++
		if p.next > 32000 {
			p.next = 20000
		}
		free := true
		for _, host := range []string{"127.0.0.1", "::1"} {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				free = free && host == "::1" && !slices.Contains(loopbackHosts(), host)
				continue
			}
			_ = ln.Close()
		}
		if free {
			return port, nil
		}
	}
	return 0, errors.New("cannot find a free port")
}

func loopbackHosts() []string {
	var hosts []string
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsLoopback() {
			hosts = append(hosts, n.IP.String())
		}
	}
	return hosts
}

// eventually calls f until it returns nil, but only once where the script wants it to fail.
func (c *call) eventually(f func() error) error {
	if c.neg {
		return f()
	}
	return eventually(patience, f)
}

// patience is how long a command, or a client, waits for what must happen; only a failing test waits so long.
const patience = 20 * time.Second

// eventually calls f until it returns nil, and gives up with f's last error.
func eventually(limit time.Duration, f func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("after %v: %w", limit, err)
		case <-tick.C:
		}
	}
}
