package upstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// idleOf gives the idle connections to a member, on all loops.
func (h *host) idleOf(m Member) (n int) {
	for _, e := range h.upstream.Endpoints() {
		if e.address == m.Address {
			for i := range h.loops {
				h.on(i, func() { n += e.Idle(i) })
			}
		}
	}
	return n
}

func TestAssignKeepsTheConnectionsOfWhatStays(t *testing.T) {
	a, b, c := newEndpoint(t), newEndpoint(t), newEndpoint(t)
	for _, e := range []*endpoint{a, b, c} {
		close(e.release)
	}
	h := newHost(t, 1, defaults(), a.member, b.member)
	one := h.dial(0)
	for range 2 {
		one.get("/x")
		one.answer(200)
	}
	if a.next(t) != "/x" || b.next(t) != "/x" {
		t.Fatal("the endpoints have not had a request each")
	}
	h.eventually("a connection to each is kept", func() bool { return h.idleOf(a.member) == 1 && h.idleOf(b.member) == 1 })

	h.assign(c.member, b.member) // a goes, c comes, the order changes
	if path := a.next(t); path != "" {
		t.Fatalf("%q came to the endpoint that went", path)
	}
	if n := h.idleOf(b.member); n != 1 {
		t.Errorf("%d idle connections to the endpoint that stayed, want 1", n)
	}
	for range 2 {
		one.get("/y")
		one.answer(200)
	}
	if b.next(t) != "/y" || c.next(t) != "/y" {
		t.Error("requests went elsewhere")
	}
	a.quiet(t)
	b.quiet(t) // its connection did not end
	for _, e := range h.upstream.Endpoints() {
		if e.Open() != 1 {
			t.Errorf("%d connections to %s", e.Open(), e.Address)
		}
	}
}

func TestAssignLetsWhatIsUnderWayFinish(t *testing.T) {
	a, b := newEndpoint(t), newEndpoint(t)
	h := newHost(t, 1, defaults(), a.member)
	one := h.dial(0)
	one.get("/held")
	a.next(t)
	h.assign(b.member)
	a.quiet(t)
	a.release <- struct{}{}
	if got := one.answer(200); got != "/held" {
		t.Errorf("got %q", got)
	}
	if path := a.next(t); path != "" { // then its connection ends
		t.Errorf("%q came to the endpoint that went", path)
	}
}

func TestWithoutEndpoints(t *testing.T) {
	h := newHost(t, 1, defaults())
	one := h.dial(0)
	one.get("/")
	if got := one.answer(503); got != "{\"error\":\"no_endpoint\",\"status\":503}\n" {
		t.Errorf("got %q", got)
	}
}

