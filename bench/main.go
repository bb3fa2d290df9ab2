// Package main is the bench: it measures what a proxied request costs Sluice, nginx and HAProxy in CPU time, side by side.
//
// Wall time lies on a shared machine, so the figure is user + system time of the proxy's whole process tree, divided by
// the requests that the load generator counted: wrk, h2load for HTTP/2, or this program again where each request is to have
// a connection of its own. The proxy has one core to itself; generator and upstream have the others. Peers take turns within
// a round, so that a slow minute of the machine hits all of them alike, and the medians of the rounds are compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	exitFailed = 1
	exitUsage  = 2

	maxRounds     = 1000
	maxRunSeconds = 3600
)

// errRunsFailed is returned when the table is complete but some of its runs are not to be trusted.
var errRunsFailed = errors.New("some runs failed, see the report")

// options are the flags after validation.
type options struct {
	rounds        int
	seconds       int
	warmupSeconds int
	scenarios     []scenario
	peers         []peer
	sluice        string
	proxyCPU      int  // -1: the last one this process may use
	largeBuffers  bool // of the peers
	options       bool // socket options instead of peers
	out           string
}

func main() {
	os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr))
}

func realMain(args []string, stdout, stderr io.Writer) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	// Two load generators and the body-reading upstream are this binary again: they need their own limit of open files.
	if len(args) > 0 {
		if child, ok := childCommand(args[0]); ok {
			if err := child(ctx, args[1:], os.Stdin, stdout); err != nil {
				fmt.Fprintf(stderr, "bench %s: %s\n", args[0], err)
				return exitFailed
			}
			return 0
		}
	}
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %s\n", err)
		return exitUsage
	}
	if err := run(ctx, opts, args, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "bench: %s\n", err)
		return exitFailed
	}
	return 0
}

func childCommand(name string) (func(context.Context, []string, io.Reader, io.Writer) error, bool) {
	switch name {
	case childCalls:
		return serveCalls, true
	case childUpstream:
		return serveUpstream, true
	case childConnections:
		return holdConnections, true
	case childHandshakes:
		return makeHandshakes, true
	case childRelay:
		return relayBytes, true
	}
	return nil, false
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opts.rounds, "rounds", 5, "rounds; every peer runs once in each")
	flags.IntVar(&opts.seconds, "seconds", 3, "measured seconds of a run")
	flags.IntVar(&opts.warmupSeconds, "warmup", 1, "uncounted seconds of load before a run")
	flags.StringVar(&opts.sluice, "sluice", "bin/sluice", "the sluice binary")
	flags.IntVar(&opts.proxyCPU, "proxy-cpu", -1, "processor the proxy is pinned to; -1 is the last one")
	flags.BoolVar(&opts.largeBuffers, "large-buffers", false, "give nginx and haproxy buffers of 64 KiB instead of their defaults")
	flags.StringVar(&opts.out, "out", "bench/results", "folder of the report, which is appended to DATE.md; empty writes none")
	flags.BoolVar(&opts.options, "options", false, "compare Sluice with each socket option and without, instead of with its peers")
	scenarioNames := flags.String("scenario", "", "comma-separated scenarios, of options too; empty is all of "+strings.Join(names(allScenarios()), ","))
	peerNames := flags.String("peers", "", "comma-separated peers; empty is all of "+strings.Join(names(allPeers("")), ",")+
		"; "+childRelay+", which only passes on bytes, shows what no proxy can be below")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if opts.rounds < 1 || opts.rounds > maxRounds {
		return opts, fmt.Errorf("-rounds must be from 1 to %d", maxRounds)
	}
	if opts.seconds < 1 || opts.seconds > maxRunSeconds || opts.warmupSeconds < 0 || opts.warmupSeconds > maxRunSeconds {
		return opts, fmt.Errorf("-seconds must be from 1 and -warmup from 0 to %d", maxRunSeconds)
	}
	var err error
	if opts.scenarios, err = chooseScenarios(*scenarioNames, opts.options); err != nil {
		return opts, err
	}
	if *peerNames == "" && !slices.ContainsFunc(opts.scenarios, func(s scenario) bool { return !s.againstItself() }) {
		*peerNames = subject
	}
	opts.peers, err = choosePeers(*peerNames, opts.sluice)
	return opts, err
}

