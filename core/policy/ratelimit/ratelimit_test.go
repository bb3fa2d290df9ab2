package ratelimit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

var errLimited = &core.Error{Status: 429, Reason: "rate_limited"}

// level is one of a policy, of so many requests an hour.
func level(leased bool, limit uint32, parts ...core.KeyPart) Level {
	keys := core.NewKeyRecipe(limits.NewSeed(), parts, 64)
	return Level{Name: keys.String(), Windows: []limits.Window{{Limit: limit, Period: time.Hour}}, Keys: keys, Leased: leased, Err: errLimited,
		Titles: []string{keys.String()}}
}

// started gives a ready policy on one loop, which does not run, and an exchange there.
func started(t testing.TB, s Spec) (*Policy, *core.Exchange) {
	t.Helper()
	l, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Stop() })
	w := core.NewGateway(&core.Snapshot{}, nil).NewWorker(l)
	s.Cost, s.Share, s.Capacity = max(s.Cost, 1), 1, 1<<16
	s.Refusal = core.NewRefusal(429, "rate_limited", "", nil)
	p := New(s)
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start([]*core.Worker{w}, nil, l.Wall()); err != nil {
		t.Fatal(err)
	}
	x := w.Begin()
	x.Client.Addr = netip.MustParseAddr("192.0.2.1")
	x.Route = &core.Route{Name: "all"}
	x.Request.AddName("X-Tenant", []byte("red"))
	return p, x
}

func threeLevels(limit uint32) []Level {
	return []Level{level(true, limit, core.KeyPart{Kind: core.KeyGlobal}), level(true, limit, core.KeyPart{Kind: core.KeyRoute}),
		level(false, limit, core.KeyPart{Kind: core.KeyHeader, Name: "x-tenant"})}
}

// step takes x through all that the policy does with a request.
func step(p *Policy, x *core.Exchange) core.Verdict {
	v := p.OnRequest(x)
	p.OnResponse(x)
	p.OnEnd(x)
	x.Response.Reset()
	x.Keep(nil)
	return v
}

func TestStepAllocatesNothing(t *testing.T) {
	for name, limit := range map[string]uint32{"admitted": 1 << 30, "refused": 1} {
		p, x := started(t, Spec{Levels: threeLevels(limit)})
		step(p, x)
		want := core.Continue
		if limit == 1 {
			want = core.Respond
			step(p, x)
		}
		if n := testing.AllocsPerRun(200, func() {
			if step(p, x) != want {
				t.Fatal("another verdict")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestFields shows what clients are told, and that a name is fit for a field.
func TestFields(t *testing.T) {
	f := func(s Spec, want string) {
		t.Helper()
		p, x := started(t, s)
		p.OnRequest(x)
		p.OnResponse(x)
		var got string
		for _, name := range []string{"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} {
			if v, ok := x.Response.Lookup(name); ok {
				got += fmt.Sprintf("%s: %s; ", name, v)
			}
		}
		if got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	quick := level(false, 10, core.KeyPart{Kind: core.KeyIP})
	quick.Windows = []limits.Window{{Limit: 10, Period: 100 * time.Millisecond}, {Limit: 20, Period: 1500 * time.Millisecond, Algorithm: limits.FixedWindow}}
	quick.Titles = []string{`a"b\c`, "é\r\n"}
	f(Spec{Levels: []Level{quick}, HideHeaders: true, LegacyHeaders: true}, "")
	f(Spec{Levels: []Level{quick}, Cost: 30}, `RateLimit-Policy: "a\"b\\c";q=10, "____";q=20;w=2; RateLimit: "a\"b\\c";r=10;t=0; `)
	hour := level(false, 3600, core.KeyPart{Kind: core.KeyIP})
	f(Spec{Levels: []Level{hour}, LegacyHeaders: true, Cost: 3600},
		`RateLimit-Policy: "ip";q=3600;w=3600; RateLimit: "ip";r=0;t=3600; X-RateLimit-Limit: 3600; X-RateLimit-Remaining: 0; X-RateLimit-Reset: 3600; `)
	f(Spec{Levels: []Level{hour}, DryRun: true}, "")
	f(Spec{Levels: []Level{level(false, 1, core.KeyPart{Kind: core.KeyHeader, Name: "none"})}, Missing: Deny}, "")
	f(Spec{Levels: []Level{level(false, 1, core.KeyPart{Kind: core.KeyHeader, Name: "none"})}, Missing: Allow}, "")
}

// TestStartKeepsWhatIsUsed changes the rates: levels of one name go on, others begin full.
func TestStartKeepsWhatIsUsed(t *testing.T) {
	p, x := started(t, Spec{Levels: threeLevels(1000)})
	for range 10 {
		step(p, x)
	}
	levels := append([]Level{}, p.spec.Levels[2], p.spec.Levels[0])
	levels[1].Windows = []limits.Window{{Limit: 5000, Period: time.Hour}}
	next := New(Spec{Levels: levels, Cost: 1, Share: 1, Capacity: 1 << 16, Refusal: p.spec.Refusal})
	if err := next.Start([]*core.Worker{x.Worker}, p, x.Worker.Loop.Wall()); err != nil {
		t.Fatal(err)
	}
	next.lanes[0].move(next.buckets, 1) // posted to a loop that does not run
	now := x.Worker.Loop.Wall()
	tenant, _ := next.Peek(0, 0, []string{"red"}, now)
	global, _ := next.Peek(1, 0, nil, now)
	if tenant.Remaining != 990 || global.Remaining != 4990 {
		t.Errorf("%d and %d remain, want 990 and 4990", tenant.Remaining, global.Remaining)
	}
	if r := next.Report(0, 1); r.Allowed != 10 || r.Leases.Hits+r.Leases.Misses != 10 {
		t.Errorf("counted: %+v", r)
	}
	if step(p, x); next.Report(0, 0).Allowed != 11 {
		t.Error("what an exchange of the old configuration does is not counted")
	}
}

// BenchmarkStep is what a policy adds to a request: its key, the decision, and the fields of the response.
func BenchmarkStep(b *testing.B) {
	ip := level(false, 1<<30, core.KeyPart{Kind: core.KeyIP})
	for name, s := range map[string]Spec{
		"ip":           {Levels: []Level{ip}},
		"ip-hidden":    {Levels: []Level{ip}, HideHeaders: true},
		"three-levels": {Levels: threeLevels(1 << 30)},
		"refused":      {Levels: threeLevels(1)},
	} {
		b.Run(name, func(b *testing.B) {
			p, x := started(b, s)
			b.ReportAllocs()
			for b.Loop() {
				step(p, x)
			}
		})
	}
}
