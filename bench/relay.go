package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	childRelay = "relay" // the hidden subcommand of relayBytes

	relayBuffer = 68 << 10
	relayEvents = 128
)

// relayBytes is the least that a proxy on epoll can do: it knows no protocol, gives each client a connection to the upstream for its
// own, and passes on what comes. What it costs is the kernel's part of a request, two receives and two sends, and the floor of every
// proxy that makes them. The file names the address to listen on and the upstream's.
func relayBytes(ctx context.Context, args []string, _ io.Reader, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("want the file of addresses")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("cannot read addresses: %w", err)
	}
	addresses := strings.Fields(string(text))
	if len(addresses) != 2 {
		return fmt.Errorf("want two addresses, have %q", text)
	}
	r := relay{buffer: make([]byte, relayBuffer)}
	for i, to := range []*unix.SockaddrInet4{&r.at, &r.upstream} {
		a, err := netip.ParseAddrPort(addresses[i])
		if err != nil || !a.Addr().Is4() {
			return fmt.Errorf("cannot use address %q: want IPv4 and a port", addresses[i])
		}
		to.Addr, to.Port = a.Addr().As4(), int(a.Port())
	}
	if err := r.listen(); err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	defer unix.Close(r.epoll)    //nolint:errcheck // at the end
	defer unix.Close(r.listener) //nolint:errcheck // at the end
	for ctx.Err() == nil {
		if err := r.turn(); err != nil {
			return err
		}
	}
	return nil
}

// relay is one epoll instance with a socket that listens.
type relay struct {
	at, upstream unix.SockaddrInet4
	epoll        int
	listener     int
	other        []int32 // by descriptor: whom to pass on to
	events       [relayEvents]unix.EpollEvent
	buffer       []byte
}

func (r *relay) listen() (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if r.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return errors.Join(unix.SetsockoptInt(r.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(r.listener, &r.at),
		unix.Listen(r.listener, 4096), r.watch(r.listener, unix.EPOLLIN))
}

func (r *relay) watch(fd int, events uint32) error {
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (r *relay) turn() error {
	n, err := unix.EpollWait(r.epoll, r.events[:], 1000)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("cannot wait: %w", err)
	}
	for _, e := range r.events[:max(n, 0)] {
		switch fd := int(e.Fd); {
		case fd == r.listener:
			err = r.accept()
		case r.other[fd] != 0: // an event of one whose other side has gone in this turn
			err = r.pass(fd, int(r.other[fd]))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *relay) accept() error {
	client, _, err := unix.Accept4(r.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil // the client has gone
	}
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot make socket: %w", err)
	}
	if err := unix.Connect(server, &r.upstream); err != nil {
		return fmt.Errorf("cannot connect to the upstream: %w", err)
	}
	for len(r.other) <= max(client, server) {
		r.other = append(r.other, make([]int32, 1024)...)
	}
	r.other[client], r.other[server] = int32(server), int32(client)
	err = unix.SetNonblock(server, true)
	for _, fd := range []int{client, server} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), r.watch(fd, unix.EPOLLIN|unix.EPOLLET))
	}
	return err
}

// pass gives what from has to say to the other side, and ends both when one has ended.
func (r *relay) pass(from, to int) error {
	for {
		n, errno := transfer(unix.SYS_RECVFROM, from, r.buffer)
		if errno == unix.EAGAIN {
			return nil
		}
		for p := r.buffer[:n]; errno == 0 && len(p) > 0; {
			var sent int
			if sent, errno = transfer(unix.SYS_SENDTO, to, p); errno == unix.EAGAIN { // nobody else is served meanwhile, which no scenario needs
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(to), Events: unix.POLLOUT}}, -1)
				errno = 0
			}
			p = p[sent:]
		}
		switch {
		case n == 0 || errno != 0:
			r.other[from], r.other[to] = 0, 0
			return errors.Join(unix.Close(from), unix.Close(to))
		case n < len(r.buffer):
			return nil
		}
	}
}

// transfer receives into or sends from p, without telling the scheduler: it never waits.
func transfer(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
