package loop

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is n idle connections that were not dialled, each of which is served by h with its number, and their peers.
func crowd(t *testing.T, l *Loop, n int, deadline time.Duration, h func(c *Conn, i int)) (peers []int) {
	t.Helper()
	for i := range n {
		mine, theirs := unixPair(t)
		t.Cleanup(func() { closeFD(theirs) })
		peers = append(peers, theirs)
		on(t, l, func() {
			c, err := l.Adopt(mine, serve(func(c *Conn) { h(c, i) }))
			check(t, err)
			c.Idle(l.Now() + int64(deadline))
		})
	}
	return peers
}

// shout writes a byte to each peer before the loop looks again.
func shout(t *testing.T, l *Loop, peers []int) {
	t.Helper()
	on(t, l, func() {
		for _, fd := range peers {
			if _, e := write(fd, []byte("x")); e != 0 {
				t.Error(e)
			}
		}
	})
}

// Of a hundred connections that speak at once a turn begins with 32, in their order; each is served once.
func TestBegunInATurn(t *testing.T) {
	l, _ := start(t, Options{})
	var order []int
	turns := map[int64]int{}
	peers := crowd(t, l, 100, time.Hour, func(c *Conn, i int) {
		_, _ = c.ReadNow(make([]byte, 8))
		order = append(order, i)
		turns[l.Turned()]++
		c.Idle(0)
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return len(order) >= len(peers) })
	on(t, l, func() {
		for at, n := range turns {
			if n > maxBegun {
				t.Errorf("turn %d began %d", at, n)
			}
		}
		for i, k := range order {
			if i != k {
				t.Fatalf("in place of %d came %d: %v", i, k, order)
			}
		}
	})
}

// What a connection begins beside itself counts, too.
func TestBegunTasksCount(t *testing.T) {
	l, _ := start(t, Options{})
	served, ran := 0, 0
	turns := map[int64]int{}
	peers := crowd(t, l, 40, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		served++
		turns[l.Turned()]++
		for range maxBegun / 2 {
			l.Begin(func() { ran++ })
		}
		c.Idle(0)
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return served == len(peers) && ran == served*maxBegun/2 })
	on(t, l, func() {
		for at, n := range turns {
			if n > 2 {
				t.Errorf("turn %d served %d connections with %d tasks each", at, n, maxBegun/2)
			}
		}
	})
}

// An answer does not wait behind the new work that came before it.
func TestAnswersFirst(t *testing.T) {
	l, _ := start(t, Options{})
	begun, before := 0, -1
	peers := crowd(t, l, 100, time.Hour, func(c *Conn, _ int) {
		_, _ = c.ReadNow(make([]byte, 8))
		begun++
		c.Idle(0)
	})
	fd, at := listenTCP(t)
	defer closeFD(fd)
	task(t, l, func() {
		c, err := l.Dial(Address{AddrPort: at}, serve(func(*Conn) { before = begun }), l.Now()+int64(patience))
		check(t, err)
		c.Idle(0)
	})
	check(t, awaitEvents(int32(fd), unix.POLLIN))
	upstream, _, err := unix.Accept(fd)
	check(t, err)
	defer closeFD(upstream)
	shout(t, l, append(peers, upstream))
	eventually(t, l, "all are served", func() bool { return begun == len(peers) && before >= 0 })
	on(t, l, func() {
		if before > maxBegun {
			t.Errorf("the answer came after %d new things", before)
		}
	})
}

// What has come in time is served, however long the loop takes to come to it.
func TestWaitingIsNotIdle(t *testing.T) {
	l, _ := start(t, Options{})
	served := 0
	peers := crowd(t, l, 100, 300*time.Millisecond, func(c *Conn, _ int) {
		if served++; served == 1 {
			for end := l.Clock() + int64(400*time.Millisecond); l.Clock() < end; {
			}
		}
		c.Idle(0)
		_, _ = c.ReadNow(make([]byte, 8))
	})
	shout(t, l, peers)
	eventually(t, l, "all are served", func() bool { return served == len(peers) })
}
