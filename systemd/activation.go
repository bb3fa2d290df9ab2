package systemd

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSockets bounds the sockets that are taken: a thousand loops with some listeners each.
const maxSockets = 16384

// Socket is a descriptor that systemd passed: of a socket unit, or one that was left with it by Store.
type Socket struct {
	FD        int            // not yet made non-blocking: the socket unit's other users share that
	Name      string         // FileDescriptorName= of the socket unit, or what Store was given; "": none was told
	Addr      netip.AddrPort // of a TCP socket
	Path      string         // of a unix socket with a file
	Listening bool           // a stream socket on which connections can be accepted, as a gateway needs
}

// String tells a log which socket it is.
func (s Socket) String() string {
	address := "no listening stream socket"
	switch {
	case s.Listening && s.Addr.IsValid():
		address = s.Addr.String()
	case s.Listening && s.Path != "":
		address = "unix:" + s.Path
	}
	return fmt.Sprintf("%d %q (%s)", s.FD, s.Name, address)
}

// Close closes a socket for which there is no use.
func (s Socket) Close() { _ = unix.Close(s.FD) }

// sockets reads what was passed to this process, and makes sure that no other inherits it.
func (e *Environment) sockets() ([]Socket, error) {
	if ours, err := e.ours(listenPID, false); err != nil || !ours {
		return nil, err
	}
	text, ok := e.Lookup(listenFDs)
	if !ok {
		return nil, nil
	}
	n, ok := decimal(text, maxSockets)
	if !ok {
		return nil, fmt.Errorf("%s %q: want a number up to %d", listenFDs, text, maxSockets)
	}
	names := make([]string, n)
	if text, ok := e.Lookup(listenNames); ok && n > 0 {
		if strings.Count(text, ":") != int(n)-1 {
			return nil, fmt.Errorf("%s has %d names for %d sockets", listenNames, strings.Count(text, ":")+1, n)
		}
		names = strings.Split(text, ":")
	}
	all := make([]Socket, n)
	for i := range all {
		fd := e.FirstFD + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%s %q: descriptor %d: %w", listenFDs, text, fd, err)
		}
		if len(names[i]) > 0 && !validName(names[i]) {
			return nil, fmt.Errorf("%s: %q is no name", listenNames, names[i])
		}
		all[i] = identify(fd, names[i])
	}
	return all, nil
}

// identify looks at what a descriptor is. What it is not, a listening stream socket, is not an error: whether it is needed is
// for others to say.
func identify(fd int, name string) Socket {
	s := Socket{FD: fd, Name: name}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return s
	}
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening == 0 {
		return s
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return s
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		s.Addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		s.Addr = netip.AddrPortFrom(withZone(netip.AddrFrom16(a.Addr), a.ZoneId), uint16(a.Port))
	case *unix.SockaddrUnix:
		if !strings.HasPrefix(a.Name, "/") { // an abstract one, or a relative path, which depends on a folder
			return s
		}
		s.Path = a.Name
	default:
		return s
	}
	s.Listening = true
	return s
}

// withZone names the interface that an IPv6 address of a link belongs to as a configuration does: by its name.
func withZone(a netip.Addr, index uint32) netip.Addr {
	if index == 0 || !a.IsLinkLocalUnicast() {
		return a
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return a.WithZone(i.Name)
	}
	return a.WithZone(strconv.FormatUint(uint64(index), 10))
}
