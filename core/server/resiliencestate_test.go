package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// resilient is what a gateway knows of an endpoint and of the two breakers.
type resilient struct {
	ejected         bool
	ejection        admin.EjectionStatus
	upstream, route string  // states of breakers
	left            float64 // of the upstream's cooldown, in seconds
}

// TestResilienceMoves: an endpoint that is ejected, and breakers that are open, stay so in the process that takes over, for the time that is
// left. State of another version, or damaged, is not taken: then all begins as new.
func TestResilienceMoves(t *testing.T) {
	all := newNamed(t, 4)
	config := fmt.Sprintf(`
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u: { endpoints: [%q, %q, %q], balance: round_robin, outlier: { base_ejection_time: 10m, max_ejection_time: 1h } }
  v: { endpoints: [%q], breaker: { errors: off, consecutive: 3, cooldown: 10m } }
routes:
  - { name: v, match: /v, to: v }
  - { name: r, match: /r, to: v, breaker: { errors: off, consecutive: 2, cooldown: 20m } }
  - { match: "/*", to: u }
admin: off
`, all[0].addr, all[1].addr, all[2].addr, all[3].addr)
	ask := func(g *gate, path string, n int) (failed, refused int) {
		t.Helper()
		c := newHTTPClient(t)
		for range n {
			if status, _, body := statusOf(t, c, g.addr, path, ""); status >= 500 {
				failed++
				if body == `{"error":"breaker_open","status":503}`+"\n" {
					refused++
				}
			}
		}
		return failed, refused
	}
	look := func(g *gate) (r resilient) {
		t.Helper()
		for _, u := range g.upstreamStatus() {
			for _, e := range u.Endpoints {
				if e.Address == all[0].addr && e.Ejection != nil {
					r.ejected, r.ejection = slices.Contains(e.Flags, "ejected"), *e.Ejection
				}
			}
			if u.Name == "v" {
				r.upstream, r.left = u.Breaker.State, u.Breaker.Left
			}
		}
		for _, one := range g.routeStatus() {
			if one.Name == "r" {
				r.route = one.Breaker.State
			}
		}
		return r
	}
	old := inheritor(t, config, nil)
	all[0].status.Store(500)
	all[3].status.Store(500)
	ask(old, "/u", 15)
	ask(old, "/r", 2) // the route's opens, with two failures of three for the upstream's
	ask(old, "/v", 1)
	eventually(t, "the endpoint is ejected, the breakers are open", func() bool {
		r := look(old)
		return r.ejected && r.upstream == "open" && r.route == "open"
	})
	before := look(old)
	for _, u := range all {
		u.status.Store(200)
	}
	parts := partsOf(t, old)
	f := func(name string, parts []handover.Part, ejected bool, upstream, route, log string) *gate {
		t.Helper()
		g := inheritor(t, config, parts)
		now := look(g)
		if now.ejected != ejected || now.upstream != upstream || now.route != route {
			t.Errorf("%s: %+v, want %v %s %s", name, now, ejected, upstream, route)
		}
		for _, u := range all {
			u.seen.Store(0)
		}
		failed, refused := ask(g, "/u", 9)
		if failed != 0 || refused != 0 || (all[0].seen.Load() == 0) != ejected {
			t.Errorf("%s: %d failed, %d refused, the endpoint has %d requests", name, failed, refused, all[0].seen.Load())
		}
		for path, state := range map[string]string{"/v": upstream, "/r": max(upstream, route)} { // that of the upstream counts for both
			want := map[string]int{"open": 3}[state]
			if failed, refused := ask(g, path, 3); failed != want || refused != want {
				t.Errorf("%s: %s: %d failed, %d refused, want %d", name, path, failed, refused, want)
			}
		}
		g.logs(log)
		return g
	}
	version := func(p *handover.Part) { p.Version++ }
	cut := func(p *handover.Part) { p.Body = p.Body[:len(p.Body)-2] }
	ejections := func(change func(p *handover.Part)) []handover.Part { return changedPart(t, parts, "ejections", change) }
	breakers := func(change func(p *handover.Part)) []handover.Part { return changedPart(t, parts, "breakers", change) }
	f("none", nil, false, "closed", "closed", "")
	f("ejections of another version", ejections(version), false, "open", "open", "state of another version is ignored")
	f("ejections cut", ejections(cut), false, "open", "open", "state is ignored")
	f("ejections that cannot be", ejections(func(p *handover.Part) {
		var all compile.Ejections
		if err := json.Unmarshal(p.Body, &all); err != nil {
			t.Fatal(err)
		}
		for address, one := range all["u"] {
			one.Age = -1
			all["u"][address] = one
		}
		p.Body, _ = json.Marshal(all)
	}), false, "open", "open", "state is ignored")
	f("breakers of another version", breakers(version), true, "closed", "closed", "state of another version is ignored")
	f("breakers cut", breakers(cut), true, "closed", "closed", "state is ignored")
	f("a breaker that cannot be", breakers(func(p *handover.Part) {
		var all compile.Breakers
		if err := json.Unmarshal(p.Body, &all); err != nil {
			t.Fatal(err)
		}
		one := all.Upstreams["v"]
		one.Left = -time.Second
		all.Upstreams["v"] = one
		p.Body, _ = json.Marshal(all)
	}), true, "closed", "open", "state is ignored") // the other one can be
	now := look(f("whole", parts, true, "open", "open", ""))
	if now.ejection.Cause != before.ejection.Cause || now.ejection.Since < before.ejection.Since || now.ejection.Left > before.ejection.Left ||
		now.ejection.Left < before.ejection.Left-60 || now.left > before.left || now.left < before.left-60 {
		t.Errorf("goes on as %+v, was %+v", now, before)
	}
}

