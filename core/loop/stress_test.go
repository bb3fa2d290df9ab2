package loop

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	stressClients = 300
	stressFor     = 5 * time.Second
	// stressSeed names the variable with the seed of a run to repeat.
	stressSeed = "SLUICE_LOOP_STRESS_SEED"
)

// storm is what the clients and the upstream of the stress test count.
type storm struct {
	t       *testing.T
	seed    uint64
	serial  atomic.Uint64
	whole   atomic.Int64 // answers that came to their end
	broken  atomic.Int64 // ended as planned
	lost    atomic.Int64 // ended without a byte of the answer, unplanned
	closes  atomic.Int64 // unannounced closes by the upstream, each of which may cost one request
	bytes   atomic.Int64
	serving sync.WaitGroup
}

// Hundreds of clients over two loops that relay to an upstream, with stalls, resets, half-closes, connections that are
// used again and some that the upstream has closed meanwhile, by copying and by splicing, both ways at once. Every byte
// is checked at both ends; at the end nothing is left.
func TestStress(t *testing.T) {
	s := &storm{t: t, seed: rand.Uint64()}
	if v := os.Getenv(stressSeed); v != "" {
		s.seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("seed: %s=%d", stressSeed, s.seed)
	upstream, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	s.serving.Go(func() { s.upstream(upstream) })
	relays := make([]*relay, 2)
	var clients sync.WaitGroup
	end := time.Now().Add(stressFor)
	for i := range relays {
		l, _ := start(t, Options{Index: i, Panicked: func() { t.Error("a panic on the loop") }})
		relays[i] = &relay{t: t, loop: l, upstream: Address{AddrPort: upstream.Addr().(*net.TCPAddr).AddrPort()}}
		at := relays[i].listen(t)
		for k := range stressClients / len(relays) {
			r := rand.New(rand.NewPCG(s.seed, uint64(i*stressClients+k)))
			clients.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					s.client(at, r)
				}
			})
		}
	}
	clients.Wait()
	reuses, hangups := 0, 0
	for _, r := range relays {
		eventually(t, r.loop, "all tasks of the relay have ended", func() bool { return len(r.loop.all) == len(r.loop.idle) })
		on(t, r.loop, func() {
			for len(r.pool) > 0 {
				r.pool[0].Close()
			}
			for _, c := range r.loop.conns {
				if c != nil && !c.idle {
					t.Errorf("a connection is left that nobody uses: %+v", c)
				}
			}
			t.Logf("relay %d: %d dials, %d reuses, %d failures, %d of them hang-ups", r.loop.Index(), r.dials, r.reuses, r.failures, r.hangups)
			reuses, hangups = reuses+r.reuses, hangups+r.hangups
		})
	}
	_ = upstream.Close()
	s.serving.Wait()
	t.Logf("%d whole answers, %d broken off as planned, %d lost to %d closes, %d MiB", s.whole.Load(), s.broken.Load(), s.lost.Load(),
		s.closes.Load(), s.bytes.Load()>>20)
	if s.lost.Load() > s.closes.Load() {
		t.Error("more requests were lost than connections closed")
	}
	const often = 1000 // breaks, of which some must have been seen as hang-ups; a slow machine makes fewer
	if s.whole.Load() < stressClients || s.broken.Load() == 0 || reuses < stressClients || hangups == 0 && s.broken.Load() > often {
		t.Error("too little got through, or nothing was broken off")
	}
}

// plan draws a request.
func (s *storm) plan(r *rand.Rand) request {
	size := func() uint32 {
		switch r.IntN(10) {
		case 0:
			return 0
		case 1, 2:
			return uint32(r.IntN(2 * BufferBytes))
		case 3:
			return uint32(r.IntN(1 << 20))
		}
		return uint32(r.IntN(4000))
	}
	q := request{name: s.serial.Add(1), upBytes: size(), downBytes: size(), plan: uint32(r.IntN(256))}
	for _, rare := range []uint32{clientResets, upstreamResets, upstreamCloses, halfClosing} {
		if r.IntN(8) != 0 {
			q.plan &^= rare
		}
	}
	return q
}

// client makes some requests over one connection.
func (s *storm) client(at netip.AddrPort, r *rand.Rand) {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		s.t.Errorf("client: %v", err)
		return
	}
	defer func() { _ = c.Close() }()
	for range r.IntN(20) + 1 {
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		if !s.request(c, s.plan(r), r) {
			return
		}
	}
}

