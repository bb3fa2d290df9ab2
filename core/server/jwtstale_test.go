package server

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// TestJWTKeysStale: keys whose place is away stay in force for the shortest time that any policy sets, and the admin API shows both.
func TestJWTKeysStale(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url).Replace(`
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: UPSTREAM }
routes:
  - { match: /short, use: [{ jwt: { audience: api, jwks: "JWKS", stale: 2s } }], to: a }
  - { match: /long, use: [{ jwt: { audience: api, jwks: "JWKS", stale: 1h } }], to: a }
`))
	right := bearerOf(i.token(nil))
	f := func(when string, status int, reason string) {
		t.Helper()
		for _, path := range []string{"/short", "/long"} {
			judge(t, g.addr, []identityCase{{name: when, path: path, headers: right, status: status, reason: reason}})
		}
	}
	until := func(what string, is func(admin.KeysStatus) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			all, err := g.admin.Keys()
			if err == nil && len(all) == 1 && is(all[0]) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v, %v", what, all, err)
			}
		}
	}
	f("before", 200, "")
	keys, away := *i.set.Load(), ""
	i.set.Store(&away)
	// Its keys are good for half a minute yet; a token that names another has it asked now.
	unknown := bearerOf(i.sign("RS256", `{"alg":"RS256","kid":"new"}`, claimsWith(nil)))
	judge(t, g.addr, []identityCase{{name: "another key", path: "/long", headers: unknown, status: 401, reason: "token_key_unknown", asks: "Bearer"}})
	until("its failure is not shown", func(k admin.KeysStatus) bool { return k.Problem == "status 500" && k.Keys == 4 })
	f("while it is away", 200, "")
	until("its keys stay", func(k admin.KeysStatus) bool { return k.Keys == 0 && len(k.IDs) == 0 && !k.Fetched.IsZero() })
	f("away for too long", 503, "token_keys_unavailable")
	i.set.Store(&keys)
	until("its keys do not come back", func(k admin.KeysStatus) bool { return k.Keys == 4 && k.Problem == "" })
	f("there again", 200, "")
}
