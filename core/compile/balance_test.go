package compile

import (
	"reflect"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/lb"
)

// What the grammar lets through is within the bounds of package lb, at both ends of each, and arrives where it belongs.
func TestBalancing(t *testing.T) {
	b := newBench(t)
	f := func(balance string, want func(s *lb.Spec), keys ...upstream.KeySource) {
		t.Helper()
		cfg, problems := b.load("upstreams: { u: { endpoints: [127.0.0.1:1], balance: " + balance + " } }\nroutes: [{ match: \"/{id}\", to: u }]\n")
		if cfg == nil {
			t.Fatalf("%s", problems)
		}
		got := balancing(&cfg.Upstreams[0].Balance)
		if err := got.Spec.Check(); err != nil {
			t.Errorf("%s: %v", balance, err)
		}
		spec := lb.Defaults(got.Spec.Algorithm)
		want(&spec)
		if got.Spec != spec {
			t.Errorf("%s: got %+v, want %+v", balance, got.Spec, spec)
		}
		if !reflect.DeepEqual(got.Keys, keys) {
			t.Errorf("%s: got keys %+v, want %+v", balance, got.Keys, keys)
		}
	}
	is := func(a lb.Algorithm) func(*lb.Spec) { return func(s *lb.Spec) { s.Algorithm = a } }
	f("round_robin", is(lb.RoundRobin))
	f("random", is(lb.Random))
	f("{ panic: 0% }", func(s *lb.Spec) { s.Algorithm, s.Panic = lb.RoundRobin, 0 })
	f("{ least_request: { choices: 16, bias: 8 }, overprovisioning: 10, panic: 100% }", func(s *lb.Spec) {
		s.Algorithm, s.Choices, s.Bias, s.Overprovide, s.Panic = lb.LeastRequest, 16, 8, 10, 1
	})
	f("{ least_request: { full_scan: true, bias: 0 }, overprovisioning: 1 }", func(s *lb.Spec) {
		s.Algorithm, s.FullScan, s.Bias, s.Overprovide = lb.LeastRequest, true, 0, 1
	})
	f("{ peak_ewma: { decay: 10ms, failure: 0 }, slow_start: { window: 24h, aggression: 0.01, minimum: 0.1% } }", func(s *lb.Spec) {
		s.Algorithm, s.Decay, s.Penalty, s.SlowStart = lb.PeakEWMA, 10*time.Millisecond, 0, lb.SlowStart{Window: 24 * time.Hour, Aggression: 0.01, Minimum: 0.001}
	})
	f("{ peak_ewma: { decay: 1h, failure: 1h }, slow_start: { window: 1ms, aggression: 100, minimum: 100% }, zone: { own: x, minimum_endpoints: 10000 } }", func(s *lb.Spec) {
		s.Algorithm, s.Decay, s.Penalty, s.SlowStart = lb.PeakEWMA, time.Hour, time.Hour, lb.SlowStart{Window: time.Millisecond, Aggression: 100, Minimum: 1}
		s.Zone, s.ZoneMinimum = "x", 10000
	})
	client := upstream.NewKeySource(upstream.FromClient, "", nil)
	f("{ source_ip: { load_factor: 1.01 } }", func(s *lb.Spec) { s.Algorithm, s.LoadFactor = lb.SourceIP, 1.01 }, client)
	f("{ maglev: { load_factor: 100 } }", func(s *lb.Spec) { s.Algorithm, s.LoadFactor = lb.Maglev, 100 }, client)
	f("{ ring_hash: { key: [header:Host, cookie:c, query:q, path:id, path] } }", is(lb.RingHash),
		upstream.NewKeySource(upstream.FromHeader, "Host", nil), upstream.NewKeySource(upstream.FromCookie, "c", nil),
		upstream.NewKeySource(upstream.FromQuery, "q", nil), upstream.NewKeySource(upstream.FromParameter, "id", nil),
		upstream.NewKeySource(upstream.FromPath, "", nil))
	for word, attribute := range map[string]string{"strict": "Strict", "lax": "Lax", "none": "None", "off": ""} {
		f("{ maglev: { key: { cookie: { name: sid, ttl: 1m, path: /a, secure: true, http_only: false, same_site: "+word+" } } } }", is(lb.Maglev),
			upstream.NewKeySource(upstream.FromCookie, "sid", &upstream.StickySpec{TTL: time.Minute, Path: "/a", Secure: true, SameSite: attribute}))
	}
}

// A change of balancing by a reload, a weight among it, makes no endpoint anew; slow start runs by itself in the background.
func TestBalancingChanges(t *testing.T) {
	b := newBench(t)
	c := b.apply("upstreams: { u: { endpoints: [127.0.0.1:1, 127.0.0.1:2] } }\nroutes: [{ match: \"/\", to: u }]\n")
	u := c.Upstreams[0]
	first := u.Endpoints()[0]
	c = b.apply("upstreams: { u: { endpoints: [{ address: 127.0.0.1:1, weight: 3 }, 127.0.0.1:2, 127.0.0.1:3], balance: { least_request: {}, slow_start: 300ms } } }\n" +
		"routes: [{ match: \"/\", to: u }]\n")
	if c.Upstreams[0] != u || u.Endpoints()[0] != first || first.Described().Weight != 3 {
		t.Fatal("the endpoint is another")
	}
	settled := func() {
		t.Helper()
		for deadline := time.Now().Add(patience); u.Due() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the next step is due in %v, and nobody makes it", time.Duration(u.Due()))
			}
		}
	}
	settled()
	for _, change := range []string{"drain", "enable"} {
		if err := c.Override("u", []string{"127.0.0.1:2"}, change, nil); err != nil {
			t.Fatal(err)
		}
	}
	back := u.Endpoints()[1]
	if share := u.Shares()[back]; share >= 0.1 || u.Due() == 0 {
		t.Errorf("the endpoint that is back begins with %v", share)
	}
	settled()
	if share := u.Shares()[back]; share < 0.199 || share > 0.201 {
		t.Errorf("the endpoint that is back has come to %v", share)
	}
}
