package server

import (
	"encoding/json"

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

// collectFollowed tells of the files whose changes are taken over as they come.
func collectFollowed(c *compile.Compiled, sink *observe.Sink) {
	for _, f := range c.Followed() {
		labels := []string{"kind", f.Kind, "file", f.Path}
		sink.Gauge("sluice_followed_file_failing", "1 while a followed file is wrong or missing: what was read before stays in force.", oneIf(f.Problem != ""), labels...)
		sink.Counter("sluice_followed_file_failures_total", "Times that a followed file was found wrong or missing.", float64(f.Failures), labels...)
	}
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

// exportKeySources gives the keys of tokens that were fetched, and the descriptions of providers: who issues tokens may be away just when
// another process begins.
func (s *Server) exportKeySources(c *compile.Compiled) (any, error) {
	kept, all := c.KeptSources()
	if !all {
		s.log.Warn("there are more keys of tokens than can be handed over: others are fetched anew")
	}
	if len(kept.Places) == 0 && len(kept.Providers) == 0 {
		return nil, nil
	}
	return kept, nil
}

func (s *Server) restoreKeySources(c *compile.Compiled, body []byte) error {
	var kept compile.KeptSources
	if err := json.Unmarshal(body, &kept); err != nil {
		return err
	}
	return c.RestoreSources(kept)
}
