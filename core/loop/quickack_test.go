package loop

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// halves is what a peer sends in two writes. Without TCP_NODELAY the second waits for the acknowledgement of the first (RFC 896).
const halves = "headbody"

// exchanges is how long the quickest and the slowest of some exchanges take with a peer that sends halves. The first is not counted: the
// kernel acknowledges quickly until an answer is sent.
func exchanges(t *testing.T, peer *net.TCPConn) (least, most time.Duration) {
	t.Helper()
	check(t, peer.SetNoDelay(false))
	least = patience
	for i := range 6 {
		begin := time.Now()
		_, err := peer.Write([]byte(halves[:4]))
		check(t, err)
		_, err = peer.Write([]byte(halves[4:]))
		check(t, err)
		_, err = io.ReadFull(peer, make([]byte, 2))
		check(t, err)
		if took := time.Since(begin); i > 0 {
			least, most = min(least, took), max(most, took)
		}
	}
	return least, most
}

// TestQuickAck serves a peer that waits for acknowledgements, on a connection that has sent answers. The kernel lets it wait for 40 ms
// (TCP_DELACK_MIN), and with QuickAck not at all, whether bytes are read or spliced.
func TestQuickAck(t *testing.T) {
	const wait = 30 * time.Millisecond
	l, _ := start(t, Options{})
	f := func(name string, quick bool, take func(c *Conn) error) {
		t.Helper()
		c, peer := used(t, l)
		on(t, l, func() { c.QuickAck = quick })
		done := spawn(l, func() {
			for take(c) == nil {
				if _, err := c.Write([]byte("ok")); err != nil {
					return
				}
			}
			c.Close()
		})
		// A machine that pauses makes an exchange slow, and also the kernel acknowledge quickly for a while (tcp_event_data_recv).
		if least, most := exchanges(t, peer); quick && least >= wait || !quick && most < wait {
			t.Errorf("%s, QuickAck %t: an exchange takes %v to %v", name, quick, least, most)
		}
		_ = peer.Close()
		receive(t, done, "the task's end")
	}
	read := func(c *Conn) error {
		var p [len(halves)]byte
		for n := 0; n < len(p); {
			k, err := c.Read(p[n:])
			if n += k; err != nil {
				return err
			}
		}
		return nil
	}
	sink, from := used(t, l)
	go func() { _, _ = io.Copy(io.Discard, from) }()
	splice := func(c *Conn) error {
		_, _, err := l.Splice(sink, c, int64(len(halves)), new(int64))
		return err
	}
	for _, quick := range []bool{false, true} {
		f("read", quick, read)
		f("spliced", quick, splice)
	}
	on(t, l, sink.Close)
}

func TestQuickAckAllocates(t *testing.T) {
	l, _ := start(t, Options{})
	c, _ := used(t, l)
	on(t, l, func() {
		if n := testing.AllocsPerRun(100, func() { acknowledge(int(c.fd)) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
		c.Close()
	})
}

// TestDialPrepared sets an option before a socket connects, which connecting resets, and again when it has. A unix socket is left alone.
func TestDialPrepared(t *testing.T) {
	l, _ := start(t, Options{})
	at := accepting(t, l, serve(func(c *Conn) { c.Idle(0) }))
	off := func(fd int) { check(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)) }
	f := func(p *Preparation, quick bool, want int) {
		t.Helper()
		task(t, l, func() {
			c, err := l.DialPrepared(Address{AddrPort: at}, p, serve(echo), 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if got, err := unix.GetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK); err != nil || got != want || c.QuickAck != quick {
				t.Errorf("quickack is %d, want %d: %v; QuickAck %t", got, want, err, c.QuickAck)
			}
		})
	}
	f(nil, false, 1)
	f(&Preparation{Connect: off}, false, 1)
	f(&Preparation{Connect: off, Renew: off}, false, 0)
	f(&Preparation{Connect: off, QuickAck: true}, true, 1)

	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	check(t, err)
	defer func() { _ = u.Close() }()
	task(t, l, func() {
		fail := func(int) { t.Error("a unix socket is prepared") }
		c, err := l.DialPrepared(Address{Path: path}, &Preparation{Connect: fail, Renew: fail, QuickAck: true}, serve(echo), 0)
		if err != nil || c.QuickAck {
			t.Errorf("dialled: %v", err)
			return
		}
		c.Close()
	})
}
