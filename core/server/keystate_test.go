package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	sluiceconfig "github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server/handover"
)

// changedPart is parts with one of them changed.
func changedPart(t *testing.T, parts []handover.Part, name string, change func(p *handover.Part)) []handover.Part {
	t.Helper()
	out := append([]handover.Part(nil), parts...)
	for i := range out {
		if out[i].Name == name {
			change(&out[i])
			return out
		}
	}
	t.Fatalf("there is no part %q", name)
	return nil
}

// logs waits until the log tells of something.
func (g *gate) logs(what string) {
	g.t.Helper()
	eventually(g.t, "the log says "+what, func() bool { return strings.Contains(g.options.Stderr.(*journal).String(), what) })
}

// statusOf is that of a request with a token.
func (g *gate) statusOf(client *http.Client, path, token string) int {
	g.t.Helper()
	req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// awayable publishes the keys of i, and where they are found, until it is away: then it breaks off every connection.
func (i *tokenIssuer) awayable() (name string, away *atomic.Bool) {
	away = &atomic.Bool{}
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case away.Load():
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/keys":
			_, _ = w.Write([]byte(*i.set.Load()))
		default:
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/keys")
		}
	}))
	i.t.Cleanup(s.Close)
	return s.URL, away
}

// TestKeysMove: tokens are accepted by the process that takes over while who issues them is away, by the keys that the one before had, for as
// long as their policy allows. Once the issuer is back its new keys count.
func TestKeysMove(t *testing.T) {
	i := newTokenIssuer(t)
	name, away := i.awayable()
	config := strings.ReplaceAll(`
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
routes:
  - { match: /given, use: [{ jwt: { issuer: ISSUER, jwks: "ISSUER/keys?a" } }], respond: {} }
  - { match: /found, use: [{ jwt: { issuer: ISSUER, jwks: discover } }], respond: {} }
  - { match: /stale, use: [{ jwt: { issuer: ISSUER, jwks: "ISSUER/keys?b", stale: 1h } }], respond: {} }
admin: off
`, "ISSUER", name)
	token := i.token(map[string]any{"iss": name})
	client := newH1Client(t)
	all := func(g *gate, token string) string {
		t.Helper()
		return fmt.Sprint(g.statusOf(client, "/given", token), g.statusOf(client, "/found", token), g.statusOf(client, "/stale", token))
	}
	old := inheritor(t, config, nil)
	eventually(t, "the keys are there", func() bool { return all(old, token) == "200 200 200" })
	fetched := old.keysStatus()[0].Fetched
	parts, parted := partsOf(t, old), time.Now()
	away.Store(true)
	f := func(name string, change func(p *handover.Part), want, log string) *gate {
		t.Helper()
		g := inheritor(t, config, changedPart(t, parts, "jwks", change))
		if got := all(g, token); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		g.logs(log)
		return g
	}
	body := func(text string) func(p *handover.Part) {
		return func(p *handover.Part) { p.Body = []byte(text) }
	}
	kept := func(change func(k *compile.KeptKeys)) func(p *handover.Part) {
		return func(p *handover.Part) {
			var k compile.KeptSources
			if err := json.Unmarshal(p.Body, &k); err != nil || len(k.Places) != 3 {
				t.Fatalf("%+v, %v", k, err)
			}
			for place, one := range k.Places {
				change(&one)
				k.Places[place] = one
			}
			p.Body, _ = json.Marshal(k)
		}
	}
	f("another version", func(p *handover.Part) { p.Version++ }, "503 503 503", "state of another version is ignored")
	f("cut", func(p *handover.Part) { p.Body = p.Body[:len(p.Body)/2] }, "503 503 503", "state is ignored")
	f("nothing", body("{}"), "503 503 503", "")
	g := f("old", kept(func(k *compile.KeptKeys) { k.Age += 2 * time.Hour }), "200 200 503", "may be used for 1h0m0s")
	if k := g.keysStatus()[0]; k.Fetched.Sub(fetched.Add(-2*time.Hour)).Abs() > time.Minute {
		t.Errorf("%+v, fetched before at %v", k, fetched)
	}
	f("of the future", kept(func(k *compile.KeptKeys) { k.Age = -1 }), "503 503 503", "cannot be")
	f("too large", kept(func(k *compile.KeptKeys) { k.Text = append(k.Text, make([]byte, 1<<20)...) }), "503 503 503", "want at most 1048576")
	f("no keys", kept(func(k *compile.KeptKeys) { k.Text = []byte(`{"keys":[{"kty":"RSA","kid":"r","n":"x"}]}`) }), "503 503 503", "cannot take over the keys")
	g = f("whole", func(*handover.Part) {}, "200 200 200", "keys cannot be fetched: those known stay in force")
	// Their age does not grow on the way to the next process, which may be long on a busy machine.
	if k := g.keysStatus()[0]; k.Keys < 4 || len(k.IDs) == 0 || k.Fetched.Before(fetched.Add(-time.Second)) || k.Fetched.After(fetched.Add(time.Second+time.Since(parted))) {
		t.Errorf("%+v, fetched before at %v", k, fetched)
	}
	// What was taken over is handed on in turn.
	g = inheritor(t, config, partsOf(t, g))
	if got := all(g, token); got != "200 200 200" {
		t.Errorf("the process after the next: %s", got)
	}
	i.publish("r2", "e2", "d2")
	away.Store(false)
	eventually(t, "the old key is gone", func() bool { return all(g, token) == "401 401 401" })
	if got := all(g, i.sign("RS256", `{"alg":"RS256","kid":"r2"}`, claimsWith(map[string]any{"iss": name}))); got != "200 200 200" {
		t.Errorf("with its new key: %s", got)
	}
}

