package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// kernelSince wants a release of the kernel.
func kernelSince(major, minor int) judge {
	return func(h *Host, _ string) verdict {
		v := verdict{state: Unknown, current: h.kernel(), wanted: fmt.Sprintf("%d.%d or newer", major, minor)}
		if a, b, ok := version(v.current); ok {
			v.state = goodIf(a > major || a == major && b >= minor)
		}
		return v
	}
}

func goodIf(good bool) State {
	if good {
		return Good
	}
	return Bad
}

// clocks are those that are read without a system call.
var clocks = [...]string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}

func clocksource(h *Host, _ string) verdict {
	const wanted = "one of tsc, kvm-clock, hyperv_clocksource_tsc_page, arch_sys_counter"
	text, err := h.line("sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return unreadable(err, wanted)
	}
	return verdict{state: goodIf(slices.Contains(clocks[:], text)), current: text, wanted: wanted}
}

func governor(h *Host, _ string) verdict {
	const wanted = "performance (cpupower frequency-set -g performance)"
	seen := map[string]int{}
	const folder = "sys/devices/system/cpu"
	for _, name := range h.entries(folder) {
		if text, err := h.line(path.Join(folder, name, "cpufreq/scaling_governor")); err == nil {
			seen[text]++
		}
	}
	if len(seen) == 0 {
		return verdict{state: Absent, current: "none: the hardware or the hypervisor decides", wanted: wanted}
	}
	return verdict{state: goodIf(len(seen) == 1 && seen["performance"] > 0), current: tallied(seen), wanted: wanted}
}

// tallied lists words with how often they were seen.
func tallied(seen map[string]int) string {
	var list []string
	for word, n := range seen {
		list = append(list, fmt.Sprintf("%s on %d", word, n))
	}
	slices.Sort(list)
	return strings.Join(list[:min(len(list), 4)], ", ")
}

func throttling(h *Host, _ string) verdict {
	const most = 0.01
	const wanted = "at most 1% of periods (a higher CPUQuota=, or none)"
	share, periods, err := h.throttled()
	switch {
	case err != nil:
		return unreadable(err, wanted)
	case periods == 0:
		return verdict{state: Good, current: "no quota", wanted: wanted}
	}
	return verdict{state: goodIf(share <= most), current: fmt.Sprintf("%.1f%% of %d periods", 100*share, periods), wanted: wanted}
}

func numa(h *Host, _ string) verdict {
	const wanted = "one node (a gateway for each: tuning.cpus or CPUAffinity=, and NUMAMask=)"
	text, err := h.line("sys/devices/system/node/online")
	if errors.Is(err, fs.ErrNotExist) {
		return verdict{state: Good, current: "one node", wanted: wanted}
	}
	if err != nil {
		return unreadable(err, wanted)
	}
	nodes, err := parseList(text)
	if err != nil {
		return unreadable(err, wanted)
	}
	return verdict{state: goodIf(len(nodes) == 1), current: fmt.Sprintf("%d nodes", len(nodes)), wanted: wanted}
}

func hugePages(h *Host, _ string) verdict {
	const wanted = "madvise or never (transparent_hugepage=madvise on the kernel's command line)"
	text, err := h.line("sys/kernel/mm/transparent_hugepage/enabled")
	if errors.Is(err, fs.ErrNotExist) {
		return verdict{state: Absent, current: "the kernel has none", wanted: wanted}
	}
	if err != nil {
		return unreadable(err, wanted)
	}
	_, chosen, _ := strings.Cut(text, "[")
	chosen, _, ok := strings.Cut(chosen, "]")
	if !ok {
		return unreadable(errMisshapen, wanted)
	}
	return verdict{state: goodIf(chosen != "always"), current: chosen, wanted: wanted}
}

