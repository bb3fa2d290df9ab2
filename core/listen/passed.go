package listen

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Adopt makes the sockets of b of listening ones that somebody else has opened: the service manager, or this gateway's
// predecessor. Their address need not be b's; String tells it. It owns them from then on, also when it fails, but not the file
// of a unix socket.
//
// Loops that are left without a socket get a new one where SO_REUSEPORT lets them, else a copy. Sockets beyond the loops are
// accepted from too, because what the kernel has put into their queues would be lost: it is not moved to the others.
func Adopt(b Bind, fds []int, loops int) (*Sockets, error) {
	s := &Sockets{bind: b, loops: loops, fds: append([]int(nil), fds...)}
	err := s.adopt()
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot listen on %s with a passed socket: %w", b, err)
	}
	return s, nil
}

func (s *Sockets) adopt() error {
	if s.loops < 1 || s.loops > MaxShards {
		return fmt.Errorf("%d loops, want 1 to %d", s.loops, MaxShards)
	}
	if len(s.fds) == 0 {
		return errors.New("none was passed")
	}
	for _, fd := range s.fds {
		if err := s.identify(fd); err != nil {
			return err
		}
	}
	s.setAll()
	for len(s.fds) < s.loops {
		fd, listens := s.addShard()
		if fd < 0 {
			return s.addCopies(s.loops)
		}
		s.fds = append(s.fds, fd)
		if s.set(len(s.fds) - 1); !listens {
			s.deaf = append(s.deaf, len(s.fds)-1)
		}
	}
	return nil
}

// identify makes sure that a descriptor can be accepted from, and that all have one address, which becomes that of s.
func (s *Sockets) identify(fd int) error {
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return errors.Join(errors.New("it does not listen"), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	bind := s.bind
	bind.Addr, bind.Path = netip.AddrPort{}, ""
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		bind.Addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		bind.Addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		if sa.ZoneId != 0 { // the zone as it is written, where the address is the same
			bind.Addr = netip.AddrPortFrom(bind.Addr.Addr().WithZone(s.bind.Addr.Addr().Zone()), bind.Addr.Port())
		}
	case *unix.SockaddrUnix:
		bind.Path = sa.Name
	default:
		return errors.New("it is neither of TCP nor a unix socket")
	}
	if fd != s.fds[0] && (bind.Addr != s.bind.Addr || bind.Path != s.bind.Path) {
		return fmt.Errorf("it is bound to %s, another to %s", bind, s.bind)
	}
	s.bind = bind
	if bind.Path != "" {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// addShard gives one more socket of the address, -1 where the kernel does not allow it: for want of SO_REUSEPORT, or because
// another user has opened the others. It listens unless that is deferred.
func (s *Sockets) addShard() (fd int, listens bool) {
	if on, err := unix.GetsockoptInt(s.fds[0], unix.SOL_SOCKET, unix.SO_REUSEPORT); s.bind.Path != "" || err != nil || on == 0 {
		return -1, false
	}
	fd, err := bindTCP(s.bind.Addr, true)
	if err != nil {
		return -1, false
	}
	if s.bind.Deferred {
		return fd, false
	}
	if err := unix.Listen(fd, s.backlog()); err != nil {
		_ = unix.Close(fd)
		return -1, false
	}
	return fd, true
}