// TestProviderMoves: people can log in by a process that has taken over before the provider has described itself to it.
func TestProviderMoves(t *testing.T) {
	p := newLoginProvider(t)
	env := sluiceconfig.Env{LookupEnv: func(string) (string, bool) { return "s3cret", true }}
	config := `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
policies:
  people: { oidc: { issuer: "` + p.server.URL + `", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, cookie: { name: session, secure: false } } }
routes: [{ match: "/*", use: people, respond: { body: inside } }]
admin: off
`
	old := inheritorIn(t, env, config, nil)
	eventually(t, "the provider is known", func() bool { return old.loginsStatus()[0].Known })
	parts := partsOf(t, old)
	keys := *p.tokenIssuer.set.Load()
	p.set(func() { p.down = true })
	p.tokenIssuer.set.Store(new(string))
	known := func(change func(k *compile.KeptProvider)) (*gate, admin.LoginsStatus) {
		t.Helper()
		g := inheritorIn(t, env, config, changedPart(t, parts, "jwks", func(part *handover.Part) {
			var k compile.KeptSources
			if err := json.Unmarshal(part.Body, &k); err != nil {
				t.Fatal(err)
			}
			one, ok := k.Providers[p.server.URL]
			if !ok {
				t.Fatalf("no provider in %s", part.Body)
			}
			change(&one)
			k.Providers[p.server.URL] = one
			part.Body, _ = json.Marshal(k)
		}))
		return g, g.loginsStatus()[0]
	}
	for name, change := range map[string]func(k *compile.KeptProvider){
		"no description": func(k *compile.KeptProvider) { k.Description = []byte("[") },
		"of another": func(k *compile.KeptProvider) {
			k.Description = []byte(strings.ReplaceAll(string(k.Description), `"issuer":"`, `"issuer":"x`))
		},
		"no keys": func(k *compile.KeptProvider) { k.Keys.Text = nil },
	} {
		g, st := known(change)
		if st.Known {
			t.Errorf("%s: taken", name)
		}
		g.logs("cannot take over the provider")
	}
	fetches := p.fetches.Load()
	g, st := known(func(*compile.KeptProvider) {})
	if !st.Known {
		t.Error("the provider is not known")
	}
	eventually(t, "its keys are asked for", func() bool { return p.fetches.Load() > fetches })
	p.set(func() { p.down = false }) // but for its keys, and it is asked for its description a second later at the earliest
	newBrowser(t, g.addr).want("a login", "/", 200, "inside")
	p.tokenIssuer.set.Store(&keys)
}