func swap(h *Host, _ string) verdict {
	const wanted = "none in use"
	text, err := h.read("proc/meminfo")
	if err != nil {
		return unreadable(err, wanted)
	}
	total, err := field(text, "SwapTotal:")
	free, err2 := field(text, "SwapFree:")
	if err = errors.Join(err, err2); err != nil || free > total {
		return unreadable(errMisshapen, wanted)
	}
	return verdict{state: goodIf(total == free), current: fmt.Sprintf("%d KiB in use", total-free), wanted: wanted}
}

func oomKills(h *Host, _ string) verdict {
	const wanted = "none (a larger MemoryMax=, or a smaller memory_limit)"
	unified, own := h.groups("memory")
	for _, folder := range append(unified, own...) {
		for _, file := range []string{"memory.events", "memory.oom_control"} {
			text, err := h.read(path.Join(folder, file))
			if err != nil {
				continue
			}
			if n, err := field(text, "oom_kill"); err == nil {
				return verdict{state: goodIf(n == 0), current: fmt.Sprint(n), wanted: wanted}
			}
		}
	}
	return unreadable(fs.ErrNotExist, wanted)
}

// files wants so many descriptors. It is the limit of whoever asks, which may differ from the service's.
func files(least uint64) judge {
	return func(h *Host, _ string) verdict {
		wanted := fmt.Sprintf("at least %d (LimitNOFILE=, ulimit -Hn)", least)
		text, err := h.read("proc/self/limits")
		if err != nil {
			return unreadable(err, wanted)
		}
		for line := range strings.Lines(text) {
			rest, ok := strings.CutPrefix(line, "Max open files")
			if f := strings.Fields(rest); ok && len(f) >= 2 {
				if f[1] == "unlimited" {
					return verdict{state: Good, current: "unlimited", wanted: wanted}
				}
				n, err := parseNumber(f[1])
				if err != nil {
					break
				}
				return verdict{state: goodIf(n >= least), current: f[1], wanted: wanted}
			}
		}
		return unreadable(errMisshapen, wanted)
	}
}

func conntrack(h *Host, _ string) verdict {
	const wanted = "at most 70% in use (net.netfilter.nf_conntrack_max, or notrack rules for the listeners' ports)"
	most, err := h.number("proc/sys/net/netfilter/nf_conntrack_max")
	if errors.Is(err, fs.ErrNotExist) {
		return verdict{state: Absent, current: "connections are not tracked", wanted: wanted}
	}
	have, err2 := h.number("proc/sys/net/netfilter/nf_conntrack_count")
	if err = errors.Join(err, err2); err != nil {
		return unreadable(err, wanted)
	}
	return verdict{state: goodIf(float64(have) <= 0.7*float64(most)), current: fmt.Sprintf("%d of %d", have, most), wanted: wanted}
}

func congestion(h *Host, _ string) verdict {
	const wanted = "bbr with fq (modprobe tcp_bbr; net.ipv4.tcp_congestion_control, net.core.default_qdisc)"
	control, err := h.sysctl("net.ipv4.tcp_congestion_control")
	if err != nil {
		return unreadable(err, wanted)
	}
	current := control
	discipline, err := h.sysctl("net.core.default_qdisc")
	if err == nil {
		current += " with " + discipline
	}
	return verdict{state: goodIf(control == "bbr" && discipline == "fq"), current: current, wanted: wanted}
}

// netstat wants a counter of TcpExt to stand at zero.
func netstat(counter, remedy string) judge {
	return func(h *Host, _ string) verdict {
		wanted := "0 (" + remedy + ")"
		text, err := h.read("proc/net/netstat")
		if err != nil {
			return unreadable(err, wanted)
		}
		var names []string
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] != "TcpExt:" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			i := slices.Index(names, counter)
			if i < 0 || i >= len(f) {
				break
			}
			n, err := parseNumber(f[i])
			if err != nil {
				break
			}
			return verdict{state: goodIf(n == 0), current: f[i], wanted: wanted}
		}
		return unreadable(errMisshapen, wanted)
	}
}
