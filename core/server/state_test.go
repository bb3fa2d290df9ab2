package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/compile"
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
	if len(parts) != len(stateParts()) {
		t.Fatalf("%d parts of %d", len(parts), len(stateParts()))
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
	if err := json.Unmarshal(whole[len(whole)-1].Body, &counted); err != nil || len(counted) == 0 {
		t.Errorf("%d counts, %v", len(counted), err)
	}
}

// A gateway that cannot be replaced says so, and serves on.
func TestUpgradeRefused(t *testing.T) {
	g := run(t, stateConfig)
	if err := g.admin.Upgrade("", true); err == nil || !strings.Contains(err.Error(), "cannot be replaced") {
		t.Error(err)
	}
	if g.status().State != "serving" {
		t.Errorf("%+v", g.status())
	}
}
