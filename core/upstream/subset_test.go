package upstream

import (
	"fmt"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// byPath is an action that has another for each path.
type byPath map[string]core.Action

// Answer implements core.Action.
func (b byPath) Answer(x *core.Exchange) { b[string(x.Request.Path)].Answer(x) }

// route makes each path lead to a subset of the host's upstream, and puts these in force. Written as version, or version? where others
// may stand in.
func (h *host) toSubsets(paths map[string]string) {
	h.t.Helper()
	var all []*Subset
	actions := byPath{"/all": NewProxy([]Target{{Upstream: h.upstream, Weight: 1}}, 0, false, len(h.loops))}
	for path, version := range paths {
		otherwise := version[len(version)-1] == '?'
		if otherwise {
			version = version[:len(version)-1]
		}
		s := h.upstream.Subset(map[string]string{"version": version}, otherwise)
		all = append(all, s)
		actions[path] = NewProxy([]Target{{Upstream: h.upstream, Weight: 1, Subset: s}}, 0, false, len(h.loops))
	}
	for i := range h.loops {
		h.on(i, func() { h.route.Action = actions })
	}
	h.upstream.Select(all)
}

func labelled(e *endpoint, version string) Member {
	m := e.member
	m.Labels = map[string]string{"version": version, "more": "x"}
	return m
}

func TestSubsets(t *testing.T) {
	v1, other, v2 := newEndpoint(t), newEndpoint(t), newEndpoint(t)
	for _, e := range []*endpoint{v1, other, v2} {
		close(e.release)
	}
	h := newHost(t, 1, defaults())
	h.toSubsets(map[string]string{"/v1": "v1", "/v2": "v2", "/v3": "v3", "/any": "v3?"})
	c := h.dial(0)
	f := func(path string, want ...*endpoint) {
		t.Helper()
		c.get(path)
		if len(want) == 0 {
			c.answer(503)
			return
		}
		for i := range want {
			if i > 0 {
				c.get(path)
			}
			c.answer(200)
		}
		for _, e := range want {
			if got := e.next(t); got != path {
				t.Errorf("%q came to an endpoint of %s", got, path)
			}
		}
		for _, e := range []*endpoint{v1, other, v2} {
			e.quiet(t)
		}
	}
	f("/v1")
	f("/any")
	h.assign(labelled(v1, "v1"), labelled(other, "v1"), labelled(v2, "v2"))
	f("/v1", v1, other, v1, other)
	f("/v2", v2, v2)
	f("/v3")
	f("/any", v1, other, v2)
	f("/all", v1, other, v2)

	// The same connections serve all subsets.
	if n := h.upstream.Endpoints()[2].Open(); n != 1 {
		t.Errorf("%d connections are open", n)
	}

	// Labels change, and the connections stay. What is drained is replaced by others where the route lets them stand in.
	h.assign(labelled(v1, "v1"), labelled(other, "v3"), labelled(v2, "v2"))
	f("/v1", v1, v1)
	f("/any", other)
	if n := h.upstream.Endpoints()[1].Open(); n != 1 {
		t.Errorf("%d connections are open", n)
	}
	h.upstream.Override(h.upstream.Endpoints()[1], Drain)
	h.rebalance()
	f("/any", v1, v2)
	f("/v3")
	h.upstream.Override(h.upstream.Endpoints()[1], Enable)
	h.rebalance()

	// What is not selected any more goes on as it was.
	h.upstream.Select(nil)
	h.assign(labelled(v1, "v2"), labelled(other, "v2"), labelled(v2, "v2"))
	f("/v1", v1)
	f("/all", v1, other, v2)
}

// A place that is free goes to who waits for that subset, though others have waited longer.
func TestSubsetsWaitForTheirOwn(t *testing.T) {
	v1, v2 := newEndpoint(t), newEndpoint(t)
	set := defaults()
	set.MaxConnections = 1
	for _, loops := range []int{1, 2} {
		h := newHost(t, loops, set, labelled(v1, "v1"), labelled(v2, "v2"))
		h.toSubsets(map[string]string{"/v1": "v1", "/v2": "v2"})
		h.assign(labelled(v1, "v1"), labelled(v2, "v2"))
		var clients []*client
		begin := func(i int, path string) {
			c := h.dial(i)
			c.get(path)
			clients = append(clients, c)
			h.eventually(fmt.Sprint(path, " is under way, or waits"), func() bool { return h.inFlight(0)+h.inFlight(1)+h.upstream.Pending() == len(clients) })
		}
		begin(0, "/v1")
		begin(0, "/v2")
		v1.next(t)
		v2.next(t)
		last := loops - 1 // a loop's connections are of no use to another
		begin(last, "/v1")
		begin(last, "/v2")
		v2.release <- struct{}{}
		clients[1].answer(200)
		for got := ""; got != "/v2"; { // "": the connection of the other loop has ended
			if got = v2.next(t); got == "/v1" {
				t.Error("/v1 has come to v2")
			}
		}
		if h.upstream.Pending() != 1 {
			t.Errorf("%d wait", h.upstream.Pending())
		}
		v2.release <- struct{}{}
		clients[3].answer(200)
		v1.release <- struct{}{}
		clients[0].answer(200)
		v1.release <- struct{}{}
		clients[2].answer(200)
		for _, e := range []*endpoint{v1, v2} {
			for len(e.arrived) > 0 {
				<-e.arrived
			}
		}
	}
}

// What discovery says of a member is no reason to forget what was said at run time.
func TestLearnedKeepsOverrides(t *testing.T) {
	e := newEndpoint(t)
	close(e.release)
	h := newHost(t, 1, defaults(), e.member)
	for _, learned := range []bool{true, false} {
		h.upstream.Override(h.upstream.Endpoints()[0], Drain)
		m := e.member
		m.Learned = learned
		m.Weight, m.Labels = 7, map[string]string{"a": fmt.Sprint(learned)}
		h.assign(m)
		if drained := h.upstream.Endpoints()[0].Load.Flags() != 0; drained != learned {
			t.Errorf("learned %t: drained %t", learned, drained)
		}
	}
}
