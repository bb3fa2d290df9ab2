package main

import (
	"fmt"
	"strings"
)

// runMan prints the manual page.
func runMan(c *invocation) int {
	fmt.Fprint(c.stdout, manual(commands()))
	return exitOK
}

// manual is sluice(8) in the language of man(7). It has no date, so that the same source makes the same page.
func manual(all []command) string {
	m := &page{}
	m.macro("TH", "SLUICE", "8", "", "sluice "+version, "System administration")
	m.macro("SH", "NAME")
	m.text(`sluice - HTTP gateway`)
	m.macro("SH", "SYNOPSIS")
	m.macro("B", "sluice COMMAND")
	m.text("[options]")
	m.macro("SH", "DESCRIPTION")
	m.text("Sluice stands in front of servers, ends TLS, speaks HTTP/1.1 and HTTP/2 with clients and upstreams, and decides by what a " +
		"request says which of them gets it.")
	m.macro("SH", "COMMANDS")
	for i := range all {
		k := &all[i]
		if k.hidden {
			continue
		}
		m.macro("SS", "sluice "+k.synopsis())
		m.text(sentence(k.help) + ".")
		m.rows(k.wordRows())
		m.rows(k.optionRows())
	}
	m.macro("SH", "SIGNALS")
	m.text("What a gateway does that runs:")
	for _, s := range signals {
		m.row("SIG"+s.name, s.help)
	}
	m.macro("SH", "FITTING TO THE HOST")
	m.text("What sluice tune cannot set is set by keys of the configuration:")
	for _, row := range fitting {
		m.row(row.name, row.help)
	}
	m.macro("SH", "FILES")
	for _, row := range files {
		m.row(row.name, row.help)
	}
	m.macro("SH", "EXIT STATUS")
	for _, row := range exits {
		m.row(row.name, row.help)
	}
	return m.String()
}

// fitting, files and exits are what the manual says of them.
var (
	fitting = [...]word{
		{name: "tuning: { cpus: LIST }", help: `pins all threads of the gateway to these processors, such as "2-5,8", or "0-15:1/2" for the first of every two. ` +
			"GOMAXPROCS follows, and at the next start or upgrade the number of loops. They must be online, and among those that CPUAffinity=, " +
			"taskset or a cpuset leave. A loop is not pinned to one of them: it has no thread of its own. Under the unit it takes the drop-in affinity.conf"},
		{name: "loops: auto | NUMBER", help: "event loops. auto is one for each processor that the runtime has chosen, by affinity and the cgroup's quota of time (CPUQuota=), " +
			"or by GOMAXPROCS of the environment; one processor more is for work beside the loops. Under a quota that is below what affinity allows that one is " +
			"within the quota, and there is one loop fewer. The number of loops follows one that changes with the next start"},
		{name: "tuning: { memory_limit: SIZE, shed_above: SHARE }", help: "memory that the runtime keeps to, and from which share of it on new connections are refused"},
		{name: "socket: { ... }", help: "options of the sockets of a listener or an upstream"},
		{name: "socket: { quickack: on }", help: "what is read is acknowledged at once, for a system call each time, which helps peers that write in pieces " +
			"without TCP_NODELAY. With off connections begin with delayed acknowledgements, to which the kernel turns by itself with the first answer; it " +
			"acknowledges what has no answer after 40 ms"},
		{name: "socket: { steer: true }", help: "of a listener: all connections whose packets one processor takes in come to the same loop. Processors are dealt " +
			"out to loops evenly, those that the gateway may use first, in the order of their numbers. Which processor runs a loop is not promised, and a loop " +
			"beyond the number of processors gets nothing"},
	}
	files = [...]word{
		{name: defaultConfig, help: "the configuration"},
		{name: "/usr/share/doc/sluice/CONFIGURATION.md", help: "every key of it: default, bounds, meaning; below /usr/local where it was installed without a package"},
		{name: "/run/sluice/admin.sock", help: "the admin API, which sluice ctl asks"},
		{name: "/etc/sysctl.d/90-sluice.conf", help: "what sluice tune --apply has set, and what it was before"},
	}
	exits = [...]word{
		{name: "0", help: "done"},
		{name: "1", help: "refused: a configuration that is not valid, a gateway that is not reached, no route"},
		{name: "2", help: "a command line that is not understood; of explain, no answer"},
	}
)

// page is a manual page under way.
type page struct{ strings.Builder }

// macro writes a request with arguments.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		p.WriteString(` "` + strings.ReplaceAll(escape(a), `"`, `""`) + `"`)
	}
	p.WriteByte('\n')
}

// text writes a line of text, which must not be taken for a request.
func (p *page) text(line string) { p.WriteString(`\&` + escape(line) + "\n") }

func (p *page) row(term, help string) {
	p.macro("TP")
	p.macro("B", term)
	p.text(help)
}

func (p *page) rows(rows [][2]string) {
	for _, r := range rows {
		p.row(r[0], r[1])
	}
}

// escape writes characters of their own for those that the language takes for its own. A hyphen is a minus, which can be copied into a
// shell.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}
