package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// gateway is a running `sluice run`.
type gateway struct {
	cmd            *exec.Cmd
	stdout, stderr *outputBuffer
	exited         chan struct{}
	waited         bool // wait-exit has looked at the exit code
}

// outputBuffer is written by the process's pipe and read by the script.
type outputBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *outputBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *outputBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// cmdConfig: config FILE [TO] replaces $NAME in FILE, and writes the result to TO, or back. A file with listeners but
// without an admin key gets one behind its last line: the admin API at $ADMIN.
func cmdConfig(c *call) error {
	if len(c.args) < 1 || len(c.args) > 2 {
		return usageError("config FILE [TO]")
	}
	return c.installConfig(c.args[0], c.args[len(c.args)-1])
}

func (c *call) installConfig(from, to string) error {
	text, err := os.ReadFile(c.ts.MkAbs(from))
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", from, err)
	}
	out := c.expand(string(text))
	if regexp.MustCompile(`(?m)^listeners:`).MatchString(out) && !regexp.MustCompile(`(?m)^admin:`).MatchString(out) {
		out += "admin: { bind: \"" + c.ts.Getenv("ADMIN") + "\" }\n"
	}
	if err := os.WriteFile(c.ts.MkAbs(to), []byte(out), 0o644); err != nil {
		return fmt.Errorf("cannot write %q: %w", to, err)
	}
	return nil
}

// cmdCheck: check [FILE] runs `sluice check -c FILE` on the file as config leaves it; FILE is sluice.yaml. What it prints, on
// stderr too, goes to stdout.
func cmdCheck(c *call) error {
	file := "sluice.yaml"
	if len(c.args) > 0 {
		file = c.args[0]
	}
	if err := c.installConfig(file, file); err != nil {
		return err
	}
	return c.runSluice("check", "-c", file)
}

// cmdCtl: ctl ARGS runs `sluice ctl --admin $ADMIN ARGS`, with stderr in stdout.
func cmdCtl(c *call) error {
	return c.runSluice(append([]string{"ctl", "--admin", c.ts.Getenv("ADMIN")}, c.args...)...)
}

