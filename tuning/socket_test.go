package tuning

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// TestSocketOptions sets each option alone, and has the kernel say that it is set, and was not before.
func TestSocketOptions(t *testing.T) {
	f := func(name string, s Socket, level, option, want int) {
		t.Helper()
		for _, connects := range []bool{false, true} {
			if connects && slices.Contains([]string{"defer_accept", "fast_open", "incoming_cpu"}, name) {
				continue
			}
			fd := newSocket(t)
			plain, err := unix.GetsockoptInt(fd, level, option)
			if err != nil || plain == want {
				t.Errorf("%s: %d before it is set, %v", name, plain, err)
			}
			refused := s.Connect(fd)
			if !connects {
				refused = s.Listen(fd, 1, []int{0, 7})
			}
			if got, err := unix.GetsockoptInt(fd, level, option); err != nil || got != want || len(refused) > 0 {
				t.Errorf("%s: got %d, want %d: %v, %v", name, got, want, err, refused)
			}
		}
	}
	f("defer_accept", Socket{DeferAccept: 7 * time.Second}, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 7)
	f("fast_open", Socket{FastOpen: 99}, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 99)
	f("incoming_cpu", Socket{IncomingCPU: true}, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, 7)
	f("user_timeout", Socket{UserTimeout: 12345 * time.Millisecond}, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345)
	f("notsent_lowat", Socket{NotSentLowat: 16384}, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 16384)
	f("quickack", Socket{QuickAck: Off}, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	f("receive_buffer", Socket{ReceiveBuffer: 40000}, unix.SOL_SOCKET, unix.SO_RCVBUF, 80000)
	f("send_buffer", Socket{SendBuffer: 30000}, unix.SOL_SOCKET, unix.SO_SNDBUF, 60000)
	f("keepalive", Socket{KeepAlive: On}, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	f("keepalive.idle", Socket{KeepAliveIdle: time.Minute}, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
	f("keepalive.interval", Socket{KeepAliveEvery: 11 * time.Second}, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 11)
	f("keepalive.probes", Socket{KeepAliveProbes: 3}, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	if os.Geteuid() == 0 { // above net.core.busy_read others may not
		f("busy_poll", Socket{BusyPoll: 50 * time.Microsecond}, unix.SOL_SOCKET, unix.SO_BUSY_POLL, 50)
	}

	name, ok := CongestionName("reno")
	if names := (&Socket{QuickAck: On, Steer: true, FastOpen: 1, Backlog: 9}).Dropped(&Socket{FastOpen: 2}); !slices.Equal(names, []string{"backlog", "quickack"}) {
		t.Errorf("dropped: %v", names)
	}
	fd := newSocket(t)
	if refused := (&Socket{Congestion: name}).Listen(fd, 0, nil); !ok || len(refused) > 0 {
		t.Fatal(refused)
	}
	if got, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || got != "reno" {
		t.Errorf("congestion: %q, %v", got, err)
	}
}

// TestQuickAck has the kernel say what it makes of an option that it resets: which is set on a listening socket and on one that connects,
// before and again after, and on one that is accepted without a call.
func TestQuickAck(t *testing.T) {
	f := func(what string, fd, want int) {
		t.Helper()
		if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK); err != nil || got != want {
			t.Errorf("%s: quickack is %d, want %d: %v", what, got, want, err)
		}
	}
	s := Socket{QuickAck: Off}
	listens, connects := newSocket(t), newSocket(t)
	refused := append(s.Listen(listens, 0, nil), s.Connect(connects)...)
	if err := errors.Join(unix.Bind(listens, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(listens, 8)); err != nil {
		t.Fatal(err)
	}
	f("listen(2)", listens, 1)
	refused = append(refused, s.Renew(listens)...)
	f("then renewed", listens, 0)
	sa, err := unix.Getsockname(listens)
	if err == nil {
		err = unix.Connect(connects, sa)
	}
	if err != nil {
		t.Fatal(err)
	}
	f("connect(2)", connects, 1)
	refused = append(refused, s.Renew(connects)...)
	f("then renewed", connects, 0)
	if _, err := unix.Write(connects, []byte("x")); err != nil {
		t.Fatal(err)
	}
	accepted, _, err := unix.Accept(listens)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(accepted) }()
	f("accepted", accepted, 0)
	refused = append(refused, (&Socket{QuickAck: On}).Renew(accepted)...)
	f("on", accepted, 1)
	refused = append(refused, new(Socket).Renew(listens)...)
	f("left alone", listens, 0)
	if len(refused) > 0 {
		t.Error(refused)
	}
	if refused := s.Renew(-1); len(refused) != 1 || refused[0].Option != "quickack" {
		t.Errorf("refused: %v", refused)
	}
}

// TestSocketRefusals has the kernel refuse options: each is named, with what to do, and the others are set.
func TestSocketRefusals(t *testing.T) {
	name, _ := CongestionName("nosuch")
	s := Socket{Congestion: name, ReceiveBuffer: 1 << 30, UserTimeout: time.Second}
	fd := newSocket(t)
	refused := s.Listen(fd, 0, nil)
	if len(refused) != 2 || refused[0].Option != "receive_buffer" || !strings.Contains(refused[0].Error(), "net.core.rmem_max") ||
		refused[1].Option != "congestion" || !strings.Contains(refused[1].Error(), "modprobe tcp_nosuch") || !errors.Is(refused[1], unix.ENOENT) {
		t.Errorf("got %v", refused)
	}
	if got, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != 1000 {
		t.Errorf("user_timeout: %d", got)
	}
	if refused := s.Probe(false); len(refused) != 2 {
		t.Errorf("probe of listening: %v", refused)
	}
	if refused := s.Probe(true); len(refused) != 2 {
		t.Errorf("probe of connecting: %v", refused)
	}
	if _, ok := CongestionName("0123456789abcdef"); ok {
		t.Error("a name that the kernel would cut is taken")
	}
	if refused := new(Socket).Probe(false); len(refused) > 0 {
		t.Errorf("nothing is set, and refused: %v", refused)
	}
}

// TestSteer connects from each processor in turn: loopback hands a packet to its receiver on the sender's. All connections come to the
// shard of the processor, and without steering they do not.
func TestSteer(t *testing.T) {
	const shards = 4
	cpus := AllowedCPUs()
	if len(cpus) == 0 {
		t.Fatal("no processor")
	}
	var fds []int
	var address *unix.SockaddrInet4
	for range shards {
		fd := newSocket(t)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			t.Fatal(err)
		}
		bind := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if address != nil {
			bind.Port = address.Port
		}
		if err := errors.Join(unix.Bind(fd, bind), unix.Listen(fd, 128), unix.SetNonblock(fd, true)); err != nil {
			t.Fatal(err)
		}
		if address == nil {
			sa, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			address = sa.(*unix.SockaddrInet4)
		}
		fds = append(fds, fd)
	}
	const times = 32
	count := func() (by [shards]int) {
		for range times {
			c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: address.Port})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetLinger(0)
			_ = c.Close()
		}
		for i, fd := range fds {
			for {
				got, _, err := unix.Accept(fd)
				if err != nil && err != unix.ECONNABORTED {
					break
				}
				by[i]++
				_ = unix.Close(got)
			}
		}
		return by
	}
	on := func(cpu int) (by [shards]int) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
			var one unix.CPUSet
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Errorf("cannot move to processor %d: %v", cpu, err)
				return
			}
			by = count()
		}()
		<-done
		return by
	}
	// In order each processor of a host that has all has its number for a shard; in another order it has the place in it.
	backward := slices.Clone(cpus)
	slices.Reverse(backward)
	for _, dealt := range [][]int{cpus, append([]int{maxCPUs}, backward...)} {
		if err := SteerShards(fds[shards-1], shards, dealt); err != nil {
			t.Fatal(err)
		}
		for _, cpu := range cpus[:min(len(cpus), 4)] {
			if by := on(cpu); by[slices.Index(dealt, cpu)%shards] != times {
				t.Errorf("processor %d of %v: %v", cpu, dealt, by)
			}
		}
	}
	for range 2 { // the second time there is nothing to take back
		if err := Unsteer(fds[0]); err != nil {
			t.Fatal(err)
		}
	}
	if by := on(cpus[0]); slices.Max(by[:]) == times {
		t.Errorf("still steered: %v", by)
	}
	if err := SteerShards(newSocket(t), shards, nil); err == nil {
		t.Error("a socket of no group is steered")
	}
}
