// Command sluice is the gateway and its tools: flags in, one call into the core.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

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

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs a command. One whose output could not be written whole has failed: what a full disk cut off looks whole to nobody else.
func run(args []string, stdout, stderr io.Writer) int {
	out := &output{to: stdout}
	code := runCommand(args, out, stderr)
	if out.err != nil {
		fmt.Fprintf(stderr, "sluice: cannot write the output: %v\n", out.err)
		code = max(code, exitRefused)
	}
	return code
}

// output remembers that it could not write.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

func runCommand(args []string, stdout, stderr io.Writer) int {
	all := commands()
	if len(args) == 0 {
		fmt.Fprint(stderr, usage(all))
		return exitUsage
	}
	name := args[0]
	if name == "-h" || name == "--help" {
		name = "help"
	}
	for i := range all {
		if all[i].name == name {
			return all[i].invoke(&invocation{args: args[1:], stdin: os.Stdin, stdout: stdout, stderr: stderr})
		}
	}
	fmt.Fprintf(stderr, "sluice: unknown command %q\n%s", name, usage(all))
	return exitUsage
}

func runServer(c *invocation) int {
	upgrade, err := server.NewUpgrade()
	if err == nil {
		err = server.Run(server.Options{ConfigFile: c.text("c"), Version: version, Commit: commit(), Stderr: c.stderr, Upgrade: upgrade})
	}
	if err != nil {
		if !errors.Is(err, server.ErrRefused) {
			fmt.Fprintf(c.stderr, "sluice: %v\n", err)
		}
		return exitRefused
	}
	return exitOK
}

func runCheck(c *invocation) int {
	file, stdout, stderr := c.text("c"), c.stdout, c.stderr
	cfg, problems := server.Load(file) // once: it may come through a pipe
	if _, err := problems.WriteTo(stderr); err != nil {
		return exitRefused
	}
	if problems.Refused() {
		return exitRefused
	}
	memory, warnings, err := server.Check(cfg)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitRefused
	}
	if _, err := warnings.WriteTo(stderr); err != nil {
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
