package loop

import "testing"

// Abort ends connections whatever their tasks wait for, those that only wait for others among them, and leaves the rest alone.
func TestAbort(t *testing.T) {
	l, _ := start(t, Options{})
	ended := make(chan error, 8)
	parks := serve(func(c *Conn) {
		ended <- l.Park(0)
		ended <- l.Park(0) // and every later wait
	})
	reads := serve(func(c *Conn) {
		var b [8]byte
		if _, err := c.ReadNow(b[:]); err != nil {
			ended <- err
			return
		}
		_, err := c.Read(b[:])
		ended <- err
	})
	stays, peer := served(t, l, serve(func(c *Conn) {
		var b [8]byte
		for {
			n, err := c.Read(b[:])
			if err != nil {
				return
			}
			_, _ = c.Write(b[:n])
		}
	}))
	waits, first := served(t, l, parks)
	reading, second := served(t, l, reads)
	for _, p := range []interface{ Write([]byte) (int, error) }{peer, first, second} {
		_, err := p.Write([]byte("x"))
		check(t, err)
	}
	back := make([]byte, 1)
	_, err := peer.Read(back)
	check(t, err)
	eventually(t, l, "all tasks run", func() bool { return len(l.all)-len(l.idle) == 3 && reading.reader != nil })
	on(t, l, func() { l.Abort(func(c *Conn) bool { return c != stays }) })
	got := map[error]int{}
	for range 3 {
		got[receive(t, ended, "an end")]++
	}
	if got[ErrHangup] != 2 || got[ErrClosed] != 1 {
		t.Errorf("the waits ended with %v", got)
	}
	on(t, l, func() {
		if !waits.Closed() || !reading.Closed() || stays.Closed() {
			t.Errorf("closed: %v, %v, and %v of which nobody spoke", waits.Closed(), reading.Closed(), stays.Closed())
		}
	})
	_, err = peer.Write([]byte("y"))
	check(t, err)
	_, err = peer.Read(back)
	check(t, err)
}
