package server

import (
	"encoding/json"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/compile/signing"
	"github.com/sluice-gateway/sluice/core/observe"
)

// identityKeys are the keys that tokens for upstreams are signed with, as whoever verifies them gets them; type "": none is signed.
func (s *Server) identityKeys() (set, contentType, cacheControl string) {
	now := s.state.Load()
	if now == nil || now.compiled.IdentityKeys() == nil {
		return "", "", ""
	}
	set, cacheControl = now.compiled.IdentityKeys().Current()
	return set, compile.KeysContentType, cacheControl
}

// signingKeysStatus describes these keys.
func (s *Server) signingKeysStatus() (out []admin.SigningKeyStatus) {
	now := s.state.Load()
	if now == nil || now.compiled.IdentityKeys() == nil {
		return nil
	}
	for _, k := range now.compiled.IdentityKeys().Status(time.Now()) {
		out = append(out, admin.SigningKeyStatus{ID: k.ID, Algorithm: string(k.Algorithm), State: string(k.State), Since: k.From, Until: k.Until})
	}
	return out
}

// collectIdentityTokens tells what loop i has counted.
func collectIdentityTokens(c *compile.Compiled, i int, sink *observe.Sink) {
	n, ok := c.IdentityTokenCounts(i)
	if !ok {
		return
	}
	const signed = "Tokens that were to be signed for upstreams, and requests for which that failed."
	sink.Counter("sluice_identity_tokens_total", signed, float64(n.Signed), "result", "signed")
	sink.Counter("sluice_identity_tokens_total", signed, float64(n.Failed), "result", "failed")
	sink.Counter("sluice_identity_tokens_kept_total", "Requests that were sent with a token that had been signed before.", float64(n.Kept))
}

// exportIdentityKeys gives the keys, so that tokens of either process are verified by what either publishes.
func (s *Server) exportIdentityKeys(c *compile.Compiled) (any, error) {
	if c.IdentityKeys() == nil {
		return nil, nil
	}
	return c.IdentityKeys().Export(time.Now())
}

func (s *Server) restoreIdentityKeys(c *compile.Compiled, body []byte) error {
	if c.IdentityKeys() == nil {
		return nil
	}
	var kept signing.Kept
	if err := json.Unmarshal(body, &kept); err != nil {
		return err
	}
	return c.IdentityKeys().Import(kept, time.Now())
}
