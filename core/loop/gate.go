package loop

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// gate stands between the loop's epoll instance and Go's netpoller, in which a parked loop waits without holding a thread.
// It is an epoll instance that watches the loop's, but only while the loop is parked: were the netpoller to watch that one
// itself, every event that comes while the loop runs would wake a thread for nothing (20 % of the CPU time of a busy
// gateway).
type gate struct {
	inner int // the loop's epoll instance
	fd    int
	file  *os.File
	conn  syscall.RawConn
	ask   func(uintptr) bool
	asked bool
	err   error
}

// openGate makes a gate before inner. ready, which takes what events there are and says whether there are any, is called
// before the loop is parked and after it was woken.
func openGate(inner int, ready func() bool) (*gate, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	g := &gate{inner: inner, fd: fd}
	e := unix.EpollEvent{Fd: int32(inner)}
	if err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, inner, &e); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	g.file = os.NewFile(uintptr(fd), "gate")
	if g.conn, err = g.file.SyscallConn(); err != nil {
		_ = g.file.Close()
		return nil, err
	}
	// The netpoller forgets what it saw before a wait begins, and asks then. The order matters: first open, then look. What
	// comes after the look opens the gate with an edge; what was there before may not.
	g.ask = func(uintptr) bool {
		if !g.asked {
			g.asked = true
			g.err = g.watch(unix.EPOLLIN)
			return g.err != nil || ready()
		}
		ready()
		return true
	}
	return g, nil
}

// wait returns when ready has taken events, or for no reason.
func (g *gate) wait() error {
	g.asked = false
	if err := g.conn.Read(g.ask); err != nil {
		return err
	}
	if g.err != nil {
		return g.err
	}
	return g.watch(0)
}

func (g *gate) watch(events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(g.inner)}
	if errno := epollModify(g.fd, g.inner, &e); errno != 0 {
		return errno
	}
	return nil
}

func (g *gate) close() { _ = g.file.Close() }
