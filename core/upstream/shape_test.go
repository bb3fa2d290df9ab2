package upstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
)

// shapedExchange is an exchange on a loop that is not started: nothing of it waits.
func shapedExchange(t testing.TB) *core.Exchange {
	l, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Stop() })
	x := &core.Exchange{Worker: &core.Worker{Loop: l}}
	x.Request.AddName("X-User", []byte("somebody"))
	return x
}

func newCanaryOf(t testing.TB, u *Upstream, keys ...KeySource) *Canary {
	state, err := health.NewCanary(health.CanarySpec{Steps: []int{25, 50}, Hold: time.Hour, Window: time.Minute, MinRequests: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCanary(Target{Upstream: u}, keys)
	c.Start(state)
	return c
}

// A canary gets its share of exchanges that draw, and of keys; what has ended is reported for the side it was on, and what says nothing
// of either side is not.
func TestCanaryCounts(t *testing.T) {
	u, v := New("u", 1, defaults(), nil), New("v", 2, defaults(), nil)
	x := shapedExchange(t)
	c := newCanaryOf(t, v, NewKeySource(FromHeader, "X-User", nil))
	p := NewProxy([]Target{{Upstream: u, Weight: 1}}, 0, false, 1).Shape(nil, c, nil)
	end := func(f func()) {
		x.Times, x.Err, x.Response.Status = core.Times{Start: 1, Sent: 2}, nil, 200
		f()
		x.Trial.OnEnd(x)
	}
	const n = 4000
	for i := range n {
		x.Request.RemoveName("X-User")
		x.Request.Reset()
		x.Request.AddName("X-User", fmt.Append(nil, "user", i))
		var given cookies
		if got := p.choose(x, &given); (got == v.whole) != (x.Trial == core.EndPolicy(&c.sides[0])) {
			t.Fatal("what is reported is another side")
		}
		end(func() { x.Times.Head = 5 })
	}
	s := c.State().Status()
	if part := s.Canary.Requests; part < n/4-150 || part > n/4+150 || s.Canary.Requests+s.Stable.Requests != n || s.Canary.Failures+s.Stable.Failures != 0 {
		t.Errorf("%+v", s)
	}
	before := s.Canary
	x.Trial = &c.sides[0]
	for _, say := range []struct {
		what             string
		f                func()
		requests, failed uint64
	}{
		{"a 500", func() { x.Times.Head, x.Response.Status = 5, 500 }, 1, 1},
		{"a body that broke off", func() { x.Times.Head, x.Err = 5, core.ErrUpstreamReset }, 1, 1},
		{"no connection", func() { x.Err = core.ErrConnectFailed }, 1, 1},
		{"a client who left before", func() { x.Err = core.ErrClientGone }, 0, 0},
		{"a client who left after", func() { x.Times.Head, x.Err = 5, core.ErrClientGone }, 1, 0},
		{"a stopping gateway", func() { x.Err = core.ErrStopping }, 0, 0},
		{"a 404", func() { x.Times.Head, x.Response.Status = 5, 404 }, 1, 0},
		{"a gRPC call that failed", func() {
			x.Times.Head, x.Request.GRPC = 5, true
			x.Response.AddName("grpc-status", []byte("14"))
		}, 1, 1},
		{"a gRPC call that was refused", func() {
			x.Response.Reset()
			x.Times.Head, x.Response.Status = 5, 200
			x.Response.AddName("grpc-status", []byte("7"))
		}, 1, 0},
	} {
		end(say.f)
		after := c.State().Status().Canary
		if after.Requests-before.Requests != say.requests || after.Failures-before.Failures != say.failed {
			t.Errorf("%s: %+v, then %+v", say.what, before, after)
		}
		before = after
	}
}

// What the choice of an upstream costs, and the report at the end of it.
func BenchmarkChoose(b *testing.B) {
	u, v, w := New("u", 1, defaults(), nil), New("v", 2, defaults(), nil), New("w", 3, defaults(), nil)
	key := NewKeySource(FromHeader, "X-User", nil)
	one, two := []Target{{Upstream: u, Weight: 1}}, []Target{{Upstream: u, Weight: 9}, {Upstream: v, Weight: 1}}
	for _, c := range []struct {
		name string
		p    *Proxy
	}{
		{"one upstream", NewProxy(one, 0, false, 1)},
		{"split", NewProxy(two, 0, false, 1)},
		{"split by key", NewProxy(two, 0, false, 1).Shape(NewSplit(two, []KeySource{key}, 1), nil, nil)},
		{"canary", NewProxy(one, 0, false, 1).Shape(nil, newCanaryOf(b, w), nil)},
		{"canary by key", NewProxy(one, 0, false, 1).Shape(nil, newCanaryOf(b, w, key), nil)},
	} {
		b.Run(c.name, func(b *testing.B) {
			x := shapedExchange(b)
			x.Times, x.Response.Status = core.Times{Start: 1, Sent: 2, Head: 1e6}, 200
			b.ReportAllocs()
			for range b.N {
				var given cookies
				_ = c.p.choose(x, &given)
				if x.Trial != nil {
					x.Trial.OnEnd(x)
				}
			}
		})
	}
}
