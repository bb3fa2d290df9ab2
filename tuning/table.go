package tuning

// entry is an item of the report. To add one is to add an entry, with its source, to the table of sysctls or of the hardware.
type entry struct {
	id       string // of a sysctl its name
	severity Severity
	judge    judge
	why      string // with the source in brackets
}

// judge looks at an item. A judge that cannot read it says Unknown with an empty current value.
type judge func(h *Host, id string) verdict

// verdict is what a judge says: how it is, how it should be, and for a sysctl what to write to make it so.
type verdict struct {
	state           State
	current, wanted string
	set             string
}

// sysctls are what Apply may change. Values are for a host whose main work is a gateway.
var sysctls = [...]entry{
	{"net.core.somaxconn", High, atLeast(16384),
		"bounds every listener's queue: in a burst what does not fit is dropped (kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_max_syn_backlog", Medium, atLeast(16384),
		"bounds half-open connections, beyond which cookies must do (kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_syncookies", High, oneOf("1"),
		"without cookies a SYN flood closes the listener (RFC 4987 section 3.6)"},
	{"net.ipv4.tcp_abort_on_overflow", Medium, oneOf("0"),
		"resets clients that a burst would only make wait (kernel: networking/ip-sysctl)"},
	{"net.core.netdev_max_backlog", Medium, atLeast(8192),
		"bounds packets between a device and its protocol on one processor (kernel: admin-guide/sysctl/net)"},
	{"net.core.netdev_budget", Low, atLeast(600),
		"packets of one softirq turn: fewer leave a fast device waiting (kernel: admin-guide/sysctl/net)"},
	{"net.core.rmem_max", Medium, atLeast(8 << 20),
		"caps receive_buffer of listeners and upstreams (man 7 socket)"},
	{"net.core.wmem_max", Medium, atLeast(8 << 20),
		"caps send_buffer of listeners and upstreams (man 7 socket)"},
	{"net.ipv4.tcp_rmem", Medium, lastAtLeast(6 << 20),
		"the last bounds a connection's window, and with the distance its speed (RFC 7323; man 7 tcp)"},
	{"net.ipv4.tcp_wmem", Medium, lastAtLeast(4 << 20),
		"the last bounds what is on its way on a connection, and with the distance its speed (man 7 tcp)"},
	{"net.ipv4.tcp_window_scaling", High, oneOf("1"),
		"without it a window ends at 64 KiB (RFC 7323 section 2)"},
	{"net.ipv4.tcp_sack", High, oneOf("1"),
		"without it one loss repeats a whole window (RFC 2018)"},
	{"net.ipv4.tcp_timestamps", Medium, oneOf("1", "2"),
		"tcp_tw_reuse and protection of old sequence numbers need them (RFC 7323 section 3)"},
	{"net.ipv4.tcp_slow_start_after_idle", Medium, oneOf("0"),
		"connections that are kept to upstreams would begin slowly after each pause (kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_mtu_probing", Low, oneOf("1", "2"),
		"finds the path's packet size where ICMP is filtered, instead of hanging (RFC 4821)"},
	{"net.ipv4.tcp_notsent_lowat", Low, atMost(131072),
		"bounds what of a slow client's answer waits unsent in the kernel (kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_fastopen", Low, bits(2),
		"fast_open of listeners needs the bit of servers, 2; that of clients, 1, is left as it is: nothing is dialled so (RFC 7413; kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_migrate_req", Medium, oneOf("1"),
		"moves waiting connections when an upgrade closes one of several listening sockets; Linux 5.14 (kernel: networking/ip-sysctl)"},
	{"net.ipv4.ip_local_port_range", High, ports(50_000, "10240 65535"),
		"bounds connections to one endpoint of an upstream (man 7 ip)"},
	{"net.ipv4.tcp_tw_reuse", Medium, oneOf("1"),
		"else a closed connection to an upstream holds its port for a minute (kernel: networking/ip-sysctl)"},
	{"net.ipv4.tcp_max_tw_buckets", Low, atLeast(65536),
		"beyond it closed connections are forgotten too early (man 7 tcp)"},
	{"net.ipv4.tcp_fin_timeout", Low, atMost(30),
		"seconds that a client which does not close its side holds memory (man 7 tcp)"},
	{"net.ipv4.tcp_keepalive_time", Low, atMost(900),
		"seconds until a tunnel's dead peer is asked, if keepalive is on; firewalls forget it sooner than the default (man 7 tcp)"},
	{"fs.file-max", High, atLeast(1 << 20),
		"bounds descriptors of the whole host; a proxied request has two (man 5 proc)"},
	{"fs.nr_open", Medium, atLeast(1 << 20),
		"bounds what LimitNOFILE= may be (man 5 proc)"},
	{"vm.swappiness", Low, atMost(10),
		"a gateway whose heap is swapped out answers in seconds (kernel: admin-guide/sysctl/vm)"},
	{"vm.overcommit_memory", Medium, oneOf("0", "1"),
		"with 2 address space that the runtime only reserves counts as used (go.dev/doc/gc-guide)"},
	{"kernel.numa_balancing", Low, oneOf("0"),
		"moves pages of a busy heap about, with a fault for each (kernel: admin-guide/sysctl/kernel)"},
}

