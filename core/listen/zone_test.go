package listen

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestZoneWithoutNetlink: an address of a link is listened on under a unit that forbids netlink, as the one that is installed does.
func TestZoneWithoutNetlink(t *testing.T) {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the filter is of this thread, which ends with the goroutine
		failed <- func() error {
			if err := forbidNetlink(); err != nil {
				return err
			}
			if fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); err == nil {
				_ = unix.Close(fd)
				return errors.New("netlink is not forbidden")
			}
			_, sa, err := sockaddr(netip.MustParseAddrPort("[fe80::1%lo]:80"))
			if err != nil {
				return err
			}
			if got := sa.(*unix.SockaddrInet6).ZoneId; int(got) != loopback.Index {
				t.Errorf("zone %d, want %d", got, loopback.Index)
			}
			if _, _, err := sockaddr(netip.MustParseAddrPort("[fe80::1%none0]:80")); err == nil {
				t.Error("an interface is found that there is not")
			}
			return nil
		}()
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// forbidNetlink has the kernel refuse netlink sockets to this thread, as systemd does for RestrictAddressFamilies=.
func forbidNetlink() error {
	const number, argument = 0, 16 // offsets in struct seccomp_data; of the argument its lower half
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: argument},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_NETLINK, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
