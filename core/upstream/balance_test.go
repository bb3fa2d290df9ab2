package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/lb"
)

// balanced are settings with an algorithm, whose key is the path.
func balanced(a lb.Algorithm, change func(*lb.Spec)) *Settings {
	set := defaults()
	b := &Balancing{Spec: lb.Defaults(a)}
	if a.Hashing() {
		b.Keys = []KeySource{NewKeySource(FromPath, "", nil)}
	}
	if change != nil {
		change(&b.Spec)
	}
	set.Balancing = b
	return set
}

// rebalance puts in force what follows from changed loads, and returns when all loops know.
func (h *host) rebalance() {
	h.t.Helper()
	h.upstream.Rebalance(func(w *core.Worker, f func()) { h.on(w.Loop.Index(), f) })
}

func (h *host) inFlight(i int) int { return h.upstream.Endpoints()[i].Load.InFlight() }

// The endpoint with fewer requests under way gets the next, whatever loop they are of.
func TestLeastRequestSeesAllLoops(t *testing.T) {
	a, b := newEndpoint(t), newEndpoint(t)
	h := newHost(t, 2, balanced(lb.LeastRequest, func(s *lb.Spec) { s.FullScan = true }), a.member, b.member)
	var clients []*client
	for i := range 6 {
		c := h.dial(i % 2)
		c.get(fmt.Sprint("/", i))
		h.eventually("the request is under way", func() bool { return h.inFlight(0)+h.inFlight(1) == i+1 })
		clients = append(clients, c)
	}
	if h.inFlight(0) != 3 || h.inFlight(1) != 3 {
		t.Errorf("%d and %d are in flight", h.inFlight(0), h.inFlight(1))
	}
	close(a.release) // a is free at once, b stays busy
	h.eventually("a has answered", func() bool { return h.inFlight(0) == 0 })
	for range 5 {
		c := h.dial(0)
		c.get("/more")
		c.answer(200)
	}
	if h.inFlight(1) != 3 {
		t.Errorf("%d are in flight at the busy one", h.inFlight(1))
	}
	close(b.release)
	for _, c := range clients {
		c.answer(200)
	}
}

// What was under way is counted to its end, however it ends.
func TestEveryFlightEnds(t *testing.T) {
	a := newEndpoint(t)
	h := newHost(t, 1, balanced(lb.PeakEWMA, nil), a.member)
	load := h.upstream.Endpoints()[0].Load
	f := func(how string, end func(c *client)) {
		t.Helper()
		c := h.dial(0)
		c.get("/x")
		for a.next(t) == "" {
		}
		if load.InFlight() != 1 {
			t.Errorf("%s: %d are in flight", how, load.InFlight())
		}
		end(c)
		h.eventually(how+": it is not counted any more", func() bool { return load.InFlight() == 0 })
	}
	f("answered", func(c *client) {
		a.release <- struct{}{}
		c.answer(200)
	})
	if got := h.upstream.Latency(h.upstream.Endpoints()[0]); got <= 0 || got > patience {
		t.Errorf("the latency is %v", got)
	}
	f("the client leaves", func(c *client) { _ = c.conn.Close() })
	if got := h.upstream.Latency(h.upstream.Endpoints()[0]); got > time.Second/2 {
		t.Errorf("who left made the latency %v", got)
	}
	close(a.release)
}

// An endpoint that takes no connections is slow to those that go by latency.
func TestFailuresCountAsSlow(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := memberOf(ln, 1)
	_ = ln.Close()
	h := newHost(t, 1, balanced(lb.PeakEWMA, nil), down)
	c := h.dial(0)
	c.get("/")
	c.answer(502)
	if got := h.upstream.Latency(h.upstream.Endpoints()[0]); got < time.Second/2 || got > time.Second {
		t.Errorf("the latency is %v, want the second that a failure counts as", got)
	}
	if h.inFlight(0) != 0 {
		t.Errorf("%d are in flight", h.inFlight(0))
	}
}

// listening is an endpoint that does with each connection what serve says.
func listening(t *testing.T, weight int, serve func(c net.Conn, r *bufio.Reader)) Member {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				serve(c, bufio.NewReader(c))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return memberOf(ln, weight)
}

