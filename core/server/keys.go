package server

import (
	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
)

// keysStatus describes the places that keys of tokens come from.
func (s *Server) keysStatus() (out []admin.KeysStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for _, source := range now.compiled.KeySources() {
		k := source.Status()
		out = append(out, admin.KeysStatus{Place: k.Place, Keys: k.Keys, IDs: k.IDs, Fetched: k.Fetched, Next: k.Next, Problem: k.Problem})
	}
	return out
}

func collectKeys(c *compile.Compiled, sink *observe.Sink) {
	for _, source := range c.KeySources() {
		k := source.Status()
		const fetches = "Fetches of the keys of tokens by what came of them."
		sink.Gauge("sluice_jwks_keys", "Keys of tokens in force.", float64(k.Keys), "place", k.Place)
		sink.Counter("sluice_jwks_fetches_total", fetches, float64(k.Successes), "place", k.Place, "result", "good")
		sink.Counter("sluice_jwks_fetches_total", fetches, float64(k.Failures), "place", k.Place, "result", "failed")
		if !k.Fetched.IsZero() {
			sink.Gauge("sluice_jwks_fetched_seconds", "When the keys of tokens were last fetched with success, in Unix time.", float64(k.Fetched.Unix()), "place", k.Place)
		}
	}
}
