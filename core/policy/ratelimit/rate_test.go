package ratelimit

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// TestRateOf finds the rate of a request: the consumer's own, his tier's, the level's.
func TestRateOf(t *testing.T) {
	r := newRates(&Level{Tiers: []Rate{{Name: "free"}, {Name: "paid"}}, Consumers: []Rate{{Name: "acme"}, {Name: "paid"}}})
	f := func(c *core.Consumer, plan, claim string, want int) {
		t.Helper()
		x := &core.Exchange{Consumer: c}
		if plan != "" {
			x.Claims = core.NewClaimTexts([]string{"other", "plan"}, []string{"free", plan})
		}
		if got := r.of(x, claim); got != want {
			t.Errorf("%+v with plan %q has rate %q, want %q", c, plan, r.all[got].Name, r.all[want].Name)
		}
	}
	f(nil, "", "", 0)
	f(&core.Consumer{Name: "x"}, "", "", 0)
	f(&core.Consumer{Name: "x", Tier: "gold"}, "paid", "", 0)
	f(&core.Consumer{Name: "x", Tier: "free"}, "paid", "", 1)
	f(&core.Consumer{Name: "acme", Tier: "free"}, "paid", "plan", 3)
	f(&core.Consumer{Name: "x", Tier: "free"}, "paid", "plan", 2)
	f(&core.Consumer{Name: "free", Tier: "free"}, "", "plan", 0)
	f(&core.Consumer{Name: "paid"}, "", "", 4)
	f(nil, "free", "plan", 1)
	f(nil, "free", "none", 0)
}

// clusterOf is a cluster that nobody answers for.
func clusterOf(t testing.TB) *redis.Client {
	t.Helper()
	c, err := redis.New(redis.Spec{Addresses: []string{"127.0.0.1:1"}, Mode: redis.Single, Timeout: time.Millisecond,
		Clock: func() int64 { return time.Now().UnixNano() }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shared makes levels the cluster's.
func shared(t testing.TB, c *redis.Client, levels []Level) []Level {
	t.Helper()
	for i := range levels {
		var err error
		if levels[i].Buckets, err = c.Buckets(redis.BucketSpec{Policy: "p", Name: levels[i].Name, Windows: levels[i].Windows}); err != nil {
			t.Fatal(err)
		}
	}
	return levels
}

// TestLeaseAllocatesNothing takes of what a node has of the cluster, with tiers and costs after the fact, whether it asks or not, and whether
// the cluster is there or away; and in strict mode while it is away.
func TestLeaseAllocatesNothing(t *testing.T) {
	for name, s := range map[string]Spec{
		"leased":        {Mode: Lease},
		"denied":        {Mode: Lease, Away: limits.AwayDeny},
		"strict, local": {Mode: Strict},
		"strict, allow": {Mode: Strict, Away: limits.AwayAllow},
		"local, after":  {Mode: Local, After: &After{Header: "X-Cost", Max: 10, Remove: true}},
		"leased, after": {Mode: Lease, After: &After{Header: "X-Cost", Max: 10}},
	} {
		s.Cluster = clusterOf(t)
		levels := threeLevels(1 << 30)
		levels[2].Tiers = []Rate{{Name: "paid", Windows: levels[2].Windows, Titles: levels[2].Titles}}
		s.Levels = shared(t, s.Cluster, levels)
		s.Levels[2].Tiers[0].Buckets = s.Levels[2].Buckets
		p, x := started(t, s)
		x.Consumer = &core.Consumer{Name: "a", Tier: "paid"}
		for _, away := range []bool{false, true} {
			if c := p.buckets[0][0].cluster; c != nil && away {
				for i := range p.buckets {
					for j := range p.buckets[i] {
						p.buckets[i][j].cluster.Fail(limits.Key{}, time.Second, x.Worker.Loop.Wall())
					}
				}
			}
			if n := testing.AllocsPerRun(200, func() {
				p.OnRequest(x)
				x.Response.AddName("X-Cost", []byte("7"))
				p.OnResponse(x)
				p.OnEnd(x)
				x.Response.Reset()
				x.Keep(nil)
			}); n > 0 {
				t.Errorf("%s, away %t: %v allocations", name, away, n)
			}
		}
	}
}

// TestCostAfter takes what responses say, at the rate that the request had.
func TestCostAfter(t *testing.T) {
	levels := []Level{level(false, 100, core.KeyPart{Kind: core.KeyIP})}
	levels[0].Tiers = []Rate{{Name: "paid", Windows: []limits.Window{{Limit: 200, Period: time.Hour}}, Titles: levels[0].Titles}}
	p, x := started(t, Spec{Levels: levels, Cost: 2, After: &After{Header: "X-Cost", Max: 50}})
	f := func(tier string, want uint32, lines ...string) {
		t.Helper()
		x.Consumer = &core.Consumer{Tier: tier}
		p.OnRequest(x)
		for _, l := range lines {
			x.Response.AddName("x-cost", []byte(l))
		}
		p.OnResponse(x)
		p.OnResponse(x) // an answer that was made twice costs once
		p.OnEnd(x)
		x.Response.Reset()
		x.Keep(nil)
		rate := map[string]int{"": 0, "paid": 1}[tier]
		if d, _ := p.Peek(0, rate, []string{"192.0.2.1"}, x.Worker.Loop.Wall()); d.Remaining != want {
			t.Errorf("tier %q, %q: %d remain, want %d", tier, lines, d.Remaining, want)
		}
	}
	f("", 90, "10")
	f("", 88)
	f("", 86, "-1")
	f("", 84, "1 ")
	f("", 82, "3", "3")
	f("", 82, "0")
	f("", 81, "1")
	f("paid", 150, "51")
	f("paid", 100, "99999999999999999999999999")
	f("", 31, "50")
	f("", 0, "50") // 19 are owed
	if v := p.OnRequest(x); v != core.Respond {
		t.Errorf("what is owed is not asked for: %v", v)
	}
	d, _ := p.Peek(0, 0, []string{"192.0.2.1"}, x.Worker.Loop.Wall())
	if got := fmt.Sprint(d.Reset.Round(time.Minute)); got != "1h11m0s" {
		t.Errorf("all is back in %s, want the time of 119 tokens", got)
	}
}