// hardware is what is told, and changed by other means than sysctls: the wanted value says by which.
var hardware = [...]entry{
	{"kernel.version", Medium, kernelSince(5, 14),
		"older kernels lose waiting connections in upgrades (tcp_migrate_req: Linux 5.14)"},
	{"kernel.clocksource", High, clocksource,
		"other clocks cost a system call or a slow register each time (kernel: timers/timekeeping)"},
	{"cpu.governor", Medium, governor,
		"a processor that clocks down between requests answers the next one late (kernel: admin-guide/pm/cpufreq)"},
	{"cpu.throttled", High, throttling,
		"while its cgroup is stopped the gateway answers nobody (kernel: admin-guide/cgroup-v2, cpu.stat)"},
	{"cpu.numa", Low, numa,
		"memory of the other node is slower: bind a gateway to each (kernel: admin-guide/mm/numaperf)"},
	{"memory.huge_pages", Medium, hugePages,
		"always makes a heap of many small objects grow (go.dev/doc/gc-guide, Linux transparent huge pages)"},
	{"memory.swap", Low, swap,
		"what is swapped out is waited for (kernel: admin-guide/sysctl/vm)"},
	{"memory.oom_kills", High, oomKills,
		"the kernel has ended a process of this cgroup for want of memory (kernel: admin-guide/cgroup-v2, memory.events)"},
	{"limits.files", High, files(65536),
		"a proxied request has two descriptors; clients beyond them wait (man 2 getrlimit)"},
	{"conntrack.room", High, conntrack,
		"a full table drops new connections of everybody (kernel: networking/nf_conntrack-sysctl)"},
	{"net.congestion", Low, congestion,
		"bbr keeps its speed on paths that lose packets, and wants fq to pace it (draft-ietf-ccwg-bbr)"},
	{"net.listen_drops", Medium, netstat("ListenDrops", "raise net.core.somaxconn and the listener's backlog"),
		"connections that found a listener's queue full since the host began (man 8 netstat, TcpExt)"},
	{"net.softnet_drops", Medium, softnet,
		"packets that found a processor's queue full since the host began (/proc/net/softnet_stat, second column)"},
	{"nic.queues", Medium, eachDevice(receiveQueues),
		"one receive queue feeds one processor, unless RPS spreads it (kernel: networking/scaling)"},
	{"nic.xps", Low, eachDevice(transmitQueues),
		"without XPS processors contend for the transmit queues (kernel: networking/scaling)"},
	{"nic.irqs", Medium, eachDevice(interrupts),
		"interrupts of all queues on one processor make it the bottleneck (kernel: core-api/irq/irq-affinity)"},
	{"nic.drops", Medium, eachDevice(receiveDrops),
		"packets that the device had no room for (kernel: networking/statistics, rx_missed_errors)"},
	{"nic.ring", Low, eachDevice(ring),
		"a short ring loses bursts (man 8 ethtool, -g)"},
	{"nic.offloads", Medium, eachDevice(offloads),
		"without them the kernel pays for each packet instead of for each 64 KiB (kernel: networking/segmentation-offloads)"},
}
