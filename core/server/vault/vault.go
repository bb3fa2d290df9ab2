// Package vault reads secrets of a version 2 key-value engine of OpenBao or HashiCorp Vault, as a token or an AppRole.
package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Spec says where the vault is, and who we are to it. Either Token or RoleID is set. It can be compared.
type Spec struct {
	Address          string // http(s)://host:port
	Namespace        string // "": none
	CA               string // file with the authorities that vouch for it; "": the system's
	Timeout          time.Duration
	Token            string
	RoleID, SecretID string
	Mount            string // of AppRole
}

// Client asks a vault. It keeps its token, which it renews when two thirds of the token's life are over, or logs in again. Any goroutine
// may use it; one at a time asks. It runs nothing in the background.
type Client struct {
	spec      Spec
	transport *http.Transport

	mu    sync.Mutex
	token token
}

// token is what we may ask with.
type token struct {
	text      string // "": there is none
	renewable bool
	renew     time.Time // when it is time to; zero: it does not end, or nothing is known of it
	end       time.Time // likewise
}

const (
	answerBytes = 1 << 20
	caBytes     = 16 << 20
	idle        = time.Minute
)

var (
	// ErrDenied says that the vault does not let us read that, or does not know us.
	ErrDenied = errors.New("permission denied")
	// ErrSealed says that the vault is sealed, in maintenance or on its way up.
	ErrSealed = errors.New("the vault is sealed or not ready")
	// ErrMissing says that there is no such secret, or that its last version has been deleted.
	ErrMissing = errors.New("there is no such secret")
)

// New gives a client that has asked nothing yet. It looks at no environment and follows no redirect.
func New(spec Spec) (*Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if spec.CA != "" {
		f, err := os.Open(spec.CA)
		if err != nil {
			return nil, fmt.Errorf("cannot read the vault's authorities: %w", err)
		}
		defer f.Close() //nolint:errcheck // nothing was written
		text, err := io.ReadAll(io.LimitReader(f, caBytes))
		if err != nil {
			return nil, fmt.Errorf("cannot read the vault's authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("cannot read the vault's authorities: %q has no certificate", spec.CA)
		}
	}
	return &Client{spec: spec, transport: &http.Transport{DialContext: (&net.Dialer{Timeout: spec.Timeout}).DialContext, TLSClientConfig: config,
		TLSHandshakeTimeout: spec.Timeout, ResponseHeaderTimeout: spec.Timeout, MaxConnsPerHost: 1, IdleConnTimeout: idle, ForceAttemptHTTP2: true}}, nil
}

// Close drops the connection. What was read stays good.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Read gives the keys of the last version of a secret whose values are strings. ctx bounds all of it, each request is bounded by the
// timeout too. Errors hold neither token nor secret.
func (c *Client) Read(ctx context.Context, mount, path string) (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.authenticate(ctx); err != nil {
		return nil, err
	}
	at := "/v1/" + url.PathEscape(mount) + "/data/" + escaped(path)
	var answer struct {
		Data struct {
			Data map[string]any `json:"data"`
		} `json:"data"`
	}
	err := c.ask(ctx, http.MethodGet, at, nil, &answer)
	if errors.Is(err, ErrDenied) && c.spec.RoleID != "" { // the token may have been revoked
		if err := c.login(ctx); err != nil {
			return nil, err
		}
		err = c.ask(ctx, http.MethodGet, at, nil, &answer)
	}
	if err != nil {
		return nil, err
	}
	if answer.Data.Data == nil {
		return nil, ErrMissing
	}
	all := map[string]string{}
	for key, value := range answer.Data.Data {
		if s, ok := value.(string); ok {
			all[key] = s
		}
	}
	return all, nil
}

// Tend renews the token if it is time to, and gives when that is the next time; zero: never, as far as is known.
func (c *Client) Tend(ctx context.Context) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.authenticate(ctx)
	return c.token.renew, err
}

// authenticate sees to it that there is a token which has not ended. mu is held.
func (c *Client) authenticate(ctx context.Context) error {
	now := time.Now()
	switch t := &c.token; {
	case t.text == "" && c.spec.RoleID != "":
		return c.login(ctx)
	case t.text == "":
		return c.look(ctx)
	case t.renew.IsZero() || now.Before(t.renew):
		return nil
	case t.renewable && now.Before(t.end):
		if err := c.renew(ctx); err == nil {
			return nil
		} else if c.spec.RoleID == "" {
			if time.Now().Before(t.end) { // as long as it lasts
				return nil
			}
			return err
		}
	case c.spec.RoleID == "": // the vault judges whether it has ended
		return nil
	}
	return c.login(ctx)
}

