package tuning

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Choice is an option that is on, off, or left as the kernel has it.
type Choice uint8

const (
	Default Choice = iota
	On
	Off
)

// Socket is how TCP sockets differ from what the kernel makes of them. Zero values leave an option alone. What is set on a listening
// socket holds for the connections that it accepts, from then on. It is comparable.
type Socket struct {
	DeferAccept     time.Duration // a connection is accepted with its first byte, or after this time; whole seconds. Listening sockets
	FastOpen        int           // requests in SYNs that may wait. Listening sockets
	UserTimeout     time.Duration // that what was sent may wait for its acknowledgement; whole milliseconds
	NotSentLowat    int           // bytes that may wait unsent before the socket takes no more
	QuickAck        Choice        // On: what comes is acknowledged at once. Off: that waits for the answer it can go with. See Renew
	IncomingCPU     bool          // of shard i: connections whose packets come on the process's i-th processor are preferred. Listening sockets
	Steer           bool          // connections go to the shard that the processor of their packets has been dealt: see SteerShards. Listening sockets
	BusyPoll        time.Duration // that a read polls the device for; whole microseconds
	ReceiveBuffer   int           // bytes
	SendBuffer      int           // bytes
	Congestion      [16]byte      // the name of an algorithm, as the kernel takes it; zero: left alone
	Backlog         int           // of the queue of connections; 0: as long as the kernel allows. Listening sockets
	KeepAlive       Choice
	KeepAliveIdle   time.Duration // without a byte, before a peer is asked for a sign of life; whole seconds
	KeepAliveEvery  time.Duration // between questions; whole seconds
	KeepAliveProbes int           // unanswered ones that end the connection
	Required        bool          // a Refusal is an error. Whoever sets options decides; nothing here does
}

// CongestionName makes a name fit for Socket.Congestion; false: it is too long for the kernel.
func CongestionName(name string) (text [16]byte, ok bool) {
	return text, copy(text[:len(text)-1], name) == len(name)
}

// Refusal is an option that the kernel did not take, or not as it was meant.
type Refusal struct {
	Option string // as the configuration names it
	Err    error
}

func (r Refusal) Error() string {
	return fmt.Sprintf("cannot set socket option %s: %v", r.Option, r.Err)
}

// Unwrap gives the kernel's error.
func (r Refusal) Unwrap() error { return r.Err }

// option is one option that is to be set.
type option struct {
	name                 string
	on                   bool
	level, number, value int
	// reads is what getsockopt gives if the kernel has taken it, or the least of it; 0: it is not read back.
	reads  int
	remedy string
}

// Listen sets the options of a listening socket, or one that will listen, of TCP. shard is its number, cpus are the processors
// that the process may use. Steer is not among them, for it is of all shards: see SteerShards. Nor is the backlog. Once a socket listens that
// did not, Renew sets what that has reset.
func (s *Socket) Listen(fd, shard int, cpus []int) (refused []Refusal) {
	cpu := 0
	if len(cpus) > 0 {
		cpu = cpus[shard%len(cpus)]
	}
	seconds := int(s.DeferAccept / time.Second)
	return s.set(fd, []option{
		{"defer_accept", s.DeferAccept > 0, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds, seconds, ""},
		{"fast_open", s.FastOpen > 0, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, s.FastOpen, 0, ""},
		{"incoming_cpu", s.IncomingCPU && len(cpus) > 0, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu, 0, ""},
	})
}

// Connect sets the options of a socket of TCP that is about to connect. Once it has, Renew sets what that has reset.
func (s *Socket) Connect(fd int) (refused []Refusal) {
	return s.set(fd, nil)
}

// Renew sets again what listen(2) and connect(2) have reset: QuickAck. It is called once fd listens or is connected, and needs no call for
// a connection that is accepted: that begins as the listening socket is.
//
// QuickAck is how a connection begins (man 7 tcp). With the first answer that is sent soon the kernel turns to delayed acknowledgements
// by itself, and back when one has waited for about 40 ms in vain, or segments come out of order. So what must stay On is set again
// after each read. Off of a connecting socket also lets the last acknowledgement of its handshake go with the first bytes that are sent.
func (s *Socket) Renew(fd int) (refused []Refusal) {
	if o := s.quickAck(); o.on {
		if err := o.set(fd); err != nil {
			refused = append(refused, Refusal{o.name, err})
		}
	}
	return refused
}

func (s *Socket) quickAck() option {
	quick := 0
	if s.QuickAck == On {
		quick = 1
	}
	return option{"quickack", s.QuickAck != Default, unix.IPPROTO_TCP, unix.TCP_QUICKACK, quick, 0, ""}
}

