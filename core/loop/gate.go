package loop

import (
	"fmt"
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
	woken func(uintptr) bool
	asked bool
}

func openGate(inner int) (*gate, error) {
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
	g.woken = func(uintptr) bool { // first asked before the wait, then after it
		g.asked = !g.asked
		return !g.asked
	}
	return g, nil
}

// wait returns when the loop's epoll instance has events, or for no reason.
func (g *gate) wait() error {
	if err := g.watch(unix.EPOLLIN); err != nil {
		return err
	}
	g.asked = false
	if err := g.conn.Read(g.woken); err != nil {
		return err
	}
	return g.watch(0)
}

func (g *gate) watch(events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(g.inner)}
	if errno := epollModify(g.fd, g.inner, &e); errno != 0 {
		return fmt.Errorf("cannot watch epoll instance: %w", errno)
	}
	return nil
}

func (g *gate) close() { _ = g.file.Close() }