// auth is what the vault says of a token that it gives or renews.
type auth struct {
	Auth struct {
		Token     string `json:"client_token"`
		Seconds   int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
}

func (c *Client) login(ctx context.Context) error {
	c.token = token{}
	var a auth
	who := map[string]string{"role_id": c.spec.RoleID, "secret_id": c.spec.SecretID}
	if err := c.ask(ctx, http.MethodPost, "/v1/auth/"+escaped(c.spec.Mount)+"/login", who, &a); err != nil {
		return fmt.Errorf("cannot log in: %w", err)
	}
	if a.Auth.Token == "" {
		return errors.New("cannot log in: the answer has no token")
	}
	c.token = token{text: a.Auth.Token}
	c.token.last(a.Auth.Seconds, a.Auth.Renewable)
	return nil
}

// look asks how long the configured token lasts. One that may not ask is used all the same.
func (c *Client) look(ctx context.Context) error {
	c.token = token{text: c.spec.Token}
	var a struct {
		Data struct {
			Seconds   int64 `json:"ttl"`
			Renewable bool  `json:"renewable"`
		} `json:"data"`
	}
	switch err := c.ask(ctx, http.MethodGet, "/v1/auth/token/lookup-self", nil, &a); {
	case errors.Is(err, ErrDenied):
	case err != nil:
		c.token = token{}
		return err
	default:
		c.token.last(a.Data.Seconds, a.Data.Renewable)
	}
	return nil
}

func (c *Client) renew(ctx context.Context) error {
	var a auth
	if err := c.ask(ctx, http.MethodPost, "/v1/auth/token/renew-self", map[string]string{}, &a); err != nil {
		c.token.renew = time.Now().Add(renewAgain)
		return fmt.Errorf("cannot renew the token: %w", err)
	}
	c.token.last(a.Auth.Seconds, a.Auth.Renewable)
	return nil
}

// renewAgain is the pause after a renewal that failed.
const renewAgain = 10 * time.Second

// last notes how long the token is good from now on. A token near its greatest age is given less and less: it is not renewed more often
// than once a second.
func (t *token) last(seconds int64, renewable bool) {
	t.renewable, t.renew, t.end = renewable, time.Time{}, time.Time{}
	if seconds <= 0 {
		return
	}
	life := time.Duration(min(seconds, 1<<31)) * time.Second
	now := time.Now()
	t.end, t.renew = now.Add(life), now.Add(max(life*2/3, time.Second))
}

// ask makes one request.
func (c *Client) ask(ctx context.Context, method, path string, body, to any) error {
	ctx, cancel := context.WithTimeout(ctx, c.spec.Timeout)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.spec.Address, "/")+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	q.Header.Set("User-Agent", "sluice")
	q.Header.Set("X-Vault-Request", "true")
	if c.spec.Namespace != "" {
		q.Header.Set("X-Vault-Namespace", c.spec.Namespace)
	}
	if c.token.text != "" {
		q.Header.Set("X-Vault-Token", c.token.text)
	}
	a, err := c.transport.RoundTrip(q)
	if err != nil {
		return fmt.Errorf("cannot ask the vault: %w", err)
	}
	defer a.Body.Close() //nolint:errcheck // nothing was written
	answer, err := io.ReadAll(io.LimitReader(a.Body, answerBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the vault's answer: %w", err)
	case a.StatusCode == http.StatusForbidden, a.StatusCode == http.StatusUnauthorized, a.StatusCode == http.StatusBadRequest && c.token.text == "":
		return ErrDenied // an AppRole that is not known is answered with 400
	case a.StatusCode == http.StatusNotFound:
		return ErrMissing
	case a.StatusCode == http.StatusServiceUnavailable:
		return ErrSealed
	case a.StatusCode != http.StatusOK:
		return fmt.Errorf("the vault answers with status %d", a.StatusCode)
	case len(answer) > answerBytes:
		return fmt.Errorf("the vault's answer is longer than %d bytes", answerBytes)
	}
	if err := json.Unmarshal(answer, to); err != nil {
		return errors.New("the vault's answer is not what was asked for") // the cause could tell of it
	}
	return nil
}

// escaped writes a path whose parts are separated by slashes.
func escaped(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