// choosePeers gives those that are named, else all proxies.
func choosePeers(list, sluice string) ([]peer, error) {
	all := allPeers(sluice)
	if list == "" {
		return all, nil
	}
	own, err := self()
	if err != nil {
		return nil, err
	}
	return choose("peer", append(all, bytesOnly(own)), list)
}

// chooseScenarios gives those that are named, else all of one kind.
func chooseScenarios(list string, options bool) ([]scenario, error) {
	switch {
	case list != "":
		return choose("scenario", append(allScenarios(), optionScenarios()...), list)
	case options:
		return optionScenarios(), nil
	}
	return allScenarios(), nil
}

// named is what a flag can pick from a table.
type named interface{ label() string }

func names[T named](all []T) []string {
	list := make([]string, len(all))
	for i, item := range all {
		list[i] = item.label()
	}
	return list
}

// choose keeps the table's order, so that a filtered run is comparable with a whole one.
func choose[T named](kind string, all []T, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(names(all), name) {
			return nil, fmt.Errorf("unknown %s %q, have %s", kind, name, strings.Join(names(all), ", "))
		}
	}
	var chosen []T
	for _, item := range all {
		if slices.Contains(wanted, item.label()) {
			chosen = append(chosen, item)
		}
	}
	return chosen, nil
}

func run(ctx context.Context, opts options, args []string, stdout, stderr io.Writer) (err error) {
	if err := findTools(opts.peers, opts.scenarios); err != nil {
		return err
	}
	cpus, err := splitCPUs(opts.proxyCPU)
	if err != nil {
		return err
	}
	fileLimit, err := raiseFileLimit()
	if err != nil {
		return err
	}
	dir, err := workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	launcher := newLauncher()
	defer launcher.close()

	rig := &rig{opts: opts, cpus: cpus, dir: dir, fileLimit: fileLimit, launcher: launcher, progress: stderr}
	if rig.identity, err = makeIdentity(dir); err != nil {
		return err
	}
	if rig.tokens, err = makeTokens(dir); err != nil {
		return err
	}
	if err := rig.startUpstreams(ctx); err != nil {
		return err
	}
	started := time.Now()
	results, err := rig.measureAll(ctx)
	if err != nil {
		return err
	}
	report := report{
		machine: describeMachine(ctx, opts.peers, opts.scenarios, cpus),
		command: commandLine(args),
		started: started,
		options: opts,
		results: results,
	}
	text := report.markdown()
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("cannot print the report: %w", err)
	}
	if opts.out != "" {
		if err := saveReport(opts.out, started, text); err != nil {
			return err
		}
	}
	if report.failed() {
		return errRunsFailed
	}
	return nil
}

// self is the bench's own binary, which is also some of its children.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find the bench's own binary: %w", err)
	}
	return path, nil
}

// commandLine is how a reader repeats the run, whatever temporary path the toolchain gave this binary.
func commandLine(args []string) string {
	line := "go run ./bench"
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " \t\"'`$\\*?;&|<>()") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		line += " " + arg
	}
	return line
}

// workDir is in memory where there is such a place: neither an access log nor a body may wait for a disk.
func workDir() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "sluice-bench-")
	if err != nil {
		dir, err = os.MkdirTemp("", "sluice-bench-")
	}
	if err != nil {
		return "", fmt.Errorf("cannot make a working folder: %w", err)
	}
	// nginx drops root for its worker, which must still reach the bodies.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot open the working folder to other users: %w", err)
	}
	return dir, nil
}

// raiseFileLimit sets the soft limit of open files to the hard one explicitly: a limit that the runtime raised by itself
// is not passed on to child processes.
func raiseFileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	const enough = 1 << 17 // nginx allocates per possible descriptor: "unlimited" would cost it memory it does not need
	limit.Max = min(limit.Max, enough)
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot raise the limit of open files to %d: %w", limit.Max, err)
	}
	return limit.Cur, nil
}
