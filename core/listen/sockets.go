package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/tuning"
)

const (
	// MaxShards bounds the sockets of one address, and with them the loops.
	MaxShards = 1024
	// minBacklog is what is asked for at least; the kernel cuts it to net.core.somaxconn.
	minBacklog  = 4096
	somaxconn   = "/proc/sys/net/core/somaxconn"
	unixDefault = 0o666
)

// Bind is an address to listen on.
type Bind struct {
	Addr netip.AddrPort // TCP; [::] takes IPv4 too; port 0: one that is free
	Path string         // of a unix socket; "": TCP
	Mode fs.FileMode    // of a unix socket's file; 0: 0666, everybody may connect
	// Exclusive refuses an address on which somebody else accepts already. Without it another process of the same user
	// would get a share of the connections, as is wanted while one gateway replaces another.
	Exclusive bool
	// Deferred leaves what Open, Inherit and Adopt open deaf until Listen: nobody can connect to it before.
	Deferred bool
	Options  tuning.Socket // of TCP sockets
}

func (b Bind) String() string {
	if b.Path != "" {
		return "unix:" + b.Path
	}
	return b.Addr.String()
}

// Sockets are the listening sockets of one address: of TCP one for each loop, among which the kernel spreads connections;
// of a unix socket one, of which each loop has a copy. Of TCP there may be more than loops, if they were inherited from a
// process that had more: closing one would reset those who wait in its queue or are about to come to it.
type Sockets struct {
	bind       Bind
	loops      int
	fds        []int // by shard, of which loop i has i, i+loops, i+2*loops...; -1: a port has it
	deaf       []int // shards that do not listen yet
	copiesFrom int   // shards from here on are copies of those before; 0: none is
	file       fileID
	replaced   bool // a file on which nobody listened any more
	refused    []tuning.Refusal
}

// Open listens on b with one descriptor for each of so many loops. Close closes what no port has taken.
func Open(b Bind, shards int) (*Sockets, error) {
	if shards < 1 || shards > MaxShards {
		return nil, fmt.Errorf("cannot listen on %s: %d loops, want 1 to %d", b, shards, MaxShards)
	}
	s := &Sockets{bind: b, loops: shards}
	open := s.openTCP
	if b.Path != "" {
		open = s.openUnix
	}
	err := open(shards)
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot listen on %s: %w", b, advised(b, err))
	}
	return s, nil
}

// String is the address, with the port that the kernel chose if it was 0.
func (s *Sockets) String() string { return s.bind.String() }

// Addr is the TCP address; zero for a unix socket.
func (s *Sockets) Addr() netip.AddrPort { return s.bind.Addr }

// Shards is the number of descriptors, taken ones included.
func (s *Sockets) Shards() int { return len(s.fds) }

// ShardsOf is how many of them a loop accepts from: those whose number is its index, modulo the number of loops.
func (s *Sockets) ShardsOf(loop int) int { return (len(s.fds) - loop + s.loops - 1) / s.loops }

// Listen makes what is deaf listen. It must come before any port takes the sockets.
func (s *Sockets) Listen() error {
	err := s.listen()
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", s, advised(s.bind, err))
	}
	return nil
}

func (s *Sockets) listen() error {
	for _, shard := range s.deaf {
		if err := unix.Listen(s.fds[shard], s.backlog()); err != nil {
			return err
		}
		if s.bind.Path == "" {
			s.refuse(s.bind.Options.Renew(s.fds[shard])...)
		}
	}
	s.deaf = nil
	return nil
}

// Name is what a shard's descriptor is called when another process takes it over: "0.0.0.0:443#3". The addresses of the
// shards are the same; their names are not.
func (s *Sockets) Name(shard int) string { return s.String() + "#" + strconv.Itoa(shard) }

// Close closes the descriptors that no port has taken, and removes the file of a unix socket if it is still this one's.
func (s *Sockets) Close() {
	for i, fd := range s.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
			s.fds[i] = -1
		}
	}
	s.file.remove(s.bind.Path)
}

// Disown leaves the file of a unix socket to the process that has the socket now.
func (s *Sockets) Disown() { s.file = fileID{} }

// Descriptors are those that no port has taken yet, for those who make copies of them. They stay what they were.
func (s *Sockets) Descriptors() (fds []int) {
	for _, fd := range s.fds {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// shared says whether several loops wait on copies of one socket.
func (s *Sockets) shared() bool { return s.copiesFrom > 0 || s.bind.Path != "" }

// copied says whether a shard is a copy of one before it.
func (s *Sockets) copied(shard int) bool { return s.copiesFrom > 0 && shard >= s.copiesFrom }

// shard is a descriptor with its number.
type shard struct{ index, fd int }

// take gives a loop's descriptors away. Those of different loops may be taken at once.
func (s *Sockets) take(loop int) (taken []shard, err error) {
	for i := loop; i < len(s.fds); i += s.loops {
		if fd := s.fds[i]; fd >= 0 {
			taken = append(taken, shard{i, fd})
			s.fds[i] = -1
		}
	}
	if len(taken) == 0 {
		return nil, fmt.Errorf("cannot accept on %s: no socket for loop %d", s, loop)
	}
	return taken, nil
}

func (s *Sockets) openTCP(shards int) error {
	if !s.bind.Addr.IsValid() {
		return errors.New("no address")
	}
	err := s.openShards(shards)
	if s.bind.Addr.Addr() == netip.IPv6Unspecified() && withoutIPv6(err) {
		s.bind.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), s.bind.Addr.Port())
		err = s.openShards(shards)
	}
	return err
}

