package main

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// optionPrefix begins the names of the scenarios that compare Sluice with an option and without.
const optionPrefix = "option-"

// socketOption is an option of sockets, or of the process, as Sluice's configuration has it.
type socketOption struct {
	name     string // in the name of its scenarios
	listener string // of the map socket: of the listener
	upstream string // likewise of the upstream
	process  string // of the map tuning:
	// workloads are those on which the option may pay.
	workloads []workload
	// spread has Sluice use all processors, with a loop for each, because the option chooses among loops. The load shares them.
	spread bool
	// fastOpen has clients send their request in the SYN, on both sides of the comparison.
	fastOpen bool
}

// workload is what clients do.
type workload struct {
	name   string
	change func(*scenario)
}

// workloads: requests on connections that are kept, connections that are made for one request each, and long answers.
func workloads() (kept, fresh, long workload) {
	return workload{"keep", func(*scenario) {}},
		workload{"new", func(s *scenario) { s.handshake, s.connections = handshakeFull, handshakesAtOnce }},
		workload{"1m", func(s *scenario) { s.path, s.reply.bodyBytes = "/1m", largeBodyBytes }}
}

// optionScenarios are the scenarios of every option, congestion control by each algorithm that the host has beside its default.
func optionScenarios() (all []scenario) {
	kept, fresh, long := workloads()
	both := func(name, text string, on ...workload) socketOption {
		return socketOption{name: name, listener: text, upstream: text, workloads: on}
	}
	options := []socketOption{
		{name: "defer_accept", listener: "defer_accept: 5s", workloads: []workload{fresh}},
		{name: "fast_open", listener: "fast_open: 256", workloads: []workload{fresh}, fastOpen: true},
		both("notsent_lowat", "notsent_lowat: 128KiB", kept, long),
		both("quickack-off", "quickack: off", kept, fresh),
		both("quickack-on", "quickack: on", kept, fresh),
		{name: "incoming_cpu", listener: "incoming_cpu: true", workloads: []workload{kept, fresh}, spread: true},
		{name: "steer", listener: "steer: true", workloads: []workload{kept, fresh}, spread: true},
		both("busy_poll", "busy_poll: 50us", kept, fresh),
		both("buffers", "receive_buffer: 200KiB, send_buffer: 200KiB", kept, long),
	}
	for _, name := range otherCongestion() {
		options = append(options, both("congestion-"+name, "congestion: "+name, kept, long))
	}
	alone := workload{"one", func(s *scenario) { s.connections = 1 }}
	few := workload{"two", func(s *scenario) { s.connections = 2 }}
	options = append(options, socketOption{name: "busy_polling", process: "busy_polling: 40us", workloads: []workload{alone, few, kept}})
	for _, o := range options {
		for _, w := range o.workloads {
			s := keptScenario()
			s.name, s.option = optionPrefix+o.name+"-"+w.name, o
			w.change(&s)
			all = append(all, s)
		}
	}
	return all
}

// otherCongestion are the algorithms that the kernel has loaded, without its default.
func otherCongestion() (names []string) {
	available, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	inForce, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	for _, name := range strings.Fields(string(available)) {
		if name != strings.TrimSpace(string(inForce)) {
			names = append(names, name)
		}
	}
	return names
}

// remark is what a reader should know of the host who sees the option make no difference.
func (o socketOption) remark() string {
	if !o.fastOpen {
		return ""
	}
	text, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_fastopen")
	switch strings.TrimSpace(string(text)) {
	case "3", "7":
		return ""
	}
	return "net.ipv4.tcp_fastopen is not 3: the kernel does without TCP Fast Open"
}

// sendInSYN makes a socket that is about to connect send its first bytes with the SYN (RFC 7413), where the kernel has a cookie for it.
func sendInSYN(_, _ string, c syscall.RawConn) (err error) {
	if failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	}); failed != nil {
		return failed
	}
	return err
}
