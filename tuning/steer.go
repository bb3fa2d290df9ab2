package tuning

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SteerShards makes the kernel give a connection to the shard whose number is that of the processor on which its packets come, modulo the
// number of shards. fd is any of the listening sockets of one address, bound with SO_REUSEPORT, and it holds for all of them. A
// shard that is not there, because it was closed, is chosen by the kernel's hash instead.
func SteerShards(fd, shards int) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(0xfffff000 + 36)}, // SKF_AD_OFF + SKF_AD_CPU
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(shards)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		uintptr(unsafe.Pointer(&p)), unsafe.Sizeof(p), 0)
	if e != 0 {
		return e
	}
	return nil
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
