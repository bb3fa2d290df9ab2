package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Authorize says with what the requests to an upstream prove whose they are, in the place of what clients say.
type Authorize struct {
	Pos               Pos
	ClientCredentials *ClientCredentials
}

// ClientCredentials gets tokens of an issuer for the gateway itself (RFC 6749, 4.4).
type ClientCredentials struct {
	Service  // the token endpoint; without Calls. OnError: what becomes of requests while there is no token
	Client   IntrospectClient
	Scopes   []string // none: those that the issuer thinks fit
	Audience string   // "": none is named
}

const credentialsKeys = "url timeout on_error tls client scopes audience"

func (d *decoder) authorize(key string, n ast.Node) *Authorize {
	a := &Authorize{Pos: d.at(n)}
	ok := d.mapping(key, n, "client_credentials", func(key string, _, v ast.Node) bool {
		if key != "client_credentials" {
			return false
		}
		a.ClientCredentials = d.clientCredentials(key, v)
		return true
	})
	if ok && a.ClientCredentials == nil {
		d.problem(n, "add client_credentials: { url: https://host/token, client: { id: gateway, secret: env:NAME } }", "%q has no %q", key, "client_credentials")
	}
	return a
}

func (d *decoder) clientCredentials(key string, n ast.Node) *ClientCredentials {
	c := &ClientCredentials{Service: newService(), Client: IntrospectClient{Auth: "basic"}}
	c.Timeout = 5 * time.Second
	given := map[string]bool{}
	ok := d.mapping(key, n, credentialsKeys, func(key string, k, v ast.Node) bool {
		given[key] = true
		switch key {
		case "client":
			d.introspectClient(key, v, &c.Client)
		case "scopes":
			d.list(key, v, func(v ast.Node) {
				var s string
				switch {
				case !d.text(key, v, &s):
				case !scopeToken(s):
					d.problem(v, "", "%q is no scope (RFC 6749, 3.3)", clip(s))
				case d.room(key, v, len(c.Scopes)):
					c.Scopes = append(c.Scopes, s)
				}
			})
		case "audience":
			d.clientText(key, v, &c.Audience)
		case "calls":
			return false
		default:
			return d.service(key, k, v, &c.Service)
		}
		return true
	})
	if ok {
		d.serviceWhole(key, n, &c.Service, given["url"], true)
		if !given["client"] {
			d.problem(n, "add client: { id: gateway, secret: env:NAME }", "%q has no %q", key, "client")
		}
	}
	return c
}

// scopeToken says whether s is a scope-token of RFC 6749, 3.3.
func scopeToken(s string) bool {
	return s != "" && len(s) <= maxClaimBytes && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) < 0
}

func (w *dumper) authorize(a *Authorize) {
	c := a.ClientCredentials
	w.block("authorize:", func() {
		w.block("client_credentials:", func() {
			w.line("url: %s", w.url(c.URL))
			w.line("timeout: %s", formatDuration(c.Timeout))
			w.line("on_error: %s", c.OnError)
			if c.TLS != nil {
				w.block("tls:", func() { w.upstreamTLS(c.TLS) })
			}
			w.oauthClient(&c.Client)
			if len(c.Scopes) > 0 {
				w.line("scopes: %s", quoteList(c.Scopes))
			}
			if c.Audience != "" {
				w.line("audience: %s", quote(c.Audience))
			}
		})
	})
}
