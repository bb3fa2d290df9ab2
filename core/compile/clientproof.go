package compile

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
	"github.com/sluice-gateway/sluice/tls"
)

// clientProof is how the gateway proves to an issuer which client it is. Immutable.
type clientProof struct {
	config.IntrospectClient
	key    any // of private_key_jwt
	method gojwt.SigningMethod
}

func newClientProof(c config.IntrospectClient) (*clientProof, error) {
	p := &clientProof{IntrospectClient: c}
	if text := c.Key.Reveal(); text != "" {
		var err error
		if p.key, p.method, err = signingKey([]byte(text)); err != nil {
			return nil, fmt.Errorf("cannot read the client's key: %w", err)
		}
	}
	return p, nil
}

var errSigningKey = errors.New("this is no private key in PEM: RSA of 2048 bits at least, P-256 or Ed25519")

// signingKey reads a private key, and the algorithm that it signs with.
func signingKey(text []byte) (any, gojwt.SigningMethod, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, errSigningKey
	}
	key, err := tls.ParseKey(block)
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

// post makes the request that sends a form to an endpoint of the issuer's, with the proof. audience is who the proof is for.
func (p *clientProof) post(to *url.URL, audience string, form url.Values) (*http.Request, error) {
	r := &http.Request{Method: http.MethodPost, URL: to, Host: to.Host, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}, "User-Agent": {"sluice"}}}
	switch p.Auth {
	case "basic": // RFC 6749, 2.3.1: both are encoded as forms are
		r.SetBasicAuth(url.QueryEscape(p.ID), url.QueryEscape(p.Secret.Reveal()))
	case "post":
		form.Set("client_id", p.ID)
		form.Set("client_secret", p.Secret.Reveal())
	default:
		assertion, err := p.assertion(audience, time.Now())
		if err != nil {
			return nil, err
		}
		form.Set("client_id", p.ID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	text := form.Encode()
	r.ContentLength = int64(len(text))
	r.Body = io.NopCloser(strings.NewReader(text))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return r, nil
}

// assertion says who we are (RFC 7523, 2.2 and 3).
func (p *clientProof) assertion(audience string, now time.Time) (string, error) {
	t := gojwt.NewWithClaims(p.method, gojwt.MapClaims{"iss": p.ID, "sub": p.ID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix()})
	if p.KeyID != "" {
		t.Header["kid"] = p.KeyID
	}
	return t.SignedString(p.key)
}
