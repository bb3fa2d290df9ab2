package tuning

import (
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SteerShards makes the kernel give a connection to a shard by the processor that takes its packets in: that of the i-th of cpus is i
// modulo the number of shards, as Socket.IncomingCPU has it, and that of one which is not among them is its own number modulo
// shards. So all connections of a processor come to one shard, and shards have as many processors each, give or take one; a shard beyond the
// processors has none, and gets nothing. Which processor runs the thread that accepts is not the kernel's concern here.
//
// fd is any of the listening sockets of one address, bound with SO_REUSEPORT, and it holds for all of them. cpus has each number once.
// A shard that is not there, because it was closed, is chosen by the kernel's hash instead.
func SteerShards(fd, shards int, cpus []int) error {
	program := steering(shards, cpus)
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		uintptr(unsafe.Pointer(&p)), unsafe.Sizeof(p), 0)
	if e != 0 {
		return e
	}
	return nil
}

// steering is the program of SteerShards. It compares with those processors alone of which the modulo would not say the same: with
// none where they are numbered without gaps. If that is more than a program may have it is left at the modulo, which gives each
// processor one shard as well, if not each shard as many.
func steering(shards int, cpus []int) []unix.SockFilter {
	const number = 0xfffff000 + 36 // SKF_AD_OFF + SKF_AD_CPU (linux/filter.h)
	load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number}
	modulo := []unix.SockFilter{
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(shards)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	program := []unix.SockFilter{load}
	for i, cpu := range cpus {
		if shard := i % shards; shard != cpu%shards {
			program = append(program,
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(cpu)},
				unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(shard)})
		}
	}
	if len(program)+len(modulo) > unix.BPF_MAXINSNS {
		program = program[:1]
	}
	return append(program, modulo...)
}

// Unsteer takes back what SteerShards did. It may be called where nothing was done.
func Unsteer(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// AllowedCPUs are the numbers of the processors that this process may run on; none where the kernel does not tell.
func AllowedCPUs() (cpus []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// ReceivingCPUs are the processors that may take packets in, in the order in which SteerShards deals them out: first AllowedCPUs, which
// IncomingCPU means too, then the others that are online, for a network device asks nobody where this process may run.
func ReceivingCPUs() []int {
	return receiving(AllowedCPUs(), (&Host{Files: os.DirFS("/")}).processors("online"))
}

func receiving(allowed, online []int) []int {
	cpus := slices.Clone(allowed)
	for _, cpu := range online {
		if !slices.Contains(allowed, cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
