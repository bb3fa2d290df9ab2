package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/admin"
)

// versions is a configuration with one upstream u, whose first endpoint is of version v1 and whose second is of v2, and a route r as more says.
func versions(all []*named, more string) string {
	return fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u: { endpoints: [{ address: %q, labels: { version: v1 } }, { address: %q, labels: { version: v2 } }] }
routes: [{ name: r, match: "/*", %s }]
`, all[0].addr, all[1].addr, more)
}

// TestCanarySubset shows a canary of other endpoints of the stable side's upstream: by steps it gets its share, by key, over a reload, until it
// has all, and it is named after its labels wherever it is told of.
func TestCanarySubset(t *testing.T) {
	const stable, next = "to: { upstream: u, subset: { version: v1 } }", "{ upstream: u, subset: { version: v2 } }"
	all := newNamed(t, 2)
	config := versions(all, stable+", canary: { to: "+next+", steps: [30, 60], hold: 1h, window: 1s, min_requests: 20, key: header:X-User }")
	g := run(t, config)
	c := newHTTPClient(t)
	const users = 200
	first := g.owners(c, users)
	if n := sharesOf(first, "endpoint1"); n < 30 || n > 90 {
		t.Errorf("%d of %d users at 30 %%", n, users)
	}
	g.reload()
	if k := g.canary(); k.State != "progressing" || k.Step != 1 || k.Canary != "u{version=v2}" || k.Changes["begun"] != 1 {
		t.Errorf("after a reload: %+v", k)
	}
	ctl := func(what string) {
		t.Helper()
		if code := admin.Ctl([]string{"--admin", g.admin.Address, "canary", "r", what}, &strings.Builder{}, &strings.Builder{}); code != 0 {
			t.Fatalf("%s: %d", what, code)
		}
	}
	ctl("forward")
	second := g.owners(c, users)
	if n := sharesOf(second, "endpoint1"); n < 85 || n > 155 {
		t.Errorf("%d of %d users at 60 %%", n, users)
	}
	for i := range first {
		if first[i] == "endpoint1" && second[i] != "endpoint1" {
			t.Fatalf("user%d was taken back from the canary", i)
		}
	}
	ctl("promote")
	if n := sharesOf(g.owners(c, 50), "endpoint1"); n != 50 {
		t.Errorf("%d of 50 after it was promoted", n)
	}
	if n := g.metric(`sluice_canary_percent{route="r",upstream="u{version=v2}"}`); n != "100" {
		t.Errorf("the metrics tell of %q percent", n)
	}
	g.write(strings.Replace(config, "version: v2 } }, steps", "version: v2 }, otherwise: any }, steps", 1))
	g.reload()
	if k := g.canary(); k.State != "promoted" {
		t.Errorf("when others may stand in for it: %+v", k)
	}
}

// TestCanarySubsetAborts shows that only what the canary's endpoints do is the canary's: it is aborted when they fail, also where its stable
// side is the whole upstream, some of whose exchanges fail for the same reason.
func TestCanarySubsetAborts(t *testing.T) {
	for name, c := range map[string]struct{ to, abort string }{
		"subsets": {"{ upstream: u, subset: { version: v1 } }", "errors > 5%"},
		"whole":   {"u", "errors > stable + 20%"}, // half of the stable side's are the failing one's, too
	} {
		t.Run(name, func(t *testing.T) {
			all := newNamed(t, 2)
			g := run(t, versions(all, "to: "+c.to+", canary: { to: { upstream: u, subset: { version: v2 } }, steps: [50], hold: 1h, window: 5s, min_requests: 20, abort: \""+c.abort+"\" }"))
			all[1].status.Store(500)
			k := g.drive(newHTTPClient(t), "it is aborted", func(k admin.CanaryStatus) bool { return k.State == "aborted" })
			if s := k.Sides["stable"]; name == "subsets" && s.Failures != 0 {
				t.Errorf("%d failures of the stable side", s.Failures)
			}
			if s := k.Sides["canary"]; s.Failures != s.Requests {
				t.Errorf("%d of %d exchanges with the canary failed", s.Failures, s.Requests)
			}
			if name == "subsets" {
				if n := sharesOf(g.owners(newHTTPClient(t), 30), "endpoint0"); n != 30 {
					t.Errorf("%d of 30 at the stable side", n)
				}
			}
		})
	}
}

// TestSplitOfSubsets spreads a route over two subsets of one upstream, by weight and by key.
func TestSplitOfSubsets(t *testing.T) {
	all := newNamed(t, 2)
	g := run(t, versions(all, "to: [{ upstream: u, weight: 90, subset: { version: v1 } }, { upstream: u, weight: 10, subset: { version: v2 } }], split_by: header:X-User"))
	c := newHTTPClient(t)
	first := g.owners(c, 500)
	if n := sharesOf(first, "endpoint1"); n < 20 || n > 90 { // a deviation is 6.7
		t.Errorf("%d of 500 users are at 10 %%", n)
	}
	for i, owner := range g.owners(newHTTPClient(t), 500) {
		if owner != first[i] {
			t.Fatalf("user%d is at %s, was at %s", i, owner, first[i])
		}
	}
}
