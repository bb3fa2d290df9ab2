package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

const movedConfig = `
loops: 2
listeners: { http: { bind: "127.0.0.1:0" } }
policies:
  mine: { rate_limit: { limit: 5/day, key: header:x, tiers: { gold: 9/day }, tier_from: "claim:plan" } }
  all: { rate_limit: { limits: [{ scope: global, limit: 100/h }, { limit: [50/h, 7/day] }], algorithm: sliding_window, key: header:x } }
routes:
  - { match: /mine, use: [{ jwt: { secret: "env:SLUICE_TEST_SECRET", audience: x, optional: true } }, mine], respond: {} }
  - { match: /all, use: [all], respond: {} }
admin: off
`

// inheritor starts a gateway that takes these parts over.
func inheritor(t *testing.T, text string, parts []handover.Part) *gate {
	t.Helper()
	return inheritorIn(t, movedEnv(), text, parts)
}

// inheritorIn is inheritor with the environment of its configuration.
func inheritorIn(t *testing.T, env config.Env, text string, parts []handover.Part) *gate {
	t.Helper()
	cfg, problems := config.Parse("sluice.yaml", []byte(text), env)
	if cfg == nil {
		t.Fatal(problems)
	}
	log := &journal{}
	s := &Server{options: Options{Version: "test", Stderr: log}, before: &predecessor{parts: parts}}
	t.Cleanup(s.close)
	err := s.start(cfg)
	s.before = nil // it never ran
	if err != nil {
		t.Fatal(err)
	}
	return &gate{t: t, Server: s, addr: s.listeners[0].binds[0].sockets.String()}
}

func movedEnv() config.Env {
	return config.Env{LookupEnv: func(string) (string, bool) { return "a secret of at least thirty-two bytes", true }}
}

// TestLimitsMove hands what is used of limits to another process: who is over his limit before is over it after, and damaged state is
// passed over.
func TestLimitsMove(t *testing.T) {
	old := inheritor(t, movedConfig, nil)
	f := func(g *gate, path, x string, requests int, want string) {
		t.Helper()
		got := ""
		client := newH1Client(t)
		for range requests {
			got += fmt.Sprint(" ", g.status(client, path, x))
		}
		if got != want {
			t.Errorf("%s of %s:%s, want%s", path, x, got, want)
		}
	}
	f(old, "/mine", "a", 6, " 200 200 200 200 200 429")
	f(old, "/mine", "b", 3, " 200 200 200")
	f(old, "/all", "a", 8, " 200 200 200 200 200 200 200 429")
	parts := partsOf(t, old)
	changed := func(replace func(body []byte) []byte) []handover.Part {
		out := append([]handover.Part(nil), parts...)
		for i := range out {
			if out[i].Name == limitsPart {
				out[i].Body = replace(out[i].Body)
			}
		}
		return out
	}
	g := inheritor(t, movedConfig, parts)
	f(g, "/mine", "a", 1, " 429")
	f(g, "/mine", "b", 3, " 200 200 429")
	f(g, "/mine", "c", 1, " 200")
	f(g, "/all", "a", 1, " 429")
	g = inheritor(t, strings.Replace(movedConfig, "limit: 5/day", "limit: 6/day", 1), parts)
	f(g, "/mine", "a", 2, " 200 429")
	for name, body := range map[string]func(b []byte) []byte{
		"cut":        func(b []byte) []byte { return b[:len(b)/2] },
		"no seed":    func([]byte) []byte { return []byte(`{"policies":{}}`) },
		"short seed": func([]byte) []byte { return []byte(`{"seed":"AAAA"}`) },
		"no state": func(b []byte) []byte {
			var k keptLimits
			if err := json.Unmarshal(b, &k); err != nil {
				t.Fatal(err)
			}
			k.Policies["mine"][0].State = bytes.Repeat([]byte{0xff}, 100)
			k.Policies["mine"][1].Level = "another"
			b, _ = json.Marshal(k)
			return b
		},
	} {
		g := inheritor(t, movedConfig, changed(body))
		f(g, "/mine", "a", 1, " 200")
		eventually(t, name+": the log tells of it", func() bool { return strings.Contains(g.options.Stderr.(*journal).String(), "is ignored") })
	}
}

// status is that of a request with the header X.
func (g *gate) status(client *http.Client, path, x string) int {
	g.t.Helper()
	req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("X", x)
	res, err := client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
