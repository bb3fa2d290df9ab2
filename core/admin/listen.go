package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner of the process alone speak to it.
const socketMode = 0o600

// Bind is where the API listens: TCP, or with Path a unix socket.
type Bind struct {
	Addr netip.AddrPort
	Path string
}

// Listen opens the API's address. Loopback alone is allowed over TCP, since nothing asks for a password. The file of a unix
// socket on which nobody listens any more is replaced, no other, and replaced says so, of a failure afterwards, too; it is removed
// when the listener is closed.
func Listen(b Bind) (l net.Listener, replaced bool, err error) {
	if b.Path != "" {
		l, replaced, err := listenUnix(b.Path)
		if err != nil {
			return nil, replaced, fmt.Errorf("cannot listen for the admin API on %q: %w", "unix:"+b.Path, advised(err))
		}
		return l, replaced, nil
	}
	if !b.Addr.Addr().IsLoopback() {
		return nil, false, fmt.Errorf("cannot listen for the admin API on %q: it has no authentication, so that only a unix socket or a loopback address is allowed", b.Addr)
	}
	if l, err = net.Listen("tcp", b.Addr.String()); err != nil {
		return nil, false, fmt.Errorf("cannot listen for the admin API on %q: %w", b.Addr, advised(err))
	}
	return l, false, nil
}

// advised is an error with what to do about it.
func advised(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: the folder must be there and one that the gateway may write to, such as that of RuntimeDirectory=; the key admin names another", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another process listens there: see ss -ltnxp, or give this one its own by the key admin", err)
	}
	return err
}

func listenUnix(path string) (listener net.Listener, replaced bool, err error) {
	if replaced, err = removeStale(path); err != nil {
		return nil, false, err
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		// Linux gives the file that bind makes the mode of the socket: it never has a wider one.
		if failed := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); failed != nil {
			return failed
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, replaced, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	u := &unixListener{Listener: l, path: path}
	u.owns.Store(true)
	if u.file, err = os.Lstat(path); err == nil && u.file.Mode().Perm() != socketMode {
		err = os.Chmod(path, socketMode)
	}
	if err != nil {
		_ = l.Close()
		return nil, replaced, err
	}
	return u, replaced, nil
}

// removeStale removes what a process that died has left, and says whether there was any.
func removeStale(path string) (removed bool, err error) {
	f, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if f.Mode().Type() != fs.ModeSocket {
		return false, errors.New("a file that is no socket is in the way: move it, or name another path by the key admin")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return false, unix.EADDRINUSE
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return false, err
	}
	err = os.Remove(path)
	return err == nil, err
}

// Inherit is Listen on the socket of the process before, of which it makes a copy. The file of a unix socket is that process's
// until Own.
func Inherit(b Bind, socket *os.File) (net.Listener, error) {
	l, err := net.FileListener(socket)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the admin API's socket: %w", err)
	}
	at, unixSocket := l.Addr().(*net.UnixAddr)
	tcp, _ := l.Addr().(*net.TCPAddr)
	switch {
	case unixSocket && b.Path != "" && at.Name == b.Path:
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		u := &unixListener{Listener: l, path: b.Path}
		if u.file, err = os.Lstat(b.Path); err == nil {
			return u, nil
		}
	case tcp != nil && b.Path == "" && tcp.AddrPort().Addr().Unmap() == b.Addr.Addr().Unmap() && (b.Addr.Port() == 0 || tcp.AddrPort().Port() == b.Addr.Port()):
		return l, nil
	default:
		err = fmt.Errorf("it is bound to %s", l.Addr())
	}
	_ = l.Close()
	return nil, fmt.Errorf("cannot take over the admin API's socket: %w", err)
}

// Copy gives a descriptor of l's socket, for another process. It is the caller's.
func Copy(l net.Listener) (fd int, err error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return -1, errors.New("cannot copy the admin API's socket: it has no descriptor")
	}
	raw, err := c.SyscallConn()
	if err == nil {
		failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
		if failed != nil {
			err = failed
		}
	}
	if err != nil {
		return -1, fmt.Errorf("cannot copy the admin API's socket: %w", err)
	}
	return fd, nil
}

// Own says whether closing l removes the file of its socket, if it has one: it is the process's that accepts last.
func Own(l net.Listener, own bool) {
	if u, ok := l.(*unixListener); ok {
		u.owns.Store(own)
	}
}

// unixListener removes its file when it is closed, unless another process has put its own there.
type unixListener struct {
	net.Listener
	path string
	file fs.FileInfo
	owns atomic.Bool
}

func (l *unixListener) SyscallConn() (syscall.RawConn, error) {
	return l.Listener.(*net.UnixListener).SyscallConn()
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); l.owns.Load() && err == nil && os.SameFile(now, l.file) && now.ModTime().Equal(l.file.ModTime()) {
		_ = os.Remove(l.path)
	}
	return l.Listener.Close()
}