// withoutIPv6 says whether err is that of a host without IPv6.
func withoutIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

func (s *Sockets) openShards(shards int) error {
	if s.bind.Exclusive && s.bind.Addr.Port() != 0 {
		fd, err := bindTCP(s.bind.Addr, false)
		if err != nil {
			return err
		}
		_ = unix.Close(fd)
	}
	for len(s.fds) < shards {
		fd, err := bindTCP(s.bind.Addr, true)
		if err != nil {
			return err
		}
		s.fds = append(s.fds, fd)
		s.set(len(s.fds) - 1)
		if s.deaf = append(s.deaf, len(s.fds)-1); !s.bind.Deferred {
			if err := s.listen(); err != nil {
				return err
			}
		}
		if s.bind.Addr.Port() == 0 {
			port, err := portOf(fd)
			if err != nil {
				return err
			}
			s.bind.Addr = netip.AddrPortFrom(s.bind.Addr.Addr(), port)
		}
	}
	return nil
}

// bindTCP gives a bound socket that does not listen yet.
func bindTCP(addr netip.AddrPort, share bool) (int, error) {
	family, sa, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	only := 1
	if addr.Addr() == netip.IPv6Unspecified() {
		only = 0
	}
	options := []struct {
		on                   bool
		level, option, value int
	}{
		{true, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{share, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{family == unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only},
		{true, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, // connections inherit it, which saves a call for each
	}
	for _, o := range options {
		if o.on && err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.option, o.value)
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(addr netip.AddrPort) (family int, sa unix.Sockaddr, err error) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4(), Port: int(addr.Port())}, nil
	}
	sa6 := &unix.SockaddrInet6{Addr: ip.As16(), Port: int(addr.Port())}
	if zone := ip.Zone(); zone != "" {
		index, err := interfaceIndex(zone)
		if err != nil {
			return 0, nil, fmt.Errorf("no interface %q: %w", zone, err)
		}
		sa6.ZoneId = index
	}
	return unix.AF_INET6, sa6, nil
}

// interfaceIndex is that of a network interface (netdevice(7)). Package net would ask by netlink, which a unit forbids whose
// RestrictAddressFamilies= does not name it.
func interfaceIndex(name string) (uint32, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return request.Uint32(), nil
}

func portOf(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, err
}

// backlog is how many connections may wait to be accepted: what the configuration says, else the kernel's bound. Where /proc is
// hidden that is not known, and the kernel cuts what is asked for.
func (s *Sockets) backlog() int {
	if n := s.bind.Options.Backlog; n > 0 {
		s.refuse(cutBacklog(n)...)
		return n
	}
	return max(mostBacklog(), minBacklog)
}

// cutBacklog says whether the kernel cuts a backlog.
func cutBacklog(n int) []tuning.Refusal {
	if most := mostBacklog(); most > 0 && n > most {
		return []tuning.Refusal{{Option: "backlog", Err: fmt.Errorf("the kernel makes %d of %d; raise net.core.somaxconn", most, n)}}
	}
	return nil
}

// Probe says which options the kernel would refuse to the listening sockets of so many loops, or not take as they are meant.
func Probe(o tuning.Socket, loops int) []tuning.Refusal {
	refused := append(o.Probe(false), cutBacklog(o.Backlog)...)
	if o.Steer {
		refused = append(refused, idleLoops(loops, tuning.ReceivingCPUs())...)
	}
	return refused
}

// mostBacklog is the kernel's bound; 0: it is not known.
func mostBacklog() int {
	text, _ := os.ReadFile(somaxconn)
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// advised is an error of opening b with what to do about it.
func advised(b Bind, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE) && b.Path == "":
		return fmt.Errorf("%w: another process has the port: see ss -ltnp sport = :%d", err, b.Addr.Port())
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another process listens there: see ss -lxp src %s", err, b.Path)
	case errors.Is(err, unix.EACCES) && b.Path == "":
		return fmt.Errorf("%w: ports below net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE, which the unit's drop-in 10-privileged-ports.conf gives", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM) && b.Path != "":
		return fmt.Errorf("%w: the folder must be one that the gateway may write to, such as that of RuntimeDirectory=", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no device of this host has the address yet: see ip address, or set net.ipv4.ip_nonlocal_bind", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: each loop has a socket for each address: raise LimitNOFILE= of the unit, or ulimit -n", err)
	}
	return err
}