// request makes a request and says whether the connection may serve another.
func (s *storm) request(c *net.TCPConn, q request, r *rand.Rand) bool {
	breakOff := int64(-1) // after how many bytes, sent or received
	if q.plan&clientResets != 0 {
		breakOff = r.Int64N(int64(q.upBytes) + int64(q.downBytes) + 8)
	}
	sent := make(chan bool, 1)
	abort := func() {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	pause := rand.New(rand.NewPCG(s.seed, q.name))
	go func() {
		_, err := c.Write(q.append(nil))
		if breakOff >= 0 && q.upBytes == 0 && q.name%2 == 0 { // while the relay waits for the answer
			abort()
		}
		ok := err == nil && s.write(c, q.name, int64(q.upBytes), q, pause, breakOff, abort)
		if ok && q.plan&halfClosing != 0 {
			_ = c.CloseWrite()
		}
		sent <- ok
	}()
	got, err := s.answer(c, q, r, breakOff-int64(q.upBytes), abort)
	if err != nil {
		abort() // ends the sending, too
	}
	ok := <-sent && err == nil
	switch {
	case err == nil:
		s.whole.Add(1)
	case q.plan&faulty != 0:
		s.broken.Add(1)
	case got == 0 && !isTimeout(err):
		s.lost.Add(1)
	default:
		s.t.Errorf("client: request %+v ended after %d bytes of the answer: %v", q, got, err)
	}
	return ok && q.plan&halfClosing == 0
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// answer reads and checks the answer, and says how much came.
func (s *storm) answer(c *net.TCPConn, q request, r *rand.Rand, breakOff int64, abort func()) (got int64, err error) {
	var name [8]byte
	n, err := io.ReadFull(c, name[:])
	if err != nil {
		return int64(n), err
	}
	if v := binary.LittleEndian.Uint64(name[:]); v != q.name {
		s.t.Errorf("client: request %d got the answer to %d", q.name, v)
	}
	err = s.read(c, q.downName(), int64(q.downBytes), q, r, breakOff, abort, &got)
	return got + 8, err
}

// write sends size bytes of a pattern in random pieces; past the byte breakOff, if that is not negative, it aborts.
func (s *storm) write(c net.Conn, name uint64, size int64, q request, r *rand.Rand, breakOff int64, abort func()) bool {
	p := make([]byte, 32<<10)
	for at := int64(0); at < size; {
		k := min(size-at, r.Int64N(int64(len(p)))+1)
		if breakOff >= 0 && at+k > breakOff {
			abort()
			return false
		}
		pattern(p[:k], name, at)
		if _, err := c.Write(p[:k]); err != nil {
			return false
		}
		at += k
		s.pause(q, r)
	}
	return true
}

// read takes size bytes of a pattern in random pieces, and checks them.
func (s *storm) read(c net.Conn, name uint64, size int64, q request, r *rand.Rand, breakOff int64, abort func(), got *int64) error {
	p := make([]byte, 32<<10)
	for *got < size {
		if breakOff >= 0 && *got >= breakOff {
			abort()
		}
		n, err := c.Read(p[:min(size-*got, r.Int64N(int64(len(p)))+1)])
		if at := differs(p[:n], name, *got); at >= 0 {
			s.t.Errorf("request %+v: byte %d of %d of pattern %d is wrong", q, *got+int64(at), size, name)
			return io.ErrNoProgress
		}
		*got += int64(n)
		s.bytes.Add(int64(n))
		if err != nil {
			return err
		}
		s.pause(q, r)
	}
	return nil
}

// pause is part of the load: a peer that stalls.
func (s *storm) pause(q request, r *rand.Rand) {
	if q.plan&stalling != 0 && r.IntN(8) == 0 {
		time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
	}
}

func (s *storm) upstream(ln *net.TCPListener) {
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			return
		}
		s.serving.Go(func() {
			defer func() { _ = c.Close() }()
			for s.serve(c) == nil {
			}
		})
	}
}

// serve answers one request on an upstream connection.
func (s *storm) serve(c *net.TCPConn) error {
	var head [headBytes]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	q := parseRequest(head[:])
	r := rand.New(rand.NewPCG(s.seed, ^q.name))
	abort := func() {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	breakOff := int64(-1)
	if q.plan&upstreamResets != 0 {
		breakOff = r.Int64N(int64(q.downBytes) + 1)
	}
	read := make(chan error, 1)
	receive := func(r *rand.Rand) {
		var got int64
		read <- s.read(c, q.name, int64(q.upBytes), q, r, -1, nil, &got)
	}
	if reader := rand.New(rand.NewPCG(s.seed, q.name<<32)); q.plan&answersEarly != 0 {
		go receive(reader)
	} else {
		receive(reader)
	}
	if q.plan&stalling != 0 || q.plan&clientResets != 0 && q.upBytes == 0 {
		time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
	}
	name := binary.LittleEndian.AppendUint64(nil, q.name)
	_, err := c.Write(name)
	if err == nil && !s.write(c, q.downName(), int64(q.downBytes), q, r, breakOff, abort) {
		err = fmt.Errorf("the answer was broken off")
	}
	if err != nil {
		abort()
	}
	if e := <-read; err == nil {
		err = e
	}
	if err == nil && q.plan&upstreamCloses != 0 {
		s.closes.Add(1)
		err = io.EOF
	}
	return err
}
