package server

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	sluiceconfig "github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

const stateConfig = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", respond: { body: "hello" } }]
`

// partsOf are what a gateway would hand over.
func partsOf(t *testing.T, g *gate) []handover.Part {
	t.Helper()
	parts := g.exportState(g.state.Load().compiled)
	for _, needed := range []string{"service", countersPart} { // others are left out where there is nothing to tell
		if !slices.ContainsFunc(parts, func(p handover.Part) bool { return p.Name == needed }) {
			t.Fatalf("there is no part %q", needed)
		}
	}
	return parts
}

// State of other versions and names is passed over, damaged state too, with a warning; what is whole is taken.
func TestStateIsRestored(t *testing.T) {
	old := newGate(t, stateConfig)
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old.life = life{Started: started, Upgrades: 4}
	old.state.Load().compiled.Snapshot.Generation = 7
	whole := partsOf(t, old)
	change := func(f func(p *handover.Part)) []handover.Part {
		parts := append([]handover.Part(nil), whole...)
		f(&parts[0])
		return parts
	}
	service := func(text string) []handover.Part {
		return change(func(p *handover.Part) { p.Body = []byte(text) })
	}
	for _, c := range []struct {
		name     string
		parts    []handover.Part
		upgrades int
		log      string
	}{
		{"whole", whole, 5, ""},
		{"a later version", change(func(p *handover.Part) { p.Version++ }), 0, "state of another version is ignored"},
		{"another part", change(func(p *handover.Part) { p.Name = "later" }), 0, ""},
		{"damaged", service("{"), 0, "state is ignored"},
		{"impossible", service(`{"generation":-1,"started":"2026-01-02T03:04:05Z"}`), 0, "cannot be"},
		{"of the future", service(`{"generation":1,"started":"2926-01-02T03:04:05Z"}`), 0, "cannot be"},
		{"none", nil, 0, ""},
	} {
		g := newGate(t, stateConfig)
		compiled := &compile.Compiled{Snapshot: g.state.Load().compiled.Snapshot}
		g.restoreState(compiled, c.parts)
		if g.life.Upgrades != c.upgrades {
			t.Errorf("%s: %d upgrades, want %d", c.name, g.life.Upgrades, c.upgrades)
		}
		if c.upgrades > 0 && (compiled.Snapshot.Generation != 8 || !g.life.Started.Equal(started)) {
			t.Errorf("%s: generation %d, started %v", c.name, compiled.Snapshot.Generation, g.life.Started)
		}
		eventually(t, c.name+": the log says "+c.log, func() bool { return strings.Contains(g.Server.options.Stderr.(*journal).String(), c.log) })
	}
	var counted []json.RawMessage
	counters := slices.IndexFunc(whole, func(p handover.Part) bool { return p.Name == countersPart })
	if err := json.Unmarshal(whole[counters].Body, &counted); err != nil || len(counted) == 0 {
		t.Errorf("%d counts, %v", len(counted), err)
	}
}

// The state of a canary, and weights that were changed, go on in the process that takes over. What is not such a state is refused, and
// then all begins as the configuration says.
func TestShapesAreRestored(t *testing.T) {
	const config = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: "127.0.0.1:1", b: "127.0.0.1:2", c: "127.0.0.1:3" }
routes:
  - { name: r, match: "/*", to: { a: 9, b: 1 }, canary: { to: c, steps: [5, 25, 100], hold: 1h } }
`
	old := newGate(t, config)
	for _, what := range []string{"forward", "pause"} {
		if err := old.changeCanary(admin.ChangeCanary{Route: "r", Change: what}); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.setWeights(admin.SetWeights{Route: "r", Weights: map[string]int{"b": 7}}); err != nil {
		t.Fatal(err)
	}
	whole := partsOf(t, old)
	f := func(name, config string, change func(p *handover.Part), state string, percent, weight int, log string) {
		t.Helper()
		parts := append([]handover.Part(nil), whole...)
		for i := range parts {
			change(&parts[i])
		}
		cfg, problems := sluiceconfig.Parse("sluice.yaml", []byte(config+"admin: off\n"), sluiceconfig.Env{})
		if cfg == nil {
			t.Fatal(problems)
		}
		g := newGate(t, config)
		fresh := &Server{log: g.log, loops: g.loops, workers: g.workers, registry: compile.NewRegistry(g.workers, g.observer.Registry(), g.log), observer: g.observer, life: g.life}
		defer fresh.registry.Close()
		c, err := fresh.registry.Compile(cfg)
		if err != nil {
			t.Fatal(err)
		}
		fresh.restoreState(c, parts)
		fresh.registry.Apply(c)
		k := c.Canaries()[0]
		weights, _ := c.RouteWeights("r")
		if k.State.String() != state || k.Percent != percent || weights[1] != weight {
			t.Errorf("%s: %s at %d%%, weight %d; want %s at %d%%, %d", name, k.State, k.Percent, weights[1], state, percent, weight)
		}
		eventually(t, name+": the log says "+log, func() bool { return strings.Contains(g.Server.options.Stderr.(*journal).String(), log) })
	}
	same := func(*handover.Part) {}
	replace := func(from, to string) func(p *handover.Part) {
		return func(p *handover.Part) { p.Body = []byte(strings.ReplaceAll(string(p.Body), from, to)) }
	}
	f("whole", config, same, "paused", 25, 7, "")
	f("other steps", strings.Replace(config, "[5, 25", "[6, 25", 1), same, "progressing", 6, 7, "cannot import canary")
	f("another canary", strings.NewReplacer("to: c,", "to: b,", "b: 1", "c: 1").Replace(config), same, "progressing", 5, 1, "")
	f("another split", strings.Replace(config, "a: 9", "a: 8", 1), same, "paused", 25, 1, "")
	f("a step that is none", config, replace(`"step":1`, `"step":9`), "progressing", 5, 7, "cannot import canary: there is no step 9")
	f("a weight that is none", config, replace(`[9,7]`, `[9,7000]`), "paused", 25, 1, "are not from 0 to 1000")
	f("no weight", config, replace(`[9,7]`, `[0,0]`), "paused", 25, 1, "no upstream has a weight above 0")
	f("damaged", config, replace(`{"r"`, `{"r`), "progressing", 5, 1, "state is ignored")
	f("none", config, func(p *handover.Part) { p.Name += "x" }, "progressing", 5, 1, "")
}

// A gateway that cannot be replaced says so, and serves on.
func TestUpgradeRefused(t *testing.T) {
	g := run(t, stateConfig)
	if err := g.admin.Upgrade("", false, true); err == nil || !strings.Contains(err.Error(), "cannot be replaced") {
		t.Error(err)
	}
	if g.status().State != "serving" {
		t.Errorf("%+v", g.status())
	}
}
