package loop

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Address is where to connect to: TCP, or a unix socket.
type Address struct {
	AddrPort netip.AddrPort
	Path     string // of a unix socket; "": TCP
}

func (a Address) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.AddrPort.String()
}

func (a Address) sockaddr() (int, unix.Sockaddr) {
	switch {
	case a.Path != "":
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.Path}
	case a.AddrPort.Addr().Is4():
		return unix.AF_INET, &unix.SockaddrInet4{Addr: a.AddrPort.Addr().As4(), Port: int(a.AddrPort.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: a.AddrPort.Addr().As16(), Port: int(a.AddrPort.Port())}
}

// Dial connects to a. It waits for the connection until the deadline on the loop's clock; 0: none.
func (l *Loop) Dial(a Address, h Handler, deadline int64) (*Conn, error) {
	return l.DialPrepared(a, nil, h, deadline)
}

// Preparation is how a socket of TCP differs that DialPrepared makes. It is immutable.
type Preparation struct {
	Connect  func(fd int) // sets options before it connects
	Renew    func(fd int) // sets those again that connecting has reset; nil: there are none
	QuickAck bool         // of its Conn
}

// DialPrepared is Dial on a socket that is prepared if it is of TCP; nil: it is not.
func (l *Loop) DialPrepared(a Address, p *Preparation, h Handler, deadline int64) (*Conn, error) {
	if a.Path != "" {
		p = nil
	}
	family, sa := a.sockaddr()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make socket: %w", err)
	}
	if a.Path == "" {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if p != nil {
			p.Connect(fd)
		}
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to %s: %w", a, err)
	}
	c, err := l.Adopt(fd, h)
	if err != nil {
		return nil, err
	}
	c.dialled = true
	c.Deadline = deadline
	if err = c.WaitWrite(); err == nil {
		err = c.socketError()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("cannot connect to %s: %w", a, err)
	}
	if p != nil {
		if c.QuickAck = p.QuickAck; p.Renew != nil {
			p.Renew(fd)
		}
	}
	c.Deadline = 0
	return c, nil
}

func (c *Conn) socketError() error {
	e, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && e != 0 {
		err = syscall.Errno(e)
	}
	return err
}
