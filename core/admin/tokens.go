package admin

import (
	"fmt"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// RevocationStatus is a token, or all of a subject up to a time, that was withdrawn at run time.
type RevocationStatus struct {
	Kind  string    `json:"kind"` // jti or sub
	Value string    `json:"value"`
	At    time.Time `json:"at,omitzero"` // of a sub: tokens that were issued up to then
	Until time.Time `json:"until"`       // forgotten then
}

// ChangeTokens withdraws tokens, or takes that back. All of it is done, or on an error nothing.
type ChangeTokens struct {
	Change string        `json:"change"` // revoke or restore
	Kind   string        `json:"kind"`   // jti or sub
	Values []string      `json:"values"`
	For    time.Duration `json:"for_ns,omitempty"` // at least what is left of the tokens' lives; 0: 30 days
}

// RevokedFor is how long tokens stay revoked where nothing else is said.
const RevokedFor = 30 * 24 * time.Hour

func (s *Server) changeTokens(c *fasthttp.RequestCtx) {
	var change ChangeTokens
	if !read(c, &change) {
		return
	}
	if change.For == 0 {
		change.For = RevokedFor
	}
	if err := s.source.ChangeTokens(change); err != nil {
		fail(c, fasthttp.StatusBadRequest, err.Error())
		return
	}
	s.log.Info("revocations changed", "change", change.Change, "kind", change.Kind, "tokens", len(change.Values))
	reply(c, fasthttp.StatusOK, state{"done"})
}

// Revocations gives the tokens that are withdrawn.
func (c *Client) Revocations() (all []RevocationStatus, err error) {
	return all, c.ask("GET", "/tokens", nil, &all)
}

// ChangeTokens withdraws tokens, or takes that back.
func (c *Client) ChangeTokens(change ChangeTokens) error { return c.ask("PUT", "/tokens", change, nil) }

// tokens is `sluice ctl tokens [revoke|restore jti|sub VALUE...]`.
func (k *ctl) tokens(words []string) error {
	if len(words) == 0 {
		all, err := k.client.Revocations()
		return k.show(all, err, func(w io.Writer) {
			_, _ = fmt.Fprintln(w, "KIND\tVALUE\tISSUED UP TO\tUNTIL")
			for _, r := range all {
				at := "-"
				if !r.At.IsZero() {
					at = r.At.Format(time.RFC3339)
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", cell(r.Kind), cell(r.Value), at, r.Until.Format(time.RFC3339))
			}
		})
	}
	if len(words) < 3 || words[0] != "revoke" && words[0] != "restore" || words[1] != "jti" && words[1] != "sub" {
		return errUsage("write tokens revoke|restore jti|sub VALUE...")
	}
	done := map[string]string{"revoke": "revoked", "restore": "restored"}[words[0]]
	return k.say(done, k.client.ChangeTokens(ChangeTokens{Change: words[0], Kind: words[1], Values: words[2:], For: k.life}))
}
