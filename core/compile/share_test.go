package compile

import (
	"fmt"
	"testing"
)

// TestRoutesShareProxy holds that routes have an action in common where nothing of how their upstream is asked differs, and only there.
func TestRoutesShareProxy(t *testing.T) {
	b := newBench(t)
	text := `
upstreams: { a: { endpoints: [{ address: "127.0.0.1:1", labels: { v: one } }] }, b: ["127.0.0.1:2"] }
routes:
`
	for i, r := range []string{"to: a", "to: a, strip_prefix: /x",
		"to: b", "to: { upstream: a, subset: { v: one } }", "to: { a: 1, b: 1 }", "to: a, timeout: 1s", "to: a, timeouts: { idle: 1s }",
		"to: a, retry: { attempts: 2 }", "to: a, hedge: { after: 1s }", "to: a, request_timeout: ignore", "to: a, host: upstream",
		"to: a, breaker: { errors: 50% }", "to: a, mirror: b", "to: a, canary: { to: b, steps: [50] }"} {
		text += fmt.Sprintf("  - { match: \"%d.example/x/*\", name: %q, %s }\n", i, r, r)
	}
	c, err := b.compile(text)
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.Snapshot.Routes[0], c.Snapshot.Routes[1]
	if first.Action != second.Action {
		t.Error("two routes to one upstream have two actions")
	}
	for _, r := range c.Snapshot.Routes[2:] {
		for _, o := range c.Snapshot.Routes {
			if o != r && o.Action == r.Action {
				t.Errorf("routes %q and %q share their action", r.Name, o.Name)
			}
		}
	}
}
