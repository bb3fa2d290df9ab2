// Command sluice is the gateway and its tools: flags in, one call into the core.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server"
)

// version is set by the linker.
var version = "dev"

// Exit codes: 0 ok, 1 refused, 2 usage.
const (
	exitOK = iota
	exitRefused
	exitUsage
)

const usage = `usage: sluice COMMAND [flags]

  run -c FILE             serve a configuration
  check -c FILE           say what is wrong with a configuration; exit 1 if it is refused
  explain -c FILE [METHOD] URL [-H 'name: value']... [--client IP] [--listener NAME]
                          say which route a request takes, and why no more specific one does; exit 1 if none does
  ctl [--admin ADDR] ...  ask a running gateway: status, routes, upstreams, limits, metrics, config, log-level, reload
  upgrade [--wait] [-c FILE | --admin ADDR] [--binary PATH]
                          have another binary take over from a running gateway without a lost connection
  hash key|password       hash a credential of a consumer, read from the standard input
  version                 print the version

Signals to run: HUP reloads, USR1 reopens the access log, USR2 upgrades, TERM drains and exits, QUIT dumps and exits.
`

const defaultConfig = "/etc/sluice/sluice.yaml"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	name, args := args[0], args[1:]
	switch name {
	case "run":
		return runServer(args, stderr)
	case "check":
		return runCheck(args, stdout, stderr)
	case "explain":
		return runExplain(args, stdout, stderr)
	case "ctl":
		return admin.Ctl(args, stdout, stderr)
	case "upgrade":
		return runUpgrade(args, stdout, stderr)
	case "hash":
		return runHash(args, os.Stdin, stdout, stderr)
	case "version":
		fmt.Fprintf(stdout, "sluice %s %s %s\n", version, commit(), runtime.Version())
		return exitOK
	case "demo-upstream":
		return runDemoUpstream(args, stderr)
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "sluice: unknown command %q\n%s", name, usage)
	return exitUsage
}

// configFile takes -c from args; ok is false where they are something else.
func configFile(name string, args []string, stderr io.Writer) (file string, ok bool) {
	flags := flag.NewFlagSet("sluice "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&file, "c", defaultConfig, "configuration `file`")
	if flags.Parse(args) != nil {
		return "", false
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "sluice %s: unexpected %q\n", name, flags.Arg(0))
		return "", false
	}
	return file, true
}

func runServer(args []string, stderr io.Writer) int {
	file, ok := configFile("run", args, stderr)
	if !ok {
		return exitUsage
	}
	upgrade, err := server.NewUpgrade()
	if err == nil {
		err = server.Run(server.Options{ConfigFile: file, Version: version, Commit: commit(), Stderr: stderr, Upgrade: upgrade})
	}
	if err != nil {
		if !errors.Is(err, server.ErrRefused) {
			fmt.Fprintf(stderr, "sluice: %v\n", err)
		}
		return exitRefused
	}
	return exitOK
}

func runCheck(args []string, stdout, stderr io.Writer) int {
	file, ok := configFile("check", args, stderr)
	if !ok {
		return exitUsage
	}
	_, problems := config.Load(file)
	if _, err := problems.WriteTo(stderr); err != nil {
		return exitRefused
	}
	if problems.Refused() {
		return exitRefused
	}
	memory, err := server.Check(file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitRefused
	}
	for _, line := range memory {
		fmt.Fprintln(stdout, line)
	}
	fmt.Fprintf(stdout, "%s is valid\n", file)
	return exitOK
}

// commit is the revision that the binary was built from.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return ""
}
