package compile

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/sluice-gateway/sluice/core/config"
)

// oauthClient is the gateway as a client of an issuer, to which it proves who it is (RFC 6749, 2.3). Any goroutine may use it.
type oauthClient struct {
	*service
	url    string
	to     *url.URL
	client config.IntrospectClient
	key    any // of private_key_jwt
	method gojwt.SigningMethod
}

func newOAuthClient(s *service, at string, client config.IntrospectClient) (c oauthClient, err error) {
	c = oauthClient{service: s, url: at, client: client}
	if c.to, err = url.Parse(at); err != nil {
		return c, fmt.Errorf("cannot read the URL: %w", err)
	}
	if text := client.Key.Reveal(); text != "" {
		if c.key, c.method, err = signingKey([]byte(text)); err != nil {
			return c, fmt.Errorf("cannot read the client's key: %w", err)
		}
	}
	return c, nil
}

var errSigningKey = errors.New("this is no private key in PEM: RSA of 2048 bits at least, P-256 or Ed25519")

// signingKey reads a private key, and the algorithm that it signs with.
func signingKey(text []byte) (any, gojwt.SigningMethod, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, errSigningKey
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, nil, errSigningKey // the cause could tell of the key
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 {
			return k, gojwt.SigningMethodRS256, nil
		}
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return k, gojwt.SigningMethodES256, nil
		}
	case ed25519.PrivateKey:
		return k, gojwt.SigningMethodEdDSA, nil
	}
	return nil, nil, errSigningKey
}

// assertionLife is how long an assertion of who we are may be used (RFC 7523, 3).
const assertionLife = time.Minute

// post sends a form and who we are, and reads as much of the answer as is bounded, as service.do does.
func (i *oauthClient) post(ctx context.Context, form url.Values) (a *http.Response, body []byte, whole bool, err error) {
	r := &http.Request{Method: http.MethodPost, URL: i.to, Host: i.to.Host, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}, "User-Agent": {"sluice"}}}
	switch i.client.Auth {
	case "basic": // RFC 6749, 2.3.1: both are encoded as forms are
		r.SetBasicAuth(url.QueryEscape(i.client.ID), url.QueryEscape(i.client.Secret.Reveal()))
	case "post":
		form.Set("client_id", i.client.ID)
		form.Set("client_secret", i.client.Secret.Reveal())
	default:
		assertion, err := i.assertion(time.Now())
		if err != nil {
			return nil, nil, false, err
		}
		form.Set("client_id", i.client.ID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	text := form.Encode()
	r.ContentLength = int64(len(text))
	r.Body = io.NopCloser(strings.NewReader(text))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return i.do(ctx, r, nil)
}

// assertion says who we are (RFC 7523, 2.2 and 3).
func (i *oauthClient) assertion(now time.Time) (string, error) {
	t := gojwt.NewWithClaims(i.method, gojwt.MapClaims{"iss": i.client.ID, "sub": i.client.ID, "aud": i.url, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix()})
	if i.client.KeyID != "" {
		t.Header["kid"] = i.client.KeyID
	}
	return t.SignedString(i.key)
}
