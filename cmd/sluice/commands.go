package main

import (
	"fmt"
	"runtime"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/tuning"
)

const defaultConfig = "/etc/sluice/sluice.yaml"

// signals are those that run answers.
var signals = [...]word{
	{name: "HUP", help: "reloads the configuration"},
	{name: "USR1", help: "reopens the access log"},
	{name: "USR2", help: "has the binary that stands where this one was started from take over"},
	{name: "TERM", help: "drains and exits"},
	{name: "QUIT", help: "shows what every goroutine does on standard error, and ends at once with status 2, undrained"},
}

// configOption is the configuration's file, for the commands that read it.
var configOption = option{name: "c", value: "FILE", preset: defaultConfig, help: "configuration"}

// commands are all of them, in the order in which help shows them.
func commands() []command {
	return []command{
		{name: "run", help: "serve a configuration", options: []option{configOption}, run: runServer},
		{name: "check", help: "say what is wrong with a configuration; exit 1 if it is refused", options: []option{configOption}, run: runCheck},
		{name: "explain", args: "[METHOD] URL", run: runExplain,
			help: "say which route a request takes, and why no more specific one does; exit 1 if none does",
			options: []option{configOption,
				{name: "H", value: "'NAME: VALUE'", many: true, help: "field of the request"},
				{name: "client", value: "IP", help: "address of the client"},
				{name: "listener", value: "NAME", help: "listener that the request comes to"}}},
		{name: "ctl", args: "COMMAND", raw: true, words: ctlWords(), run: func(c *invocation) int { return admin.Ctl(c.args, c.stdout, c.stderr) },
			help: "ask a running gateway, or tell it something",
			options: []option{
				{name: "admin", value: "ADDRESS", preset: admin.DefaultAddress, help: "unix:/path or host:port of the admin API"},
				{name: "json", help: "print the answer as JSON"}}},
		{name: "upgrade", help: "have another binary take over from a running gateway without a lost connection", run: runUpgrade,
			options: []option{
				{name: "wait", help: "return when the new process serves, or say why it does not"},
				{name: "hurry", help: "end the tunnels that the process before may still have, and wait for it, instead of refusing"},
				{name: "c", value: "FILE", help: "configuration of the gateway, which says where its admin API is"},
				{name: "admin", value: "ADDRESS", help: "unix:/path or host:port of its admin API; default " + admin.DefaultAddress},
				{name: "binary", value: "PATH", help: "the new binary; default: the one that the gateway was started from"}}},
		{name: "tune", help: "report what of this host does not fit a gateway, and change what may be changed", run: runTune,
			options: []option{
				{name: "json", help: "print the report, or what was done, as JSON"},
				{name: "apply", help: "set the sysctls that are not as wanted, now and in a file of sysctl.d"},
				{name: "dry-run", help: "with --apply: show how the file would change, and change nothing"},
				{name: "revert", help: "give the sysctls what they were before --apply, and remove the file"},
				{name: "file", value: "FILE", preset: tuning.DefaultFile, help: "the file of sysctl.d"},
				{name: "root", value: "PATH", preset: "/", help: "root folder of the host"}}},
		{name: "hash", args: "key|new-key|password", run: runHash,
			help:    "hash a credential of a consumer, which is the first line of the standard input, or make a new one",
			options: []option{{name: "prefix", value: "TEXT", help: "with new-key: what the key begins with, such as acme_live"}},
			words: []word{{name: "key", help: `an API key for "keys" of a consumer`},
				{name: "new-key", help: `a new random API key: the key itself, and its id and hash for a consumer`},
				{name: "password", help: `a password for "basic" of a consumer, by argon2id`}}},
		{name: "man", help: "print the manual page, for man -l -", run: runMan},
		{name: "completion", args: "SHELL", help: "print what completes command lines in a shell", run: runCompletion,
			words: []word{{name: "bash", help: "for bash-completion"}, {name: "zsh", help: "for a folder of fpath, as _sluice"}, {name: "fish", help: "for a folder of completions, as sluice.fish"}}},
		{name: "version", help: "print the version", run: runVersion},
		{name: "help", help: "print this", run: runHelp},
		{name: "demo-upstream", args: "ADDRESS", help: "answer with what was asked", hidden: true, run: runDemoUpstream},
	}
}

// ctlWords are the commands of ctl.
func ctlWords() (words []word) {
	for _, s := range admin.Subcommands() {
		words = append(words, word{s.Name, s.Arguments, s.Help})
	}
	return words
}

func runVersion(c *invocation) int {
	fmt.Fprintf(c.stdout, "sluice %s %s %s\n", version, commit(), runtime.Version())
	return exitOK
}

func runHelp(c *invocation) int {
	fmt.Fprint(c.stdout, usage(commands()))
	return exitOK
}
