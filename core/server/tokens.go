package server

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
)

// revocations are the tokens that are withdrawn.
func (s *Server) revocations() (out []admin.RevocationStatus) {
	for _, r := range s.registry.Revoker().All(time.Now()) {
		out = append(out, admin.RevocationStatus(r))
	}
	return out
}

func (s *Server) changeTokens(c admin.ChangeTokens) error {
	switch r := s.registry.Revoker(); c.Change {
	case "revoke":
		return r.Revoke(c.Kind, c.Values, c.For, time.Now())
	case "restore":
		return r.Restore(c.Kind, c.Values, time.Now())
	}
	return fmt.Errorf("change is %q: revoke or restore", c.Change)
}

// exportRevocations hands on what is withdrawn: a token must not come back because the binary is another.
func (s *Server) exportRevocations(*compile.Compiled) (any, error) {
	if all := s.registry.Revoker().All(time.Now()); len(all) > 0 {
		return all, nil
	}
	return nil, nil
}

func (s *Server) restoreRevocations(_ *compile.Compiled, body []byte) error {
	var all []compile.Revocation
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	return s.registry.Revoker().Add(all, time.Now())
}
