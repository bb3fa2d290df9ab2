package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	sluiceconfig "github.com/sluice-gateway/sluice/core/config"
)

const overriddenConfig = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u: { endpoints: ["127.0.0.1:1", { address: "127.0.0.1:2", labels: { version: v2 } }, "127.0.0.1:3", "127.0.0.1:4"] }
  v: "127.0.0.1:5"
routes: [{ match: "/v", to: v }, { match: "/*", to: u }]
`

// overridesOf takes a part over into a process with that configuration, and gives what is in force there and what it has logged.
func overridesOf(t *testing.T, config, name, body string) (endpoints, log string) {
	t.Helper()
	cfg, problems := sluiceconfig.Parse("sluice.yaml", []byte(config+"admin: off\n"), sluiceconfig.Env{})
	if cfg == nil {
		t.Fatal(problems)
	}
	g := newGate(t, config)
	s := &Server{log: g.log, registry: compile.NewRegistry(g.workers, g.observer.Registry(), g.log), observer: g.observer, loops: g.loops}
	defer s.registry.Close()
	c, err := s.registry.Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range stateParts() {
		if p.name == name {
			if err := p.restore(s, c, []byte(body)); err != nil {
				log = err.Error()
			}
		}
	}
	s.registry.Apply(c)
	onEach(g.loops, func(int) {}) // they know
	for _, u := range c.Upstreams {
		for _, e := range u.Endpoints() {
			one := s.endpointStatus(u, e, 0)
			endpoints += fmt.Sprintf(" %s*%d%s", strings.TrimPrefix(e.Address, "127.0.0.1:"), one.Weight, strings.Join(one.Flags, ","))
		}
		if _, removed := c.Roster(u.Name); len(removed) > 0 {
			endpoints += " less " + strings.Join(removed, " ")
		}
	}
	return strings.TrimSpace(endpoints), log
}

// What was changed of endpoints at run time goes on in the process that takes over, as over a reload: as long as the configuration says the
// same of the endpoint. What no process can have given is refused, and nothing of it is taken.
func TestOverridesAreRestored(t *testing.T) {
	old := newGate(t, overriddenConfig)
	weight := 7
	for _, set := range []admin.SetEndpoints{
		{Upstream: "u", Change: "weight", Weight: &weight, Endpoints: []string{"127.0.0.1:1"}},
		{Upstream: "u", Change: "drain", Endpoints: []string{"127.0.0.1:2"}},
		{Upstream: "u", Change: "remove", Endpoints: []string{"127.0.0.1:3"}},
		{Upstream: "u", Change: "disable", Endpoints: []string{"127.0.0.1:4"}},
		{Upstream: "u", Change: "add", Endpoints: []string{"127.0.0.1:8", "127.0.0.1:9"}},
		{Upstream: "u", Change: "drain", Endpoints: []string{"127.0.0.1:9"}},
	} {
		if err := old.setEndpoints(set); err != nil {
			t.Fatal(err)
		}
	}
	whole := ""
	for _, p := range partsOf(t, old) {
		if p.Name == "overrides" {
			whole = string(p.Body)
		}
	}
	f := func(name, config, body, want, log string) {
		t.Helper()
		got, said := overridesOf(t, config, "overrides", body)
		if got != want || !strings.Contains(said, log) || (log == "") != (said == "") {
			t.Errorf("%s: got %q and %q, want %q and %q", name, got, said, want, log)
		}
	}
	const plain = "1*1 2*1 3*1 4*1 5*1"
	other := func(from, to string) string { return strings.Replace(overriddenConfig, from, to, 1) }
	f("whole", overriddenConfig, whole, "1*7 2*1draining 4*1disabled 8*1 9*1draining less 127.0.0.1:3 5*1", "")
	f("another weight", other(`"127.0.0.1:1"`, `{ address: "127.0.0.1:1", weight: 2 }`), whole, "1*2 2*1draining 4*1disabled 8*1 9*1draining less 127.0.0.1:3 5*1", "")
	f("another label", other("v2", "v3"), whole, "1*7 2*1 4*1disabled 8*1 9*1draining less 127.0.0.1:3 5*1", "")
	f("what was removed is another", other(`"127.0.0.1:3"`, `{ address: "127.0.0.1:3", zone: z }`), whole, "1*7 2*1draining 3*1 4*1disabled 8*1 9*1draining 5*1", "")
	f("what was added is configured, what was removed is gone", other(`"127.0.0.1:3"`, `"127.0.0.1:8"`), whole, "1*7 2*1draining 8*1 4*1disabled 9*1draining 5*1", "")
	f("another upstream", strings.NewReplacer("u: {", "w: {", "to: u", "to: w").Replace(overriddenConfig), whole, plain, "")
	f("nothing", overriddenConfig, "{}", plain, "")
	f("null", overriddenConfig, "null", plain, "")

	bad := func(from, to, log string) {
		t.Helper()
		body := strings.Replace(whole, from, to, 1)
		if body == whole {
			t.Fatalf("there is no %s in %s", from, whole)
		}
		f("hostile "+to, overriddenConfig, body, plain, log)
	}
	bad(`"set":7`, `"set":1001`, "weight 1001 is not from 0 to 1000")
	bad(`"set":7`, `"set":-1`, "weight -1 is not")
	bad(`"set":7`, `"set":"7"`, "cannot unmarshal")
	bad(`"state":"drain"`, `"state":"melt"`, "unknown state")
	bad(`["127.0.0.1:8"`, `["127.0.0.1:9"`, "cannot have been added")
	bad(`["127.0.0.1:8"`, `["example.com:8"`, "cannot have been added")
	bad(`["127.0.0.1:8"`, `["unix:/`+strings.Repeat("x", 200)+`"`, "cannot have been added")
	bad(`"address":"127.0.0.1:3"`, `"address":""`, "cannot have been removed")
	bad(`"address":"127.0.0.1:2"`, `"address":"127.0.0.1:1"`, "cannot be an endpoint")
	bad(`"address":"127.0.0.1:1"`, `"address":"`+strings.Repeat("x", 600)+`"`, "cannot be an endpoint")
	bad(`}`, ``, "invalid character")
	many, err := json.Marshal(map[string]compile.ExportedOverrides{"u": {Added: slices.Repeat([]string{"127.0.0.1:8"}, 1001)}})
	if err != nil {
		t.Fatal(err)
	}
	f("too many", overriddenConfig, string(many), plain, "too many")
}

// Overrides hold over reloads in the process that has taken them over, and are given on to the next; what is taken back there does not
// come again.
func TestOverridesLast(t *testing.T) {
	body := `{"u":{"endpoints":[{"address":"127.0.0.1:1","weight":1,"state":"disable"}]}}`
	cfg, problems := sluiceconfig.Parse("sluice.yaml", []byte(overriddenConfig+"admin: off\n"), sluiceconfig.Env{})
	if cfg == nil {
		t.Fatal(problems)
	}
	g := newGate(t, overriddenConfig)
	s := &Server{log: g.log, registry: compile.NewRegistry(g.workers, g.observer.Registry(), g.log), observer: g.observer, loops: g.loops}
	defer s.registry.Close()
	for i := range 3 {
		c, err := s.registry.Compile(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := s.restoreOverrides(c, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		s.registry.Apply(c)
		want := body
		if i == 2 {
			want = "{}"
		}
		given, err := json.Marshal(c.Overrides())
		if err != nil || string(given) != want {
			t.Errorf("configuration %d: %s, %v", i, given, err)
		}
		if i == 1 {
			if err := c.Override("u", []string{"127.0.0.1:1"}, "enable", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}
