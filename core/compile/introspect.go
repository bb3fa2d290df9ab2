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
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/introspect"
)

// Introspection is a policy that asks the issuer of tokens, with the name that it is counted under.
type Introspection struct {
	Name   string
	Policy *introspect.Policy
}

// introspection makes the policy of kind introspect.
func introspection(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	i := p.Introspect
	s, err := r.service(c, p.Pos, "introspect", &i.Service)
	if err != nil {
		return core.Step{}, err
	}
	is := &issuer{service: s, url: i.URL, client: i.Client}
	if is.to, err = url.Parse(i.URL); err != nil {
		return core.Step{}, fmt.Errorf("cannot read the URL: %w", err)
	}
	if text := i.Client.Key.Reveal(); text != "" {
		if is.key, is.method, err = signingKey([]byte(text)); err != nil {
			return core.Step{}, fmt.Errorf("cannot read the client's key: %w", err)
		}
	}
	loops := max(len(r.workers), 1)
	spec := introspect.Spec{Bearer: r.bearer(c, &i.Bearer), TTL: i.TTL, Negative: i.Negative, Most: share(i.Most, loops), Calls: share(i.Calls, loops),
		Allow: i.OnError == "allow"}
	counts := r.introspectCounts[name]
	if counts == nil {
		counts = make([]introspect.Counts, loops)
	}
	c.introspectCounts[name] = counts
	policy := introspect.New(spec, is, c.consumers.directory, counts)
	c.Introspections = append(c.Introspections, Introspection{name, policy})
	return core.Step{Writes: told(&i.Bearer), Request: policy}, nil
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

// issuer is asked about tokens.
type issuer struct {
	*service
	url    string
	to     *url.URL
	client config.IntrospectClient
	key    any // of private_key_jwt
	method gojwt.SigningMethod
	joins  joins[introspect.Answer]
}

// Begin prepares one question.
func (i *issuer) Begin(token string) core.Call[introspect.Answer] {
	ctx, cancel := context.WithTimeout(context.Background(), i.timeout)
	return core.Call[introspect.Answer]{Do: func() introspect.Answer { return i.join(ctx, token) }, Cancel: cancel}
}

// join asks, unless another loop does.
func (i *issuer) join(ctx context.Context, token string) introspect.Answer {
	answer, ok := i.joins.do(ctx, token, func() introspect.Answer { return i.ask(ctx, token) })
	answer.Failed = answer.Failed || !ok
	return answer
}

// assertionLife is how long an assertion of who we are may be used (RFC 7523, 3).
const assertionLife = time.Minute

func (i *issuer) ask(ctx context.Context, token string) introspect.Answer {
	failed := introspect.Answer{Failed: true}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
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
			return failed
		}
		form.Set("client_id", i.client.ID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	text := form.Encode()
	r.ContentLength = int64(len(text))
	r.Body = io.NopCloser(strings.NewReader(text))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	a, body, whole, err := i.do(ctx, r, nil)
	if err != nil || a.StatusCode != http.StatusOK || !whole {
		return failed
	}
	claims, ok := core.ReadClaims(body)
	return introspect.Answer{Failed: !ok, Claims: claims}
}

// assertion says who we are (RFC 7523, 2.2 and 3).
func (i *issuer) assertion(now time.Time) (string, error) {
	t := gojwt.NewWithClaims(i.method, gojwt.MapClaims{"iss": i.client.ID, "sub": i.client.ID, "aud": i.url, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix()})
	if i.client.KeyID != "" {
		t.Header["kid"] = i.client.KeyID
	}
	return t.SignedString(i.key)
}