// Dropped names the options that s sets and next leaves alone: a socket that has them keeps them. Steer, which can be taken back, is not
// among them.
func (s *Socket) Dropped(next *Socket) (names []string) {
	for _, o := range []struct {
		name      string
		was, left bool
	}{
		{"defer_accept", s.DeferAccept > 0, next.DeferAccept == 0},
		{"fast_open", s.FastOpen > 0, next.FastOpen == 0},
		{"backlog", s.Backlog > 0, next.Backlog == 0},
		{"incoming_cpu", s.IncomingCPU, !next.IncomingCPU},
		{"user_timeout", s.UserTimeout > 0, next.UserTimeout == 0},
		{"notsent_lowat", s.NotSentLowat > 0, next.NotSentLowat == 0},
		{"quickack", s.QuickAck != Default, next.QuickAck == Default},
		{"busy_poll", s.BusyPoll > 0, next.BusyPoll == 0},
		{"receive_buffer", s.ReceiveBuffer > 0, next.ReceiveBuffer == 0},
		{"send_buffer", s.SendBuffer > 0, next.SendBuffer == 0},
		{"congestion", s.Congestion != [16]byte{}, next.Congestion == [16]byte{}},
		{"keepalive", s.KeepAlive != Default, next.KeepAlive == Default},
		{"keepalive.idle", s.KeepAliveIdle > 0, next.KeepAliveIdle == 0},
		{"keepalive.interval", s.KeepAliveEvery > 0, next.KeepAliveEvery == 0},
		{"keepalive.probes", s.KeepAliveProbes > 0, next.KeepAliveProbes == 0},
	} {
		if o.was && o.left {
			names = append(names, o.name)
		}
	}
	return names
}

// set sets options, and those that both kinds of sockets have.
func (s *Socket) set(fd int, options []option) (refused []Refusal) {
	alive := 0
	if s.KeepAlive == On {
		alive = 1
	}
	millis, micros := int(s.UserTimeout/time.Millisecond), int(s.BusyPoll/time.Microsecond)
	idle, every := int(s.KeepAliveIdle/time.Second), int(s.KeepAliveEvery/time.Second)
	options = append(options,
		option{"user_timeout", millis > 0, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, millis, millis, ""},
		option{"notsent_lowat", s.NotSentLowat > 0, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, s.NotSentLowat, s.NotSentLowat, ""},
		s.quickAck(),
		option{"busy_poll", micros > 0, unix.SOL_SOCKET, unix.SO_BUSY_POLL, micros, micros,
			"above net.core.busy_read it takes CAP_NET_ADMIN: AmbientCapabilities= of the unit"},
		option{"keepalive", s.KeepAlive != Default, unix.SOL_SOCKET, unix.SO_KEEPALIVE, alive, 0, ""},
		option{"keepalive.idle", idle > 0, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle, idle, ""},
		option{"keepalive.interval", every > 0, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, every, every, ""},
		option{"keepalive.probes", s.KeepAliveProbes > 0, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, s.KeepAliveProbes, s.KeepAliveProbes, ""},
		// The kernel doubles what it is given, for its own needs, and cuts it without a word.
		option{"receive_buffer", s.ReceiveBuffer > 0, unix.SOL_SOCKET, unix.SO_RCVBUF, s.ReceiveBuffer, 2 * s.ReceiveBuffer,
			"raise net.core.rmem_max: sluice tune says to what"},
		option{"send_buffer", s.SendBuffer > 0, unix.SOL_SOCKET, unix.SO_SNDBUF, s.SendBuffer, 2 * s.SendBuffer,
			"raise net.core.wmem_max: sluice tune says to what"},
	)
	for i := range options {
		if o := &options[i]; o.on {
			if err := o.set(fd); err != nil {
				refused = append(refused, Refusal{o.name, err})
			}
		}
	}
	if s.Congestion != ([16]byte{}) {
		name := strings.TrimRight(string(s.Congestion[:]), "\x00")
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
			refused = append(refused, Refusal{"congestion", congestionError(name, err)})
		}
	}
	return refused
}

func (o *option) set(fd int) error {
	if err := unix.SetsockoptInt(fd, o.level, o.number, o.value); err != nil {
		if o.remedy != "" {
			err = fmt.Errorf("%w; %s", err, o.remedy)
		}
		return err
	}
	if o.reads == 0 {
		return nil
	}
	got, err := unix.GetsockoptInt(fd, o.level, o.number)
	if err == nil && got < o.reads {
		err = fmt.Errorf("the kernel has made %d of %d", got*o.value/o.reads, o.value)
		if o.remedy != "" {
			err = fmt.Errorf("%w; %s", err, o.remedy)
		}
	}
	return err
}

func congestionError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%q: %w; load it: modprobe tcp_%s", name, err, name)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%q: %w; add it to net.ipv4.tcp_allowed_congestion_control", name, err)
	}
	return fmt.Errorf("%q: %w", name, err)
}

// Probe tries the options on a socket that is not used otherwise. Listening ones are tried unless connects is set.
func (s *Socket) Probe(connects bool) (refused []Refusal) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return []Refusal{{"socket", err}}
	}
	defer func() { _ = unix.Close(fd) }()
	if connects {
		return s.Connect(fd)
	}
	return s.Listen(fd, 0, AllowedCPUs())
}
