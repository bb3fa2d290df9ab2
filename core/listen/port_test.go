package listen

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// dialFrom connects to s from a local address; "": any. The connection is closed at the end.
func dialFrom(t *testing.T, s *Sockets, local string) (net.Conn, error) {
	network, address := "tcp", s.bind.Addr.String()
	var d net.Dialer
	if s.bind.Path != "" {
		network, address = "unix", s.bind.Path
	}
	if local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.SetDeadline(time.Now().Add(20 * time.Second))
}

func dial(t *testing.T, s *Sockets) net.Conn {
	t.Helper()
	c, err := dialFrom(t, s, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused says whether err is that of a connection closed by the other side, which a client may learn at any call.
func refused(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// served says whether a new connection is served; the other outcome is that it is closed without an answer.
func served(t *testing.T, s *Sockets) bool {
	t.Helper()
	return servedFrom(t, s, "") != nil
}

// servedFrom gives a new connection that is served, nil for one that was refused.
func servedFrom(t *testing.T, s *Sockets, local string) net.Conn {
	t.Helper()
	c, err := dialFrom(t, s, local)
	if err == nil {
		err = said(c, "hello")
	}
	if err == nil {
		return c
	}
	if !refused(err) {
		t.Error(err)
	}
	return nil
}

// The kernel spreads connections over the sockets of the loops.
func TestSpread(t *testing.T) {
	const loops, conns = 4, 200
	h := newHost(t, loops, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	for i := range conns {
		if err := said(dial(t, s), fmt.Sprint("connection ", i)); err != nil {
			t.Fatal(err)
		}
	}
	sum, each := h.counters()
	if sum.Open != conns || sum.Accepted != conns || h.caps.Open() != conns {
		t.Fatalf("%+v, open on all %d", sum, h.caps.Open())
	}
	for i, c := range each {
		if c.Open < conns/loops/4 {
			t.Errorf("loop %d has %d of %d connections", i, c.Open, conns)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	h := newHost(t, 2, settings(func(l *core.Listener) { l.ConnectionsPerIP = 1 }))
	s := h.listen(Bind{Path: filepath.Join(t.TempDir(), "s")})
	for range 20 { // peers without address have no limit each
		if !served(t, s) {
			t.Fatal("refused")
		}
	}
	if sum, _ := h.counters(); sum.Open != 20 {
		t.Fatalf("%+v", sum)
	}
	if h.peers.Load().IsValid() {
		t.Error("the peer has an address")
	}
}

// A cap holds over all loops together, whoever of them accepts, and a closed connection makes room.
func TestConnectionCap(t *testing.T) {
	const most = 10
	h := newHost(t, 4, settings(func(l *core.Listener) { l.Connections = most }))
	s := h.listen(bindTo("127.0.0.1:0"))
	var mutex sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				if c := servedFrom(t, s, ""); c != nil {
					mutex.Lock()
					open = append(open, c)
					mutex.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	sum, each := h.counters()
	if len(open) != most || sum.Open != most || h.caps.Open() != most || sum.Refused[OverConnections] != 80-most {
		t.Fatalf("%d served, %+v, open on all %d", len(open), sum, h.caps.Open())
	}
	busy := 0
	for _, c := range each {
		if c.Open > 0 {
			busy++
		}
	}
	if busy < 2 {
		t.Error("all are on one loop: nothing is shown")
	}
	for _, c := range open[:3] {
		_ = c.Close()
	}
	h.await("room after closing", func(c Counters) bool { return c.Open == most-3 })
	for i := range 5 {
		if got := served(t, s); got != (i < 3) {
			t.Errorf("new connection %d served: %v", i, got)
		}
	}
}

// The cap per client counts each address by itself. While an address has no connection yet, loops that accept from it in
// one instant may each admit one too many; with one open the cap is exact.
func TestConnectionsPerIPCap(t *testing.T) {
	h := newHost(t, 4, settings(func(l *core.Listener) { l.ConnectionsPerIP = 5 }))
	s := h.listen(bindTo("127.0.0.1:0"))
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		for i := range 8 {
			if got := servedFrom(t, s, local) != nil; got != (i < 5) {
				t.Errorf("connection %d from %s served: %v", i, local, got)
			}
		}
	}
	sum, _ := h.counters()
	if sum.Open != 15 || sum.Refused[OverConnectionsPerIP] != 9 || h.caps.Open() != 15 {
		t.Fatalf("%+v, open on all %d", sum, h.caps.Open())
	}
}

// The rate per client counts each address by itself, over all loops. Another rate goes on with what was used.
func TestConnectionRate(t *testing.T) {
	h := newHost(t, 4, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	configure := func(most int) {
		t.Helper()
		l := h.loops[0]
		if err := h.caps.Configure(Rate{most, time.Hour}, l.WallAt(l.Clock())); err != nil {
			t.Fatal(err)
		}
	}
	want := func(local string, n, served int) {
		t.Helper()
		for i := range n {
			if got := servedFrom(t, s, local) != nil; got != (i < served) {
				t.Errorf("connection %d from %s served: %v", i, local, got)
			}
		}
	}
	configure(5)
	want("127.0.0.1", 8, 5)
	want("127.0.0.2", 8, 5)
	configure(7)
	want("127.0.0.1", 4, 2)
	configure(0)
	want("127.0.0.1", 4, 4)
	if sum, _ := h.counters(); sum.Refused[OverConnectionRate] != 3+3+2 || sum.Open != 16 || h.caps.Open() != 16 {
		t.Errorf("%+v, open on all %d", sum, h.caps.Open())
	}
}

// A reload's settings hold for the next connection; open ones stay.
func TestConfigure(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	first := servedFrom(t, s, "")
	if first == nil {
		t.Fatal("refused without a cap")
	}
	tight := settings(func(l *core.Listener) { l.Connections, l.Name = 1, "tight" })
	h.do(0, func(p *Port) { p.Configure(tight) })
	if served(t, s) {
		t.Error("served over the new cap")
	}
	if err := said(first, "again"); err != nil {
		t.Error("an open connection suffered: ", err)
	}
	h.do(0, func(p *Port) {
		if p.Settings().Name != "tight" {
			t.Error("the old settings are in force")
		}
		p.Configure(settings(func(l *core.Listener) { l.ConnectionsPerIP = 2 }))
	})
	if !served(t, s) || served(t, s) {
		t.Error("connections from before the cap per client are not counted in it")
	}
}

func TestFirstByteTimeout(t *testing.T) {
	h := newHost(t, 1, settings(func(l *core.Listener) { l.IdleTimeout = 50 * time.Millisecond }))
	c := dial(t, h.listen(bindTo("127.0.0.1:0")))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want the end", err)
	}
	h.await("closed", func(c Counters) bool { return c.Open == 0 && c.Accepted == 1 })
}

// Connections that wait in the kernel when the drain begins are served, idle ones closed, new ones refused.
func TestDrain(t *testing.T) {
	h := newHost(t, 2, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	idle := servedFrom(t, s, "")
	if idle == nil {
		t.Fatal("refused")
	}
	// While both loops are held, connections with a request pile up in the kernel.
	const queued = 400 // far more than a loop takes in one turn
	release := make(chan struct{})
	for i := range h.loops {
		h.loops[i].Post(func() { <-release })
	}
	var waiting []net.Conn
	for range queued {
		c := dial(t, s)
		if _, err := io.WriteString(c, "request"); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	for h.queued() < queued { // a connection that its client has may still be half open here, and is reset by the close
		time.Sleep(time.Millisecond)
	}
	for i := range h.ports {
		h.loops[i].Post(h.ports[i].Drain)
	}
	close(release)
	for i, c := range waiting {
		if err := heard(c, "request"); err != nil {
			t.Fatalf("connection %d of the queue: %v", i, err)
		}
	}
	for _, c := range append(waiting, idle) {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read of an idle connection: %v, want the end", err)
		}
	}
	h.await("drained", func(c Counters) bool { return c.Open == 0 && c.Accepted == queued+1 })
	if c, err := net.Dial("tcp", s.String()); err == nil {
		_ = c.Close()
		t.Error("a new connection was accepted after the drain")
	}
	for i := range h.ports {
		h.do(i, func(p *Port) { p.Drain() }) // again: nothing happens
	}
}

// A draining port closes its own connections and leaves those of another on the same loop alone.
func TestDrainIsOfOnePort(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	a := h.listen(bindTo("127.0.0.1:0"))
	other := NewPort(h.loops[0], h.caps, settings(nil), h.protocol)
	b, err := Open(bindTo("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h.do(0, func(*Port) { err = other.Listen(b) })
	if err != nil {
		t.Fatal(err)
	}
	toA, toB := servedFrom(t, a, ""), servedFrom(t, b, "")
	if toA == nil || toB == nil {
		t.Fatal("refused")
	}
	h.do(0, func(*Port) { other.Drain() })
	if _, err := toB.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want the end", err)
	}
	if err := said(toA, "still here"); err != nil {
		t.Fatal(err)
	}
}

// Leave gives up one address; its open connections and the other addresses stay.
func TestLeave(t *testing.T) {
	h := newHost(t, 2, settings(nil))
	a, b := h.listen(bindTo("127.0.0.1:0")), h.listen(bindTo("127.0.0.1:0"))
	toA := servedFrom(t, a, "")
	if toA == nil {
		t.Fatal("refused")
	}
	for i := range h.ports {
		h.do(i, func(p *Port) { p.Leave(a); p.Leave(a) })
	}
	if c, err := net.Dial("tcp", a.String()); err == nil {
		_ = c.Close()
		t.Error("the address that was left accepts")
	}
	if err := said(toA, "still here"); err != nil {
		t.Error(err)
	}
	if !served(t, b) {
		t.Error("the other address refuses")
	}
}

func TestListenTwice(t *testing.T) {
	h := newHost(t, 1, settings(nil))
	s := h.listen(bindTo("127.0.0.1:0"))
	h.do(0, func(p *Port) {
		if err := p.Listen(s); err == nil {
			t.Error("a socket was taken twice")
		}
	})
}

// A unix socket's file goes when its Sockets are closed, while ports have the descriptors.
func TestUnixFileGoes(t *testing.T) {
	h := newHost(t, 2, settings(nil))
	path := filepath.Join(t.TempDir(), "s")
	s := h.listen(Bind{Path: path})
	if !served(t, s) {
		t.Fatal("refused")
	}
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there")
	}
}

// Of two that race for the last place one gets it, round after round, at offsets of some nanoseconds.
func TestCapsExact(t *testing.T) {
	const rounds = 20000
	c := NewCaps()
	var round, admitted, done atomic.Int64
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := int64(1); r <= rounds; r++ {
			for spin := 0; round.Load() < r; spin++ {
				if spin > 3000 {
					runtime.Gosched()
				}
			}
			if c.enter(1) {
				admitted.Add(1)
			}
			done.Store(r)
		}
	}()
	for r := int64(1); r <= rounds; r++ {
		admitted.Store(0)
		round.Store(r)
		for range r % 64 {
			_ = round.Load()
		}
		if c.enter(1) {
			admitted.Add(1)
		}
		for spin := 0; done.Load() < r; spin++ {
			if spin > 3000 {
				runtime.Gosched()
			}
		}
		if n := admitted.Load(); (n != 1 || c.Open() != 1) && !t.Failed() {
			t.Errorf("round %d: %d got the last place", r, n)
		}
		c.leave()
	}
	<-finished
}
