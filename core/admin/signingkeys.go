package admin

import (
	"fmt"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// SigningKeyStatus is a key that tokens for upstreams are signed with, without what is secret.
type SigningKeyStatus struct {
	ID        string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
	State     string    `json:"state"`          // next: it is published, and will sign; signing; retired: it verifies what it has signed
	Since     time.Time `json:"since"`          // it signs, or will
	Until     time.Time `json:"until,omitzero"` // it is published; zero: that is not known yet
}

// identityKeys gives the keys to whoever verifies tokens.
func (s *Server) identityKeys(c *fasthttp.RequestCtx) {
	set, contentType, cacheControl := s.source.IdentityKeys()
	if contentType == "" {
		fail(c, fasthttp.StatusNotFound, "no tokens are signed for upstreams")
		return
	}
	c.Response.Header.Set("Cache-Control", cacheControl)
	c.SetContentType(contentType)
	c.SetBodyString(set)
}

// SigningKeys gives the keys that tokens for upstreams are signed with.
func (c *Client) SigningKeys() (all []SigningKeyStatus, err error) {
	return all, c.ask("GET", "/signing-keys", nil, &all)
}

func printSigningKeys(w io.Writer, all []SigningKeyStatus) {
	_, _ = fmt.Fprintln(w, "KID\tALGORITHM\tSTATE\tSINCE\tUNTIL")
	for _, k := range all {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", cell(k.ID), cell(k.Algorithm), cell(k.State), instant(k.Since), instant(k.Until))
	}
}
