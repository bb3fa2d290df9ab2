package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// provedConfig balances and splits by what clients have proved.
const provedConfig = `
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  claims: { endpoints: [ALL], balance: { maglev: { key: "claim:org" } } }
  names: { endpoints: [ALL], balance: { ring_hash: { key: [consumer, client_ip] } } }
  tenants: { endpoints: [ALL], balance: { maglev: { key: tenant } } }
  one: "ONE"
  two: "TWO"
policies:
  users: { jwt: { issuer: "https://id.test", audience: api, jwks: "JWKS", tenant: org } }
routes:
  - { match: /claim, use: users, to: claims }
  - { match: /name, use: users, to: names }
  - { match: /tenant, use: users, to: tenants }
  - { match: /split, use: users, to: { one: 1, two: 1 }, split_by: ["claim:org"] }
`

// TestBalanceByProof shows that requests of one consumer, of one tenant or with one claim in their tokens go to one endpoint, or to one side of
// a split, whatever the connection and whatever else the tokens say.
func TestBalanceByProof(t *testing.T) {
	i := newTokenIssuer(t)
	all := newNamed(t, 5)
	var list []string
	for _, u := range all {
		list = append(list, fmt.Sprintf("%q", u.addr))
	}
	g := run(t, strings.NewReplacer("ALL", strings.Join(list, ", "), "ONE", all[0].addr, "TWO", all[1].addr, "JWKS", i.url).Replace(provedConfig))
	eventually(t, "the keys are there", func() bool { return i.fetches.Load() > 0 })
	f := func(path string, least int, claims func(group, member int) map[string]any) {
		t.Helper()
		used := map[string]bool{}
		for group := range 12 {
			home := ""
			for member := range 4 {
				got, err := askNamed(newHTTPClient(t), g.addr, path, "Authorization", "Bearer "+i.token(claims(group, member)))
				if err != nil {
					t.Fatal(err)
				}
				if home != "" && got != home {
					t.Errorf("%s: member %d of group %d is at %s, another at %s", path, member, group, got, home)
				}
				home, used[got] = got, true
			}
		}
		if len(used) < least {
			t.Errorf("%s: only %d endpoints are used", path, len(used))
		}
	}
	byOrg := func(group, member int) map[string]any {
		return map[string]any{"sub": fmt.Sprintf("user-%d-%d", group, member), "org": fmt.Sprint("org-", group)}
	}
	f("/claim", 3, byOrg)
	f("/tenant", 3, byOrg)
	f("/split", 2, byOrg)
	f("/name", 3, func(group, member int) map[string]any {
		return map[string]any{"sub": fmt.Sprint("user-", group), "org": fmt.Sprint("org-", member)}
	})
}

// TestBalanceByArgument shows that an argument is one key, however its name and its value are written.
func TestBalanceByArgument(t *testing.T) {
	all := newNamed(t, 5)
	g := run(t, balanced(`{ maglev: { key: "query:a b" } }`, all))
	c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer c.CloseIdleConnections()
	used := map[string]bool{}
	for user := range 12 {
		home := ""
		for _, format := range []string{"a%%20b=%%7e%d", "x=y&a+b=~%d", "%%61%%20%%62=%%7E%d", "a+b=~%d&a+b=other"} {
			got, err := askNamed(c, g.addr, "/x?"+fmt.Sprintf(format, user))
			if err != nil {
				t.Fatal(err)
			}
			if home != "" && got != home {
				t.Errorf("%s of user %d is at %s, and written otherwise at %s", format, user, got, home)
			}
			home, used[got] = got, true
		}
	}
	if len(used) < 3 {
		t.Errorf("only %d endpoints are used", len(used))
	}
}
