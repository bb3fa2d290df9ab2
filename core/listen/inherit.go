package listen

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Inherit is Open on sockets of the process before, by shard, which it owns whatever it returns. Each must be what b would
// have opened; if they are fewer than the loops the rest is opened beside them, if more the loops share the surplus. The file of
// a unix socket stays the other process's until Own.
func Inherit(b Bind, loops int, fds []int) (*Sockets, error) {
	s := &Sockets{bind: b, loops: loops, fds: fds}
	err := s.inherit()
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot listen on %s as the process before did: %w", b, err)
	}
	return s, nil
}

func (s *Sockets) inherit() error {
	if s.loops < 1 || s.loops > MaxShards || len(s.fds) < 1 || len(s.fds) > MaxShards {
		return fmt.Errorf("%d sockets for %d loops, want 1 to %d", len(s.fds), s.loops, MaxShards)
	}
	for shard, fd := range s.fds {
		if err := s.recognise(fd); err != nil {
			return fmt.Errorf("socket %d: %w", shard, err)
		}
	}
	if s.bind.Path == "" {
		s.setAll()
		return s.openShards(s.loops)
	}
	if len(s.fds) > 1 {
		return fmt.Errorf("%d unix sockets, want one", len(s.fds))
	}
	if _, err := identify(s.bind.Path); err != nil {
		return err // nobody could find the socket
	}
	return s.addCopies(s.loops)
}

// Own takes the file of an inherited unix socket over: from now on Close removes it.
func (s *Sockets) Own() error {
	if s.bind.Path == "" || s.file != (fileID{}) {
		return nil
	}
	var err error
	if s.file, err = identify(s.bind.Path); err != nil {
		return fmt.Errorf("cannot take over the file of %s: %w", s, err)
	}
	return nil
}

// recognise checks that fd listens on the address, and makes sure that it does not block.
func (s *Sockets) recognise(fd int) error {
	want := unix.AF_UNIX
	if s.bind.Path == "" {
		family, _, err := sockaddr(s.bind.Addr)
		if err != nil {
			return err
		}
		want = family
	}
	for _, o := range []struct {
		option, value int
		wrong         string
	}{
		{unix.SO_TYPE, unix.SOCK_STREAM, "it is no stream socket"},
		{unix.SO_ACCEPTCONN, 1, "it does not listen"},
	} {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.option); err != nil {
			return err
		} else if got != o.value {
			return errors.New(o.wrong)
		}
	}
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return err
	} else if got != want && !s.fallsBack(got) {
		return fmt.Errorf("it is of address family %d, want %d", got, want)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if err := s.matches(sa); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// fallsBack says whether a socket of the family is what [::] becomes on a host without IPv6.
func (s *Sockets) fallsBack(family int) bool {
	return s.bind.Addr.IsValid() && s.bind.Addr.Addr().Is6() && s.bind.Addr.Addr().IsUnspecified() && family == unix.AF_INET
}

// matches compares the socket's address with the one that is wanted. Of port 0 the one that it has becomes the wanted one.
func (s *Sockets) matches(sa unix.Sockaddr) error {
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		if u.Name != s.bind.Path {
			return fmt.Errorf("it is bound to %q", u.Name)
		}
		return nil
	}
	have, err := boundTo(sa)
	if err != nil {
		return err
	}
	want := s.bind.Addr
	if want.Port() == 0 {
		want = netip.AddrPortFrom(want.Addr(), have.Port())
	}
	fallen := netip.AddrPortFrom(netip.IPv4Unspecified(), want.Port())
	switch {
	case have.Port() != want.Port():
		return fmt.Errorf("it is bound to %s", have)
	case have.Addr() == want.Addr().Unmap().WithZone(""):
	case s.fallsBack(unix.AF_INET) && have == fallen:
		want = fallen
	default:
		return fmt.Errorf("it is bound to %s", have)
	}
	s.bind.Addr = want
	return nil
}

func boundTo(sa unix.Sockaddr) (netip.AddrPort, error) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, errors.New("it has an address of another kind")
}
