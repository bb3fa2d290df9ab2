package compile

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// TestPlacesOfPolicies: what a route and a policy of the same name keep are two things, wherever in them it stands.
func TestPlacesOfPolicies(t *testing.T) {
	t.Setenv("SLUICE_TEST_KEY", "s3cret")
	b := newBench(t)
	login := `{ oidc: { issuer: "https://127.0.0.1:1", client: { id: gateway, secret: env:SLUICE_TEST_KEY } } }`
	c := b.apply(fmt.Sprintf("policies: { people: { any: [%s, { keyauth: {} }] } }\nroutes: [{ name: people, match: /a, use: [%s], respond: {} }, { match: /b, use: people, respond: {} }]\n", login, login))
	if len(c.Logins) != 2 || c.Logins[0].Name == c.Logins[1].Name || len(c.sessions) != 2 {
		t.Errorf("%d policies have people log in, with %d tables of sessions: %q and %q", len(c.Logins), len(c.sessions), c.Logins[0].Name, c.Logins[1].Name)
	}
	now := time.Now().UnixNano()
	for i := range c.Logins {
		s := c.Logins[i].sessions
		s.put(oidc.NewSession(sha256.Sum256(nil), "ann", "", &oidc.State{}, now, now+int64(time.Hour)), now)
		if _, n, _ := s.list(1); n != 1 {
			t.Errorf("%s: %d sessions", c.Logins[i].Name, n)
		}
	}
}
