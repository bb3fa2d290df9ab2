// Command provider is an OpenID provider made with ory/fosite, for the tests of logins: somebody else's reading of the specifications. It has a
// module of its own, so that the gateway depends on nothing of it.
//
// It listens on a loopback address, prints its issuer, and ends with its standard input. Its one client is named gateway, with the secret
// "a secret of the gateway", on whatever port of 127.0.0.1. Whoever gives a name in its form is logged in under it.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	"golang.org/x/crypto/bcrypt"
)

const keyID = "provider-key"

type provider struct {
	issuer string
	key    *rsa.PrivateKey
	oauth  fosite.OAuth2Provider
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	life, err := time.ParseDuration(os.Args[1]) // of access tokens
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &provider{issuer: "http://" + l.Addr().String()}
	if p.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	secret, err := bcrypt.GenerateFromPassword([]byte("a secret of the gateway"), bcrypt.MinCost)
	if err != nil {
		return err
	}
	store := storage.NewMemoryStore()
	store.Clients["gateway"] = &fosite.DefaultClient{ID: "gateway", Secret: secret, RedirectURIs: []string{"http://127.0.0.1/oauth2/callback"},
		ResponseTypes: []string{"code"}, GrantTypes: []string{"authorization_code", "refresh_token"}, Scopes: []string{"openid", "profile", "offline_access"}}
	config := &fosite.Config{GlobalSecret: make([]byte, 32), IDTokenIssuer: p.issuer, EnforcePKCE: true, AccessTokenLifespan: life,
		SendDebugMessagesToClients: true, RefreshTokenScopes: []string{"offline_access"}}
	_, _ = rand.Read(config.GlobalSecret)
	p.oauth = compose.Compose(config, store, &compose.CommonStrategy{CoreStrategy: compose.NewOAuth2HMACStrategy(config),
		OpenIDConnectTokenStrategy: compose.NewOpenIDConnectStrategy(func(context.Context) (any, error) { return p.key, nil }, config)},
		compose.OAuth2AuthorizeExplicitFactory, compose.OAuth2RefreshTokenGrantFactory, compose.OpenIDConnectExplicitFactory,
		compose.OpenIDConnectRefreshFactory, compose.OAuth2PKCEFactory)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", p.describe)
	mux.HandleFunc("/keys", p.keys)
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/end", p.end)
	fmt.Println(p.issuer)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(l, mux)
}

// end takes back a browser that has logged out at the client (OpenID Connect RP-Initiated Logout 1.0, 2 and 3). It goes on only to a place that
// is registered, on whatever port of 127.0.0.1, and only for an ID token that was issued here, for that client.
func (p *provider) end(w http.ResponseWriter, r *http.Request) {
	refuse := func(what string) { http.Error(w, "no logout: "+what, http.StatusBadRequest) }
	claims, err := p.issued(r.FormValue("id_token_hint"))
	if err != nil {
		refuse("id_token_hint: " + err.Error())
		return
	}
	if !slices.Contains(claims.Audience, "gateway") || r.FormValue("client_id") != "gateway" {
		refuse("client_id")
		return
	}
	to, err := url.Parse(r.FormValue("post_logout_redirect_uri"))
	if err != nil || to.Scheme != "http" || to.Hostname() != "127.0.0.1" || to.User != nil || to.Path != "/bye" || to.RawQuery != "" || to.Fragment != "" {
		refuse("post_logout_redirect_uri")
		return
	}
	if state := r.FormValue("state"); state != "" {
		to.RawQuery = url.Values{"state": {state}}.Encode()
	}
	http.Redirect(w, r, to.String(), http.StatusFound)
}

type issuedClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
}

// issued gives the claims of an ID token that was signed here. It may have expired (2).
func (p *provider) issued(token string) (c issuedClaims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("it is no token")
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return c, err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&p.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return c, err
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, err
	}
	if c.Issuer != p.issuer || c.Subject == "" {
		return c, errors.New("it was issued elsewhere, or is nobody's")
	}
	return c, nil
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (p *provider) describe(w http.ResponseWriter, _ *http.Request) {
	say(w, map[string]any{"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
		"jwks_uri": p.issuer + "/keys", "end_session_endpoint": p.issuer + "/end"})
}

func (p *provider) keys(w http.ResponseWriter, _ *http.Request) {
	e := big.NewInt(int64(p.key.E)).Bytes()
	say(w, map[string]any{"keys": []map[string]string{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
		"n": base64.RawURLEncoding.EncodeToString(p.key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(e)}}})
}

func session(name string) *openid.DefaultSession {
	return &openid.DefaultSession{Subject: name, Claims: &jwt.IDTokenClaims{Subject: name, RequestedAt: time.Now(), AuthTime: time.Now(), Extra: map[string]any{"name": "The " + name}},
		Headers: &jwt.Headers{Extra: map[string]any{"kid": keyID}}}
}

// authorize asks for a name, and sends the browser back.
func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	a, err := p.oauth.NewAuthorizeRequest(r.Context(), r)
	if err != nil {
		p.oauth.WriteAuthorizeError(r.Context(), w, a, err)
		return
	}
	name := r.PostFormValue("name")
	if r.Method != http.MethodPost || name == "" {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method=post action="%s"><input name=name></form>`, html.EscapeString(r.URL.String()))
		return
	}
	if name == "mallory" {
		p.oauth.WriteAuthorizeError(r.Context(), w, a, fosite.ErrAccessDenied)
		return
	}
	for _, scope := range a.GetRequestedScopes() {
		a.GrantScope(scope)
	}
	answer, err := p.oauth.NewAuthorizeResponse(r.Context(), a, session(name))
	if err != nil {
		p.oauth.WriteAuthorizeError(r.Context(), w, a, err)
		return
	}
	p.oauth.WriteAuthorizeResponse(r.Context(), w, a, answer)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	a, err := p.oauth.NewAccessRequest(r.Context(), r, session(""))
	if err != nil {
		p.oauth.WriteAccessError(r.Context(), w, a, err)
		return
	}
	answer, err := p.oauth.NewAccessResponse(r.Context(), a)
	if err != nil {
		p.oauth.WriteAccessError(r.Context(), w, a, err)
		return
	}
	p.oauth.WriteAccessResponse(r.Context(), w, a, answer)
}
