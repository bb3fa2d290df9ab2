package compile

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/sluice-gateway/sluice/core/config"
)

// oauthClient asks one endpoint of an issuer, to which it proves who it is (RFC 6749, 2.3). Any goroutine may use it.
type oauthClient struct {
	*service
	url   string
	to    *url.URL
	proof *clientProof
}

func newOAuthClient(s *service, at string, client config.IntrospectClient) (c oauthClient, err error) {
	c = oauthClient{service: s, url: at}
	if c.to, err = url.Parse(at); err != nil {
		return c, fmt.Errorf("cannot read the URL: %w", err)
	}
	c.proof, err = newClientProof(client)
	return c, err
}

// post sends a form and who we are, and reads as much of the answer as is bounded, as service.do does.
func (c *oauthClient) post(ctx context.Context, form url.Values) (a *http.Response, body []byte, whole bool, err error) {
	r, err := c.proof.post(c.to, c.url, form)
	if err != nil {
		return nil, nil, false, err
	}
	return c.do(ctx, r, nil)
}
