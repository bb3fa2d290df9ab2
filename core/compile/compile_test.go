package compile

import (
	"fmt"
	"strings"
	"testing"
)

// endpointsOf gives the addresses of an upstream in force.
func endpointsOf(c *Compiled, name string) string {
	var all []string
	for _, u := range c.Upstreams {
		if u.Name == name {
			for _, e := range u.Endpoints() {
				all = append(all, e.Address)
			}
		}
	}
	return strings.Join(all, " ")
}

const one = `
upstreams: { a: { endpoints: ["127.0.0.1:1", "127.0.0.1:2"] } }
routes: [{ match: "/*", to: a }]
`

func TestReloadKeepsUpstreams(t *testing.T) {
	b := newBench(t)
	first := b.apply(one)
	u, ends := first.Upstreams[0], first.Upstreams[0].Endpoints()
	second := b.apply(`
upstreams:
  b: ["127.0.0.1:9"]
  a: { endpoints: ["127.0.0.1:2", "127.0.0.1:3"], pool: { max_connections: 7 }, timeouts: { idle: 3s } }
routes: [{ match: "/x", to: b }, { match: "/*", to: a }]
`)
	if second.Upstreams[1] != u {
		t.Error("an upstream of the same name is another one")
	}
	if now := u.Endpoints(); len(now) != 2 || now[0] != ends[1] || now[1] == ends[0] {
		t.Errorf("the endpoint that stays is another one: %s", endpointsOf(second, "a"))
	}
	if s := u.Settings(); s.MaxConnections != 7 || s.Idle.Seconds() != 3 {
		t.Errorf("settings are the old ones: %+v", s)
	}
	if second.Snapshot.Generation != first.Snapshot.Generation+1 {
		t.Errorf("generation %d follows %d", second.Snapshot.Generation, first.Snapshot.Generation)
	}
	if third := b.apply(one); third.Upstreams[0] != u {
		t.Error("the upstream did not live on")
	}
}

func TestAnUpstreamThatComesBackIsNew(t *testing.T) {
	b := newBench(t)
	u := b.apply(one).Upstreams[0]
	b.apply("routes: [{ match: \"/*\", respond: { status: 204 } }]\n")
	if len(b.registry.upstreams) != 0 {
		t.Errorf("%d upstreams are left", len(b.registry.upstreams))
	}
	again := b.apply(one)
	if again.Upstreams[0] == u {
		t.Error("an upstream that was retired is in force")
	}
	if got := endpointsOf(again, "a"); got != "127.0.0.1:1 127.0.0.1:2" {
		t.Errorf("endpoints are %q", got)
	}
}

// What was compiled and not applied leaves no trace.
func TestCompileChangesNothing(t *testing.T) {
	b := newBench(t)
	c := b.apply(one)
	next, err := b.compile(`
upstreams: { a: { endpoints: ["127.0.0.1:7"], pool: { max_connections: 7 } }, b: ["127.0.0.1:8"] }
routes: [{ match: "/*", to: { a: 1, b: 1 } }]
`)
	if err != nil || next.Snapshot.Generation != 2 {
		t.Fatalf("%+v, %v", next, err)
	}
	if got := endpointsOf(c, "a"); got != "127.0.0.1:1 127.0.0.1:2" {
		t.Errorf("endpoints are %q", got)
	}
	if s := c.Upstreams[0].Settings(); s.MaxConnections != 0 {
		t.Errorf("settings are %+v", s)
	}
	if again := b.apply(one); again.Snapshot.Generation != 2 || len(b.registry.upstreams) != 1 {
		t.Errorf("generation %d, %d upstreams", again.Snapshot.Generation, len(b.registry.upstreams))
	}
}

func TestNames(t *testing.T) {
	b := newBench(t)
	c := b.apply(`
upstreams:
  known: ["localhost:1"]
  unknown: { endpoints: ["no-such-name.invalid:1", "127.0.0.1:2", "no-such-name.invalid:3"] }
  socket: ["unix:/run/x.sock", "[::1]:5"]
routes: [{ match: "/*", to: { known: 1, unknown: 1, socket: 1 } }]
`)
	for _, e := range strings.Fields(endpointsOf(c, "known")) {
		if e != "127.0.0.1:1" && e != "[::1]:1" {
			t.Errorf("localhost is %q", e)
		}
	}
	if endpointsOf(c, "known") == "" {
		t.Error("localhost does not resolve")
	}
	if got := endpointsOf(c, "unknown"); got != "127.0.0.1:2" {
		t.Errorf("endpoints are %q", got)
	}
	if log := b.log.String(); strings.Count(log, "cannot resolve endpoint") != 1 || !strings.Contains(log, "host=no-such-name.invalid") {
		t.Errorf("the log says %s", log)
	}
	if got := endpointsOf(c, "socket"); got != "unix:/run/x.sock [::1]:5" {
		t.Errorf("endpoints are %q", got)
	}
}

// What cannot be compiled is refused with its place, be it by the grammar or by what it is compiled to.
func TestRefusedWithItsPlace(t *testing.T) {
	b := newBench(t)
	f := func(line, column int, route string) {
		t.Helper()
		text := "upstreams: { u: [\"127.0.0.1:1\"] }\nroutes:\n- { match: \"/all/*\", to: u }\n- " + route + "\n"
		cfg, problems := b.load(text)
		place := fmt.Sprintf("sluice.yaml:%d:%d: ", line, column)
		said := problems.String()
		if cfg != nil {
			_, err := b.registry.Compile(cfg)
			if err == nil {
				t.Errorf("%s is accepted", route)
				return
			}
			said = err.Error()
		}
		if !strings.Contains(said, place) {
			t.Errorf("%s: want %q in %s", route, place, said)
		}
	}
	f(6, 15, `{ match: '/a\b', respond: {} }`)
	f(6, 18, `{ match: "/{a}/{a}", respond: {} }`)
	f(6, 19, `{ match: ["/x", '~\Qabc'], respond: {} }`)
	f(6, 3, `{ match: "/a/{id}", redirect: "https://{id}/x" }`)
	f(6, 3, `{ match: /a, redirect: "https://{scheme}/x" }`)
	f(6, 3, `{ match: /a, redirect: "/x/{query}" }`)
	f(6, 26, `{ match: /a, redirect: "//x/" }`)
	f(6, 32, `{ match: /a, to: u, rewrite: { to: /x } }`)
	f(6, 28, `{ match: { query: { x: "~(" } }, respond: {} }`)
	f(6, 22, `{ match: { client: "10.0.0.0/33" }, respond: {} }`)
}