// So do answers with a status of 500 or more.
func TestServerErrorsCountAsSlow(t *testing.T) {
	h := newHost(t, 1, balanced(lb.PeakEWMA, nil), listening(t, 1, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
		}
	}))
	c := h.dial(0)
	c.get("/")
	c.answer(503)
	e := h.upstream.Endpoints()[0]
	h.eventually("it is counted", func() bool { return e.Load.InFlight() == 0 })
	if got := h.upstream.Latency(e); got < time.Second/2 || got > time.Second {
		t.Errorf("the latency is %v, want the second that a failure counts as", got)
	}
}

// A request whose kept connection has ended goes to another endpoint, however unlikely that was; with a key to the same.
func TestRetriesGoElsewhere(t *testing.T) {
	f := func(set *Settings, elsewhere bool) {
		t.Helper()
		var fresh atomic.Int32
		stale := listening(t, lb.MaxWeight, func(c net.Conn, r *bufio.Reader) { // one answer a connection, which seems to stay open
			fresh.Add(1)
			if _, err := http.ReadRequest(r); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
				_, _ = http.ReadRequest(r)
			}
		})
		other := newEndpoint(t)
		close(other.release)
		h := newHost(t, 1, set, stale)
		c := h.dial(0)
		c.get("/x")
		c.answer(200)
		h.assign(stale, other.member)
		c.get("/x")
		if got := c.answer(200) == "/x"; got != elsewhere || (fresh.Load() == 2) == elsewhere {
			t.Errorf("elsewhere: %t; %d connections to the first", got, fresh.Load())
		}
	}
	f(balanced(lb.Random, nil), true)
	keyed := balanced(lb.Random, nil) // which heeds no key, so that the first is chosen
	keyed.Balancing.Keys = []KeySource{NewKeySource(FromPath, "", nil)}
	f(keyed, false)
}

// With a key the same endpoint is picked again and again: when it is full, others are found all the same, all of them.
func TestFullEndpointsGiveWay(t *testing.T) {
	f := func(algorithm lb.Algorithm, n int) {
		t.Run(fmt.Sprint(algorithm, n), func(t *testing.T) {
			set := balanced(algorithm, nil)
			set.MaxConnections = 1
			var all []*endpoint
			var members []Member
			for range n {
				e := newEndpoint(t)
				all, members = append(all, e), append(members, e.member)
			}
			h := newHost(t, 1, set, members...)
			var clients []*client
			for range n {
				c := h.dial(0)
				c.get("/same")
				clients = append(clients, c)
			}
			for i, e := range all {
				if got := e.next(t); got != "/same" {
					t.Errorf("%q came to endpoint %d", got, i)
				}
			}
			last := h.dial(0)
			last.get("/same")
			h.eventually("one waits", func() bool { return h.upstream.Pending() == 1 })
			for _, e := range all {
				close(e.release)
			}
			for _, c := range append(clients, last) {
				c.answer(200)
			}
		})
	}
	for _, algorithm := range []lb.Algorithm{lb.Maglev, lb.RingHash, lb.LeastRequest, lb.RoundRobin} {
		f(algorithm, 2)
		f(algorithm, 2*lb.MaxTried+1)
	}
}

// Who waits gets no place at an endpoint that is drained meanwhile.
func TestDrainedEndpointsGetNobodyWhoWaits(t *testing.T) {
	a, b := newEndpoint(t), newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	h := newHost(t, 1, set, a.member, b.member)
	var clients []*client
	for i := range 3 {
		c := h.dial(0)
		c.get(fmt.Sprint("/", i))
		h.eventually("it is under way, or waits", func() bool { return h.inFlight(0)+h.inFlight(1)+h.upstream.Pending() == i+1 })
		clients = append(clients, c)
	}
	a.next(t)
	b.next(t)
	drained := h.upstream.Endpoints()[0]
	h.upstream.Override(drained, Drain)
	h.rebalance()
	close(a.release) // what it had ends well, and nobody comes after it
	h.eventually("it has answered", func() bool { return h.inFlight(0) == 0 })
	if h.upstream.Pending() != 1 {
		t.Errorf("%d wait", h.upstream.Pending())
	}
	close(b.release)
	for _, c := range clients {
		c.answer(200)
	}
	a.quiet(t)

	h.upstream.Override(h.upstream.Endpoints()[1], Disable)
	h.rebalance()
	clients[0].get("/none")
	clients[0].answer(503)
	h.upstream.Override(drained, Enable)
	h.rebalance()
	clients[0].get("/again")
	clients[0].answer(200)
}

