package listen

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/tuning"
)

// tuned is an address of loopback with options that each socket can be asked for.
func tuned() Bind {
	b := bindTo("127.0.0.1:0")
	b.Options = tuning.Socket{UserTimeout: 7 * time.Second, ReceiveBuffer: 50000, Backlog: 77, KeepAlive: tuning.On, QuickAck: tuning.Off}
	return b
}

// checkTuned asks a socket for what tuned has set.
func checkTuned(t *testing.T, what string, fd int) {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][2]int{
		"user_timeout":   {option(t, fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), 7000},
		"receive_buffer": {option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), 100000},
		"keepalive":      {option(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE), 1},
		"quickack":       {option(t, fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK), 0},
		"backlog":        {int(info.Sacked), 77}, // of a listening socket it is that
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %s is %d, want %d", what, name, got[0], got[1])
		}
	}
}

// TestOptions sets options on sockets that are opened, inherited or passed; connections that they accept have them too.
func TestOptions(t *testing.T) {
	b := tuned()
	s, err := Open(b, 2)
	if err != nil || len(s.Refused()) > 0 {
		t.Fatal(err, s.Refused())
	}
	for _, fd := range s.fds {
		checkTuned(t, "opened", fd)
	}
	s.Close()

	one := opened(t, b, 1)
	dial(t, one)
	accepted, _, err := unix.Accept(one.fds[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := option(t, accepted, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != 7000 {
		t.Errorf("a connection has %d", got)
	}
	if got := option(t, accepted, unix.IPPROTO_TCP, unix.TCP_QUICKACK); got != 0 {
		t.Errorf("a connection has quickack %d", got)
	}
	_ = unix.Close(accepted)

	for what, f := range map[string]func(b Bind, fds []int) (*Sockets, error){
		"inherited": func(b Bind, fds []int) (*Sockets, error) { return Inherit(b, 2, fds) },
		"passed":    func(b Bind, fds []int) (*Sockets, error) { return Adopt(b, fds, 2) },
	} {
		plain := opened(t, bindTo("127.0.0.1:0"), 1)
		b := tuned()
		b.Addr = plain.Addr()
		got, err := f(b, passed(t, plain))
		if err != nil || len(got.fds) != 2 {
			t.Fatal(what, err)
		}
		for _, fd := range got.fds {
			checkTuned(t, what, fd)
		}
		got.Close()
	}
	b.Deferred = true
	if s, err = Open(b, 2); err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, fd := range s.fds {
		checkTuned(t, "deferred", fd)
	}
}

// TestOptionsRefused has the kernel refuse: it is told, once for all shards, and an error where options are required.
func TestOptionsRefused(t *testing.T) {
	name, _ := tuning.CongestionName("nosuch")
	b := bindTo("127.0.0.1:0")
	b.Options = tuning.Socket{Congestion: name, Backlog: 1 << 30}
	s, err := Open(b, 3)
	if err != nil {
		t.Fatal(err)
	}
	var options []string
	for _, r := range s.Refused() {
		options = append(options, r.Option)
	}
	if got := strings.Join(options, " "); got != "congestion backlog" {
		t.Errorf("refused: %s", got)
	}
	s.Close()
	b.Options.Required = true
	if _, err := Open(b, 3); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "raise net.core.somaxconn") {
		t.Errorf("required: %v", err)
	}
	b.Options = tuning.Socket{Steer: true, Required: true}
	beyond := len(tuning.ReceivingCPUs()) + 1
	if _, err := Open(b, beyond); !errors.Is(err, errTooManyLoops) {
		t.Errorf("more loops than processors: %v", err)
	}
	if refused := Probe(b.Options, beyond); len(refused) != 1 || !errors.Is(refused[0], errTooManyLoops) {
		t.Errorf("probed: %v", refused)
	}
	if refused := Probe(b.Options, beyond-1); len(refused) > 0 {
		t.Errorf("probed: %v", refused)
	}
	if _, err := Adopt(b, []int{alone(t)}, 2); !errors.Is(err, errNotShared) {
		t.Errorf("steered without shards: %v", err)
	}
}

// TestSteered has a listener steer, which a reload takes back and begins again: then all connections that were made on a processor come to
// one loop, and without it they do not. That loops beyond the processors get none is told.
func TestSteered(t *testing.T) {
	const loops, times = 8, 24
	b := bindTo("127.0.0.1:0")
	b.Options.Steer = true
	h := newHost(t, loops, settings(nil))
	s := h.listen(b)
	f := func(steer bool) {
		t.Helper()
		for i := range h.ports {
			h.do(i, func(p *Port) {
				refused := p.Retune(s, tuning.Socket{Steer: steer})
				idle := steer && loops > len(tuning.ReceivingCPUs())
				if idle != (len(refused) == 1 && errors.Is(refused[0], errTooManyLoops)) || !idle && len(refused) > 0 {
					t.Errorf("steered %v: refused %v", steer, refused)
				}
			})
		}
		_, before := h.counters()
		done := make(chan struct{})
		go func() { // a thread of its own, which ends with its processor
			defer close(done)
			pin(t)
			for range times {
				c, err := net.Dial("tcp", s.String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			}
		}()
		<-done
		sum := uint64(0)
		for _, c := range before {
			sum += c.Accepted
		}
		h.await("all are accepted", func(c Counters) bool { return c.Accepted == sum+times })
		_, after := h.counters()
		most := uint64(0)
		for i := range after {
			most = max(most, after[i].Accepted-before[i].Accepted)
		}
		if (most == times) != steer {
			t.Errorf("steered %v: %d of %d came to one loop", steer, most, times)
		}
	}
	f(true)
	f(false)
	f(true)
}

// pin binds the calling goroutine's thread to one processor. It is never unlocked: the thread ends with the goroutine.
func pin(t *testing.T) {
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(tuning.AllowedCPUs()[0])
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Error(err)
	}
}

// TestShed refuses connections while memory is short, and takes them again.
func TestShed(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	var shed Shed
	h.caps.Heed(&shed)
	s := h.listen(bindTo("127.0.0.1:0"))
	dial(t, s)
	h.await("the first is taken", func(c Counters) bool { return c.Accepted == 1 })
	shed.Set(true)
	c, err := dialFrom(t, s, "")
	h.await("it is refused", func(c Counters) bool { return c.Refused[OverMemory] == 1 })
	if err == nil { // the reset did not come before connect returned
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if n := h.caps.Open(); n != 1 {
		t.Errorf("%d connections are open", n)
	}
	shed.Set(false)
	dial(t, s)
	h.await("another is taken", func(c Counters) bool { return c.Accepted == 2 && c.Open == 2 })
}

// TestAdvice says what to do where an address cannot be had.
func TestAdvice(t *testing.T) {
	f := func(b Bind, err error, want string) {
		t.Helper()
		got := advised(b, err)
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	tcp, file := bindTo("127.0.0.1:80"), Bind{Path: "/run/s"}
	f(tcp, unix.EADDRINUSE, "ss -ltnp sport = :80")
	f(file, unix.EADDRINUSE, "ss -lxp src /run/s")
	f(tcp, unix.EACCES, "CAP_NET_BIND_SERVICE")
	f(file, unix.EACCES, "RuntimeDirectory=")
	f(file, unix.EROFS, "RuntimeDirectory=")
	f(tcp, unix.EADDRNOTAVAIL, "ip_nonlocal_bind")
	f(tcp, unix.EMFILE, "LimitNOFILE=")
}

// TestPortsOfRoot gives the ability to open ports below 1024 away, on a thread that ends with it.
func TestPortsOfRoot(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		s, err := Open(bindTo("127.0.0.1:1"), 1)
		if err == nil {
			s.Close()
		}
		done <- err
	}()
	err := <-done
	if err == nil {
		t.Skip("this host lets everybody open port 1")
	}
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Error(err)
	}
}
