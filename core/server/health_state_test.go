package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// TestHealthState shows that what checks know is handed over, and what cannot be is refused.
func TestHealthState(t *testing.T) {
	all := newMortals(t, 2)
	all[0].status.Store(http.StatusServiceUnavailable)
	text := checkedConfig("start_interval: 10ms, initial: unhealthy", all)
	old := newGate(t, text)
	eventually(t, "it is ready", func() bool { return old.ready() == nil })
	var part handover.Part
	for _, p := range old.exportState(old.state.Load().compiled) {
		if p.Name == "health-checks" {
			part = p
		}
	}
	// next is a gateway that has taken over the body of that part, and asks nobody for an hour.
	next := func(body string) (*gate, error) {
		t.Helper()
		g := newGate(t, checkedConfig(quick, nowhere(all)))
		text := strings.NewReplacer("{ u: {", "{ v: {", "to: u", "to: v").Replace(checkedConfig("interval: 1h, start_interval: 1h, initial: unhealthy", all))
		cfg, problems := config.Parse("sluice.yaml", []byte(text+"\nadmin: off\n"), config.Env{})
		if cfg == nil {
			t.Fatal(problems)
		}
		c, err := g.registry.Compile(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = g.restoreChecks(c, []byte(body))
		g.registry.Apply(c)
		g.state.Store(&state{compiled: c, listeners: g.listeners})
		return g, err
	}
	body := strings.Replace(string(part.Body), `{"u":`, `{"v":`, 1)
	g, err := next(body)
	if err != nil {
		t.Fatal(err)
	}
	if s := g.upstreamStatus()[0].Endpoints; s[0].Health.State != "unhealthy" || s[1].Health.State != "healthy" || g.ready() != nil {
		t.Errorf("%s gives %+v, %+v, %v", body, s[0].Health, s[1].Health, g.ready())
	}
	for _, bad := range []string{"", "[]", `{"v":3}`, `{"v":[{"address":"a","age":-1}]}`, `{"v":[{"address":"a","age":1e300}]}`, `{"v":[{"healthy":"yes"}]}`} {
		g, err := next(bad)
		if err == nil {
			t.Errorf("%s is taken", bad)
		}
		if s := g.upstreamStatus()[0].Endpoints; s[0].Health.State != "unchecked" {
			t.Errorf("%s gives %+v", bad, s[0].Health)
		}
	}
	if _, err := next(`{"other":[{"address":"a"}],"v":[{"address":"192.0.2.1:1","healthy":true}]}`); err != nil {
		t.Error(err)
	}
	if !json.Valid(part.Body) || part.Version != 1 {
		t.Errorf("version %d, %s", part.Version, part.Body)
	}
}

// nowhere are as many endpoints at which nobody is.
func nowhere(all []*mortal) (none []*mortal) {
	for i := range all {
		none = append(none, &mortal{addr: fmt.Sprintf("127.0.0.1:%d", i+1)})
	}
	return none
}
