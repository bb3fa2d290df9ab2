package loop

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// acceptBatch bounds the connections taken from one socket in a turn; the kernel reports what is left again. It is less than a turn
// begins: those that cannot be served yet wait in the kernel, where they count towards no limit, and other loops may take them.
const acceptBatch = maxBegun / 2

// acceptPause is how long a socket rests when the process has no descriptor or memory left for a connection.
const acceptPause = 100 * time.Millisecond

// Acceptor is a listening socket of a loop.
type Acceptor struct {
	loop     *Loop
	fd       int
	serial   int32
	accepted func(fd int, peer netip.AddrPort)
	rest     *Timer
	closed   bool
	told     int64 // when the log was last told of failures; 0: never
	Failures int   // accepts that failed for want of descriptors or memory
}

// Accept makes the loop take connections from fd, a listening, non-blocking socket, which it owns from then on. accepted
// gets each as a non-blocking descriptor that it must Adopt or close; peer is zero for a unix socket. shared says that
// other loops wait on a copy of the same socket: then one of them is woken for each connection, not all.
func (l *Loop) Accept(fd int, shared bool, accepted func(fd int, peer netip.AddrPort)) (*Acceptor, error) {
	l.serial++
	a := &Acceptor{loop: l, fd: fd, serial: l.serial, accepted: accepted}
	events := uint32(unix.EPOLLIN)
	if shared {
		events |= unix.EPOLLEXCLUSIVE
	}
	if err := l.register(fd, events, a.serial); err != nil {
		return nil, fmt.Errorf("cannot watch listening socket: %w", err)
	}
	a.rest = l.NewTimer(func() {
		if l.register(a.fd, events, a.serial) != nil { // no memory still
			a.rest.At(l.now + int64(acceptPause))
		}
	})
	l.accepts[int32(fd)] = a
	return a, nil
}

// accept takes a batch, and says whether there may be more.
func (a *Acceptor) accept() (more bool) {
	for range acceptBatch {
		if a.closed {
			return false
		}
		var sa unix.RawSockaddrAny
		n := uint32(unsafe.Sizeof(sa))
		fd, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(a.fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			a.accepted(int(fd), peerOf(&sa))
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			a.Failures++
			a.complain(e)
			a.pause()
			return false
		case syscall.EINTR, syscall.ECONNABORTED:
		default: // EAGAIN, and the network's errors of a connection that is already over
			return false
		}
	}
	return true
}

// complain tells the log, once a minute, that clients wait.
func (a *Acceptor) complain(e syscall.Errno) {
	if now := a.loop.now; a.told == 0 || now-a.told >= int64(time.Minute) {
		a.told = now
		a.loop.log.Error("cannot accept: clients wait; raise LimitNOFILE= of the unit, or bound the listeners' limits.connections",
			"loop", a.loop.options.Index, "error", e, "failures", a.Failures)
	}
}

// pause takes the socket out of epoll for a while: without descriptors the loop would spin on it.
func (a *Acceptor) pause() {
	if unix.EpollCtl(a.loop.epoll, unix.EPOLL_CTL_DEL, a.fd, nil) == nil {
		a.rest.At(a.loop.now + int64(acceptPause))
	}
}

// Close stops accepting. What is in the kernel's queue is refused, unless another process or loop holds the socket: then
// epoll would go on reporting it, because what it watches is not the descriptor but what that stands for.
func (a *Acceptor) Close() {
	if a.closed {
		return
	}
	a.closed = true
	a.rest.Stop()
	delete(a.loop.accepts, int32(a.fd))
	_ = unix.EpollCtl(a.loop.epoll, unix.EPOLL_CTL_DEL, a.fd, nil)
	_ = unix.Close(a.fd)
}

// Copy gives another descriptor of the socket, for a process that is to accept from it too. It is the caller's.
func (a *Acceptor) Copy() (int, error) {
	if a.closed {
		return -1, ErrClosed
	}
	return unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
}

// Control runs f with the descriptor, to read or change options of the socket.
func (a *Acceptor) Control(f func(fd int)) {
	if !a.closed {
		f(a.fd)
	}
}

// Drain takes what is in the queue before Close.
func (a *Acceptor) Drain() {
	for !a.closed && a.accept() {
	}
}

// Queued is the number of connections of a TCP socket that wait to be accepted, as the kernel counts them: of a listening
// socket tcpi_unacked is the length of its queue.
func (a *Acceptor) Queued() int {
	if a.closed {
		return 0
	}
	info, err := unix.GetsockoptTCPInfo(a.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return int(info.Unacked)
}

func peerOf(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), port(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), port(a.Port))
	}
	return netip.AddrPort{}
}

// port turns a port in network byte order around.
func port(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}