// TestRevocationsMove: a token that was revoked, and those of a subject that was, are refused by the process that takes over; what is no
// revocation is not taken.
func TestRevocationsMove(t *testing.T) {
	i := newTokenIssuer(t)
	config := `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", use: [{ jwt: { audience: api, jwks: "` + i.url + `" } }], respond: {} }]
admin: off
`
	past := time.Now().Unix() - 5
	one := i.token(map[string]any{"jti": "token-a", "iat": past})
	other := i.token(map[string]any{"jti": "token-b", "iat": past})
	subject := i.token(map[string]any{"sub": "user-2", "iat": past})
	client := newH1Client(t)
	f := func(g *gate, name string, want ...int) {
		t.Helper()
		var got []int
		for _, token := range []string{one, subject, other} {
			got = append(got, g.statusOf(client, "/", token))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	old := inheritor(t, config, nil)
	eventually(t, "the keys are there", func() bool { return old.statusOf(client, "/", one) == 200 })
	for _, c := range []admin.ChangeTokens{
		{Change: "revoke", Kind: "jti", Values: []string{"token-a", "token-c"}, For: time.Hour},
		{Change: "revoke", Kind: "sub", Values: []string{"user-2"}, For: time.Hour},
		{Change: "restore", Kind: "jti", Values: []string{"token-c"}},
	} {
		if err := old.changeTokens(c); err != nil {
			t.Fatal(err)
		}
	}
	f(old, "before", 401, 401, 200)
	parts := partsOf(t, old)
	g := inheritor(t, config, parts)
	f(g, "after", 401, 401, 200)
	if now, was := g.revocations(), old.revocations(); len(now) != 2 || !slices.EqualFunc(now, was, func(a, b admin.RevocationStatus) bool {
		return a.Kind == b.Kind && a.Value == b.Value && a.Until.Equal(b.Until)
	}) {
		t.Errorf("%+v, were %+v", now, was)
	}
	f(inheritor(t, config, partsOf(t, g)), "after another upgrade", 401, 401, 200)
	for name, change := range map[string]func(p *handover.Part){
		"state of another version is ignored": func(p *handover.Part) { p.Version++ },
		"unexpected end of JSON input":        func(p *handover.Part) { p.Body = p.Body[:len(p.Body)-1] },
		"tokens are revoked by jti or sub": func(p *handover.Part) {
			p.Body = append(p.Body[:len(p.Body)-1:len(p.Body)-1], `,{"kind":"iss","value":"x"}]`...)
		},
	} {
		g := inheritor(t, config, changedPart(t, parts, "revocations", change))
		f(g, name, 200, 200, 200)
		g.logs(name)
	}
}
