package loop

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// echo answers whatever comes; between requests the connection is idle.
func echo(c *Conn) {
	l := c.Loop()
	buf := l.Borrow()
	defer l.Return(buf)
	for {
		n, err := c.ReadNow(buf)
		if err == ErrAgain {
			c.Idle(0)
			return
		}
		if err != nil {
			return
		}
		if _, err = c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// exchange sends size bytes of a stream over an echo server and checks what comes back.
func exchange(c net.Conn, name uint64, offset int64, size int) error {
	out, in := make([]byte, size), make([]byte, size)
	pattern(out, name, offset)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(out)
		sent <- err
	}()
	_, err := io.ReadFull(c, in)
	if e := <-sent; e != nil {
		return e
	}
	if err == nil && differs(in, name, offset) >= 0 {
		err = io.ErrNoProgress
	}
	return err
}

// Several clients at once get back what they sent, in requests between which their connection is idle.
func TestEchoToSeveralClients(t *testing.T) {
	l, _ := start(t, Options{})
	at := accepting(t, l, serve(echo))
	var clients sync.WaitGroup
	for i := range 20 {
		c := dialed(t, at)
		clients.Add(1)
		go func() {
			defer clients.Done()
			offset := int64(0)
			for _, size := range []int{1, 10, 1000, BufferBytes, 300_000, 5} {
				if err := exchange(c, uint64(i), offset, size); err != nil {
					t.Errorf("client %d, %d bytes: %v", i, size, err)
					return
				}
				offset += int64(size)
			}
		}()
	}
	clients.Wait()
	on(t, l, func() {
		if used := len(l.all) - len(l.idle); used != 0 {
			t.Errorf("%d coroutines are in use while every connection is idle", used)
		}
	})
}

// A task dials a server on its own loop and on another one: two loops run side by side.
func TestDialFromOneLoopToAnother(t *testing.T) {
	a, _ := start(t, Options{Index: 0})
	b, _ := start(t, Options{Index: 1})
	for _, at := range []netip.AddrPort{accepting(t, a, serve(echo)), accepting(t, b, serve(echo))} {
		task(t, a, func() {
			c, err := a.Dial(Address{AddrPort: at}, serve(echo), a.Now()+int64(patience))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if c.Peer() != at || c.Local().Addr() != at.Addr() {
				t.Errorf("connected %v to %v, want to %v", c.Local(), c.Peer(), at)
			}
			out, in := make([]byte, 1000), make([]byte, 1000)
			pattern(out, 1, 0)
			if _, err := c.Write(out); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, in); err != nil || differs(in, 1, 0) >= 0 {
				t.Errorf("the echo is wrong: %v", err)
			}
		})
	}
}