// A weight, whoever changes it, costs no connection; a change of the configuration takes back what was changed at run time.
func TestOverridesAndTheConfiguration(t *testing.T) {
	a, b := newEndpoint(t), newEndpoint(t)
	close(a.release)
	close(b.release)
	h := newHost(t, 1, defaults(), a.member, b.member)
	c := h.dial(0)
	ask := func(n int) {
		t.Helper()
		for range n {
			c.get("/x")
			c.answer(200)
		}
	}
	came := func(e *endpoint) (n int) {
		for {
			select {
			case path := <-e.arrived:
				if path == "" {
					t.Error("a connection has ended")
				}
				n++
			default:
				return n
			}
		}
	}
	f := func(what string, wantA, wantB int) {
		t.Helper()
		ask(wantA + wantB)
		if gotA, gotB := came(a), came(b); gotA != wantA || gotB != wantB {
			t.Errorf("%s: got %d and %d, want %d and %d", what, gotA, gotB, wantA, wantB)
		}
	}
	f("at first", 4, 4)
	e := h.upstream.Endpoints()[0]
	e.Load.SetWeight(3)
	h.rebalance()
	f("with a weight of 3", 9, 3)
	h.assign(b.member, a.member)
	if h.upstream.Endpoints()[1] != e {
		t.Fatal("the endpoint was made anew")
	}
	f("after a reload of the same", 9, 3)
	h.upstream.Override(e, Drain)
	h.rebalance()
	f("drained", 0, 4)
	h.assign(a.member, b.member)
	f("drained, after a reload of the same", 0, 4)
	a.member.Weight = 2
	h.assign(a.member, b.member)
	if h.upstream.Endpoints()[0] != e || e.Described().Weight != 2 || e.Load.Weight() != -1 || !e.Load.Available() {
		t.Errorf("the configuration does not count: %+v, weight %d, flags %d", e.Described(), e.Load.Weight(), e.Load.Flags())
	}
	f("the configuration's weight", 6, 3)
}

// A kept connection that has ended is no reason to give up a key, and one to go elsewhere without a key. Where all have been tried
// it is the one that failed last that is not tried again.
func TestShun(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member, newEndpoint(t).member)
	f := func(cause Cause, keyed, want bool) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			x.Attempt.Keyed = keyed
			s, all := h.upstream.shares[0], h.upstream.Endpoints()
			s.shun(x, all[0], cause)
			if got := x.Attempt.Has(&all[0].Endpoint); got != want {
				t.Errorf("cause %d, keyed %t: got %t", cause, keyed, got)
			}
			s.shun(x, all[1], cause)
			if want && (x.Attempt.Has(&all[0].Endpoint) || !x.Attempt.Has(&all[1].Endpoint)) {
				t.Error("the last one is not the one that is given up")
			}
		})
	}
	f(CauseStale, false, true)
	f(CauseStale, true, false)
	f(CauseRefused, false, true)
	f(CauseRefused, true, true)
	f(CauseStatus, true, true)
}

// While endpoints start slowly, another set is due, and none after that.
func TestDue(t *testing.T) {
	h := newHost(t, 1, balanced(lb.RoundRobin, func(s *lb.Spec) { s.SlowStart.Window = 200 * time.Millisecond }), newEndpoint(t).member)
	steps := 0
	for due := h.upstream.Due(); due > 0; due = h.upstream.Due() {
		if due > int64(20*time.Millisecond) {
			t.Fatalf("the next step is due in %v", time.Duration(due))
		}
		<-time.After(time.Duration(due)) // it is a matter of the clock
		h.rebalance()
		if steps++; steps > 100 {
			t.Fatal("it does not end")
		}
	}
	if steps < 2 {
		t.Errorf("%d steps", steps)
	}
}
