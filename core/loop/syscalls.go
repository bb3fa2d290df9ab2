package loop

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the hot path are raw: they never block, so Go's scheduler need not be told of them (0.1 us each).

// recv and send are recv(2) and send(2): read(2) and write(2) on a socket do the same after 0.1 us of checks that
// files need, and a write to a connection that is gone costs a signal.
func recv(fd int, p []byte) (int, syscall.Errno) { return transfer(unix.SYS_RECVFROM, fd, p, 0) }

func send(fd int, p []byte) (int, syscall.Errno) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

// read and write are for what is not a socket: eventfd(2) and timerfd(2). The fourth argument is one they do not have.
func read(fd int, p []byte) (int, syscall.Errno)  { return transfer(unix.SYS_READ, fd, p, 0) }
func write(fd int, p []byte) (int, syscall.Errno) { return transfer(unix.SYS_WRITE, fd, p, 0) }

func transfer(call uintptr, fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	n, _, e := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// epollWait takes the events that are there, without waiting.
func epollWait(fd int, events []unix.EpollEvent) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func epollModify(epoll, fd int, e *unix.EpollEvent) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(e)), 0, 0)
	return errno
}

// acknowledge has the kernel send the acknowledgement that waits for an answer to go with, and none wait until the next answer. That fails
// only where the connection has, which is then for reads and writes to tell.
func acknowledge(fd int) {
	on := int32(1)
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&on)), unsafe.Sizeof(on), 0)
}

func closeFD(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func splice(from, to int, n int) (int, syscall.Errno) {
	const flags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	k, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), flags)
	if e != 0 {
		return 0, e
	}
	return int(k), 0
}
