package concurrency

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

// started gives a ready policy on one loop, which does not run, and the worker there.
func started(t testing.TB, limit uint32, missing Missing, part core.KeyPart) (*Policy, *core.Worker) {
	t.Helper()
	l, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Stop() })
	w := core.NewGateway(&core.Snapshot{}, nil).NewWorker(l)
	p := New(Spec{Limit: limit, Hold: time.Minute, Keys: core.NewKeyRecipe(limits.NewSeed(), []core.KeyPart{part}, 64), Capacity: 1 << 10,
		Missing: missing, Refusal: core.NewRefusal(429, "too_many_concurrent", "", nil), Err: &core.Error{Status: 429, Reason: "too_many_concurrent"}})
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start([]*core.Worker{w}, nil, l.Wall()); err != nil {
		t.Fatal(err)
	}
	return p, w
}

func begin(w *core.Worker) *core.Exchange {
	x := w.Begin()
	x.Client.Addr = netip.MustParseAddr("192.0.2.1")
	return x
}

// TestPlaces takes and gives back in any order; the list of those that are to be renewed holds exactly those that are taken.
func TestPlaces(t *testing.T) {
	p, w := started(t, 3, Shared, core.KeyPart{Kind: core.KeyIP})
	a, b, c, d := begin(w), begin(w), begin(w), begin(w)
	want := func(n uint32, listed int) {
		t.Helper()
		got, _ := p.InFlight([]string{"192.0.2.1"}, w.Loop.Wall())
		count := 0
		for h := p.lanes[0].oldest; h != nil; h = h.next {
			count++
		}
		if got != n || count != listed {
			t.Errorf("%d are in flight and %d listed, want %d", got, count, n)
		}
	}
	for _, x := range []*core.Exchange{a, b, c} {
		if p.OnRequest(x) != core.Continue {
			t.Error("refused")
		}
	}
	if p.OnRequest(d) != core.Respond || d.Err == nil || d.Response.Status != 429 {
		t.Errorf("a fourth one: %v, %d", d.Err, d.Response.Status)
	}
	p.OnEnd(d) // has nothing to give back
	want(3, 3)
	p.OnEnd(b)
	want(2, 2)
	if p.OnRequest(d) != core.Continue {
		t.Error("refused although there is a place")
	}
	p.OnEnd(a)
	p.OnEnd(d)
	p.OnEnd(c)
	want(0, 0)
	if r := p.Report(0); r != (Counts{Allowed: 4, Refused: 1}) {
		t.Errorf("counted: %+v", r)
	}
	if top := p.Top(0).Keys(); len(top) != 1 || top[0].Label != "ip=192.0.2.1" {
		t.Errorf("refused: %+v", top)
	}
}

// TestMissing has a request without the key.
func TestMissing(t *testing.T) {
	for missing, want := range map[Missing][2]core.Verdict{Shared: {core.Continue, core.Respond}, Allow: {core.Continue, core.Continue}, Deny: {core.Respond, core.Respond}} {
		p, w := started(t, 1, missing, core.KeyPart{Kind: core.KeyHeader, Name: "x-none"})
		if first, second := p.OnRequest(begin(w)), p.OnRequest(begin(w)); first != want[0] || second != want[1] {
			t.Errorf("%d: %v and %v, want %v", missing, first, second, want)
		}
	}
}

// TestRenewIsBounded renews a part of many at a time, and all of them in the end.
func TestRenewIsBounded(t *testing.T) {
	p, w := started(t, 100_000, Shared, core.KeyPart{Kind: core.KeyGlobal})
	a := p.lanes[0]
	const n = 2*renewStep + 10
	for range n {
		p.OnRequest(begin(w))
	}
	old := int64(-1 << 40)
	for h := a.oldest; h != nil; h = h.next {
		h.renewed = old
	}
	for left := n; left > 0; left -= renewStep {
		a.renew()
		count := 0
		for h := a.oldest; h != nil && h.renewed == old; h = h.next {
			count++
		}
		if want := max(0, left-renewStep); count != want {
			t.Fatalf("%d are left, want %d", count, want)
		}
	}
	if got, _ := p.InFlight(nil, w.Loop.Wall()); got != n {
		t.Errorf("%d are in flight, want %d", got, n)
	}
}

// BenchmarkStep is what the policy adds to a request.
func BenchmarkStep(b *testing.B) {
	p, w := started(b, 100, Shared, core.KeyPart{Kind: core.KeyIP})
	x := begin(w)
	b.ReportAllocs()
	for b.Loop() {
		p.OnRequest(x)
		p.OnEnd(x)
		x.Keep(nil)
	}
}