func (c *call) runSluice(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sluice", args...)
	cmd.Dir, cmd.Env = c.work, c.environment()
	cmd.Stdout = c.stdout()
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sluice %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// environment is what the gateway gets: little, so that scripts do not depend on the machine.
func (c *call) environment(extra ...string) []string {
	env := append([]string{"GOTRACEBACK=all"}, extra...)
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK", "GORACE", "GOCOVERDIR"} {
		if value := c.ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// cmdSluiceStart: sluice-start [-c FILE] [-wait ADDRESS] [NAME=VALUE...] starts the gateway on FILE, sluice.yaml, with
// variables replaced as by config, and waits until it says that it is ready; with -wait, until ADDRESS takes connections.
func cmdSluiceStart(c *call) error {
	flags := flag.NewFlagSet("sluice-start", flag.ContinueOnError)
	file := flags.String("c", "sluice.yaml", "")
	wait := flags.String("wait", "", "")
	if err := parseFlags(flags, c.args); err != nil {
		return usageError("sluice-start [-c FILE] [-wait ADDRESS] [NAME=VALUE...]")
	}
	if c.gateway != nil && !c.gateway.waited {
		return usageError("the gateway runs already")
	}
	if err := c.installConfig(*file, *file); err != nil {
		return err
	}
	g := &gateway{stdout: &outputBuffer{}, stderr: &outputBuffer{}, exited: make(chan struct{})}
	g.cmd = exec.Command("sluice", "run", "-c", *file)
	g.cmd.Dir, g.cmd.Env = c.work, c.environment(flags.Args()...)
	g.cmd.Stdout, g.cmd.Stderr = g.stdout, g.stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start sluice: %w", err)
	}
	go func() {
		_ = g.cmd.Wait()
		close(g.exited)
	}()
	c.gateway = g
	ready := func() error { return c.probeReady(*wait) }
	if err := eventually(patience, func() error { return g.unlessExited(ready) }); err != nil {
		return fmt.Errorf("the gateway does not get ready: %w", err)
	}
	return g.unlessExited(ready)
}

// unlessExited ends a wait early when the process is gone: it returns nil, and the next call tells why.
func (g *gateway) unlessExited(f func() error) error {
	select {
	case <-g.exited:
		return nil
	default:
		return f()
	}
}

func (c *call) probeReady(wait string) error {
	if wait != "" {
		network, addr := splitAddress(wait)
		conn, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	status, _, err := c.admin("/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d", status)
	}
	return err
}

// admin asks the admin API.
func (c *call) admin(path string) (status int, body string, err error) {
	client, end := clientTo(c.ts.Getenv("ADMIN"))
	defer end()
	resp, err := client.Get("http://admin" + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (c *call) running() (*gateway, error) {
	if c.gateway == nil {
		return nil, usageError("the gateway is not started")
	}
	return c.gateway, nil
}

// cmdSignal: signal HUP|TERM|INT|QUIT|USR1|USR2 sends a signal to the gateway.
func cmdSignal(c *call) error {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT,
		"QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}
	g, err := c.running()
	if err != nil {
		return err
	}
	if len(c.args) != 1 || signals[c.args[0]] == 0 {
		return usageError("signal HUP|TERM|INT|QUIT|USR1|USR2")
	}
	return g.cmd.Process.Signal(signals[c.args[0]])
}

// cmdWaitExit: wait-exit [CODE] waits up to 10 s until the gateway has ended with that code, 0 unless given.
func cmdWaitExit(c *call) error {
	g, err := c.running()
	if err != nil {
		return err
	}
	want := 0
	if len(c.args) > 0 {
		if want, err = strconv.Atoi(c.args[0]); err != nil {
			return usageError("wait-exit [CODE]")
		}
	}
	g.waited = true
	return g.awaitExit(want)
}

func (g *gateway) awaitExit(want int) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-g.exited:
	case <-timer.C:
		_ = g.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks in its log
		grace := time.NewTimer(2 * time.Second)
		defer grace.Stop()
		select {
		case <-g.exited:
		case <-grace.C:
			_ = g.cmd.Process.Kill()
			<-g.exited
		}
		return errors.New("it did not exit")
	}
	if code := g.cmd.ProcessState.ExitCode(); code != want {
		return fmt.Errorf("it exited with %d (%v), want %d", code, g.cmd.ProcessState, want)
	}
	return nil
}

// end stops the gateway as an operator would, unless the script has done so, and reads its log for what no run may show.
func (g *gateway) end() error {
	var err error
	if !g.waited {
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		err = g.awaitExit(0)
	}
	bad := regexp.MustCompile(`(?m)^.*(panic|BUG|DATA RACE|fatal error|goroutine \d+ \[).*$`)
	if line := bad.FindString(g.stderr.String()); line != "" {
		err = errors.Join(err, fmt.Errorf("its log holds %q", line))
	}
	return err
}

// cmdLog: log [-stdout] REGEX waits until the gateway's stderr, or stdout, matches. `! log` looks once.
func cmdLog(c *call) error {
	g, err := c.running()
	if err != nil {
		return err
	}
	buf := g.stderr
	if len(c.args) == 2 && c.args[0] == "-stdout" {
		buf, c.args = g.stdout, c.args[1:]
	}
	if len(c.args) != 1 {
		return usageError("log [-stdout] REGEX")
	}
	re, err := regexp.Compile("(?m)" + c.args[0])
	if err != nil {
		return usageError(err.Error())
	}
	return c.eventually(func() error {
		if !re.MatchString(buf.String()) {
			return fmt.Errorf("the gateway's output does not match %q", c.args[0])
		}
		return nil
	})
}

// cmdWaitFile: wait-file FILE [REGEX] waits until FILE exists and matches.
func cmdWaitFile(c *call) error {
	if len(c.args) < 1 || len(c.args) > 2 {
		return usageError("wait-file FILE [REGEX]")
	}
	re, err := regexp.Compile("(?m)" + strings.Join(c.args[1:], ""))
	if err != nil {
		return usageError(err.Error())
	}
	return c.eventually(func() error {
		text, err := os.ReadFile(c.ts.MkAbs(c.args[0]))
		if err == nil && !re.Match(text) {
			err = fmt.Errorf("%q does not match %q", c.args[0], re)
		}
		return err
	})
}

// cmdReload: reload sends SIGHUP and waits until the log says that the new configuration is in use, or is refused, which
// is a failure.
func cmdReload(c *call) error {
	g, err := c.running()
	if err != nil {
		return err
	}
	before := len(g.stderr.String())
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("cannot signal the gateway: %w", err)
	}
	verdict := regexp.MustCompile(`(?im)^.*\b(configuration (applied|refused|unchanged)).*$`)
	var line []string
	err = eventually(patience, func() error {
		if line = verdict.FindStringSubmatch(g.stderr.String()[before:]); line == nil {
			return errors.New("the log does not say what became of the reload")
		}
		return nil
	})
	if err != nil {
		return usageError(err.Error()) // neither outcome
	}
	if strings.EqualFold(line[2], "refused") {
		return fmt.Errorf("the reload was refused: %s", line[0])
	}
	return nil
}

// cmdMetric: metric 'NAME{label="value",...}' N, or >=N, <=N, waits until the sum of all series of that name with these labels is as
// said.
func cmdMetric(c *call) error {
	if len(c.args) == 0 {
		return usageError("metric SERIES N")
	}
	cond, err := cutCondition(&c.args)
	if err != nil || len(c.args) > 0 {
		return usageError("metric SERIES N")
	}
	name, labels, _ := strings.Cut(strings.TrimSuffix(cond.name, "}"), "{")
	return c.eventually(func() error {
		_, text, err := c.admin("/metrics")
		if err != nil {
			return err
		}
		sum, found := sumSeries(text, name, labels)
		if !found && cond.want != 0 {
			return fmt.Errorf("there is no series %s", cond.name)
		}
		if !cond.holds(sum) {
			return fmt.Errorf("%s is %v, want %s", cond.name, sum, cond)
		}
		return nil
	})
}

func sumSeries(text, name, labels string) (sum float64, found bool) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		has := true
		for label := range strings.SplitSeq(labels, ",") {
			has = has && strings.Contains(rest, label)
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if has && err == nil {
			sum, found = sum+value, true
		}
	}
	return sum, found
}

// cmdFDs: fds remember counts the gateway's open files; fds same waits until it has no more of them.
func cmdFDs(c *call) error {
	g, err := c.running()
	if err != nil {
		return err
	}
	count := func() (int, error) {
		names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.cmd.Process.Pid))
		return len(names), err
	}
	switch strings.Join(c.args, " ") {
	case "remember":
		c.fds, err = count()
		return err
	case "same":
		return c.eventually(func() error {
			if n, err := count(); err != nil || n > c.fds {
				return fmt.Errorf("the gateway has %d files open, had %d", n, c.fds)
			}
			return nil
		})
	}
	return usageError("fds remember|same")
}