func TestQueueServesTheOldestFirst(t *testing.T) {
	const waiting = 8
	a := newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	h := newHost(t, 1, set, a.member)
	var clients []*client
	for i := range waiting + 1 {
		c := h.dial(0)
		c.get(fmt.Sprint("/", i))
		h.eventually("the request waits", func() bool { return h.upstream.Pending() == i })
		if i == 0 {
			a.next(t)
		}
		clients = append(clients, c)
	}
	for i, c := range clients {
		a.quiet(t)
		a.release <- struct{}{}
		if got := c.answer(200); got != fmt.Sprint("/", i) {
			t.Errorf("got %q", got)
		}
		if i < waiting {
			if got, want := a.next(t), fmt.Sprint("/", i+1); got != want {
				t.Errorf("%s was served where %s is the oldest", got, want)
			}
		}
	}
	if n := h.upstream.Endpoints()[0].Open(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What is freed is the oldest waiter's at once: a request that is read in the same turn, before the waiter runs, comes after it.
func TestNobodyOvertakesTheQueue(t *testing.T) {
	f := func(name string, change func(set *Settings)) {
		t.Run(name, func(t *testing.T) {
			a := newEndpoint(t)
			set := defaults()
			set.MaxConnections = 1
			change(set)
			h := newHost(t, 1, set, a.member)
			first, second := h.dial(0), h.dial(0)
			first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n") // the next is at hand when the first is done
			a.next(t)
			second.get("/2")
			h.eventually("the second waits", func() bool { return h.upstream.Pending() == 1 })
			arrival := func() (path string) {
				a.release <- struct{}{}
				for path == "" { // past the ends of connections
					path = a.next(t)
				}
				return path
			}
			if got := arrival(); got != "/2" {
				t.Errorf("%s overtook the one that waited", got)
			}
			if got := arrival(); got != "/3" {
				t.Errorf("%s came last", got)
			}
			a.release <- struct{}{}
			for _, want := range []string{"/1", "/3"} {
				if got := first.answer(200); got != want {
					t.Errorf("got %q", got)
				}
			}
			second.answer(200)
		})
	}
	f("for the connection", func(*Settings) {})
	f("for its place", func(set *Settings) { set.RequestsPerConnection = 1 })
}

// What was given to a waiter that ended in the same turn goes to the next.
func TestWhatWasGivenInVainGoesOn(t *testing.T) {
	a := newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	h := newHost(t, 1, set, a.member)
	var clients []*client
	for i := range 3 {
		c := h.dial(0)
		c.get(fmt.Sprint("/", i))
		h.eventually("the request waits", func() bool { return h.upstream.Pending() == i })
		if i == 0 {
			a.next(t)
		}
		clients = append(clients, c)
	}
	more := *set
	more.MaxConnections = 2
	h.upstream.Configure(&more)
	h.on(0, func() {
		s, e := h.upstream.shares[0], h.upstream.Endpoints()[0]
		s.queue.waiting[0].task.Interrupt(loop.ErrTimeout)
		if !e.take(&more) {
			t.Error("there is no place")
		}
		s.release(e)
	})
	if got := a.next(t); got != "/2" {
		t.Errorf("%q came to the endpoint", got)
	}
	close(a.release)
	clients[0].answer(200)
	clients[1].answer(503)
	clients[2].answer(200)
}

// When there are more endpoints, all that wait look again.
func TestQueueMovesToNewEndpoints(t *testing.T) {
	a, b := newEndpoint(t), newEndpoint(t)
	set := defaults()
	set.MaxConnections = 2
	h := newHost(t, 1, set, a.member)
	var clients []*client
	for i := range 4 {
		c := h.dial(0)
		c.get(fmt.Sprint("/", i))
		if i < 2 {
			a.next(t)
		}
		clients = append(clients, c)
	}
	h.eventually("two wait", func() bool { return h.upstream.Pending() == 2 })
	h.assign(a.member, b.member)
	b.next(t)
	b.next(t)
	close(a.release)
	close(b.release)
	for _, c := range clients {
		c.answer(200)
	}
}

func TestQueueIsLeftByWhoGoes(t *testing.T) {
	a := newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	h := newHost(t, 1, set, a.member)
	first, second, third := h.dial(0), h.dial(0), h.dial(0)
	first.get("/1")
	a.next(t)
	second.get("/2")
	h.eventually("one waits", func() bool { return h.upstream.Pending() == 1 })
	third.get("/3")
	h.eventually("two wait", func() bool { return h.upstream.Pending() == 2 })
	_ = second.conn.Close()
	h.eventually("one has left", func() bool { return h.upstream.Pending() == 1 })
	a.release <- struct{}{}
	if got := a.next(t); got != "/3" {
		t.Errorf("%q came to the endpoint", got)
	}
	a.release <- struct{}{}
	first.answer(200)
	third.answer(200)
}

// A connection that is freed on one loop is of use to a request that waits on another.
func TestConnectionsAreSharedOverLoops(t *testing.T) {
	a := newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	h := newHost(t, 2, set, a.member)
	first, second := h.dial(0), h.dial(1)
	first.get("/1")
	a.next(t)
	second.get("/2")
	h.eventually("the second waits", func() bool { return h.upstream.Pending() == 1 })
	a.quiet(t)
	a.release <- struct{}{}
	first.answer(200)
	// The end of the first connection and the request on the second reach the endpoint in any order.
	if x, y := a.next(t), a.next(t); x+y != "/2" {
		t.Fatalf("%q and %q came to the endpoint", x, y)
	}
	if n := h.upstream.Endpoints()[0].Open(); n != 1 {
		t.Errorf("%d connections where one is allowed", n)
	}
	a.release <- struct{}{}
	second.answer(200)
}

// Idle connections on one loop do not keep those of another from the endpoint.
func TestIdleConnectionsAreGivenUpForOtherLoops(t *testing.T) {
	a := newEndpoint(t)
	close(a.release)
	set := defaults()
	set.MaxConnections, set.QueueTimeout = 1, 2*time.Second
	h := newHost(t, 2, set, a.member)
	first, second := h.dial(0), h.dial(1)
	for range 3 {
		first.get("/1")
		first.answer(200)
		second.get("/2")
		second.answer(200)
	}
}

// Many clients on two loops with few connections: every one is served, and never are there more connections than allowed.
func TestQueueUnderLoad(t *testing.T) {
	const clients, each, most = 12, 100, 3
	a := newEndpoint(t)
	close(a.release)
	a.arrived = make(chan string, clients*each*2)
	set := defaults()
	set.MaxConnections = most
	h := newHost(t, 2, set, a.member)
	done := make(chan error, clients)
	for i := range clients {
		c := h.dial(i % 2)
		go func() {
			for n := range each {
				path := fmt.Sprintf("/%d/%d", i, n)
				if err := c.ask(path); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for left := clients; left > 0; {
		select {
		case err := <-done:
			left--
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Millisecond):
			if n := h.upstream.Endpoints()[0].Open(); n > most {
				t.Fatalf("%d connections", n)
			}
		}
	}
}

// A retired upstream serves who still comes by an older configuration, and keeps no connection.
func TestRetiredUpstreamsServeStragglers(t *testing.T) {
	a := newEndpoint(t)
	close(a.release)
	h := newHost(t, 1, defaults(), a.member)
	one := h.dial(0)
	one.get("/before")
	one.answer(200)
	h.eventually("the connection is kept", func() bool { return h.idleOf(a.member) == 1 })
	h.upstream.Retire(func(w *core.Worker, f func()) { h.on(w.Loop.Index(), f) })
	one.get("/after")
	one.answer(200)
	if got := a.next(t); got != "/before" {
		t.Errorf("%q came to the endpoint", got)
	}
	ends := 0
	for range 3 { // in any order: they are of two connections
		if got := a.next(t); got == "" {
			ends++
		} else if got != "/after" {
			t.Errorf("%q came to the endpoint", got)
		}
	}
	if ends != 2 {
		t.Errorf("%d connections have ended, want 2", ends)
	}
}
