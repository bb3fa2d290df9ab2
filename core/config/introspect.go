package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Introspect lets requests pass that bear a token which its issuer says to be active (RFC 7662).
type Introspect struct {
	Service
	Bearer
	Client   IntrospectClient
	TTL      time.Duration // what the issuer says of a token that is good is kept, until it expires at most; 1m, 0..1h
	Negative time.Duration // likewise of one that is not; 10s, 0..1h
	Most     int           // tokens that are kept; 10000, 1..1000000
}

// IntrospectClient is who we are to the issuer.
type IntrospectClient struct {
	ID     string
	Auth   string // basic, post or private_key_jwt (RFC 7523); basic
	Secret Secret // by reference; of basic and post
	Key    Secret // private key in PEM, by reference; of private_key_jwt
	KeyID  string // of private_key_jwt; "": none is named
}

const (
	introspectKeys  = serviceKeys + " " + bearerKeys + " client cache"
	maxClientSecret = 4096
)

func (d *decoder) introspect(key string, n ast.Node) *Introspect {
	i := &Introspect{Service: newService(), Bearer: Bearer{Hide: true}, Client: IntrospectClient{Auth: "basic"}, TTL: time.Minute,
		Negative: 10 * time.Second, Most: 10_000}
	given := map[string]bool{}
	ok := d.mapping(key, n, introspectKeys, func(key string, k, v ast.Node) bool {
		given[key] = true
		switch key {
		case "client":
			d.introspectClient(key, v, &i.Client)
		case "cache":
			d.mapping(key, v, "ttl negative most", func(key string, _, v ast.Node) bool {
				switch key {
				case "ttl":
					d.durationUpTo(key, v, 0, time.Hour, &i.TTL)
				case "negative":
					d.durationUpTo(key, v, 0, time.Hour, &i.Negative)
				case "most":
					d.integer(key, v, 1, maxForwardCached, &i.Most)
				default:
					return false
				}
				return true
			})
		default:
			return d.service(key, k, v, &i.Service) || d.bearer(key, v, &i.Bearer)
		}
		return true
	})
	i.settle()
	if ok {
		d.serviceWhole(key, n, &i.Service, given["url"], true)
		if !given["client"] {
			d.problem(n, "add client: { id: gateway, secret: env:NAME }", "%q has no %q: an issuer answers those whom it knows (RFC 7662, 2.1)", key, "client")
		}
	}
	return i
}

func (d *decoder) introspectClient(key string, n ast.Node, c *IntrospectClient) {
	given := map[string]ast.Node{}
	before := d.errors
	ok := d.mapping(key, n, "id auth secret key key_id", func(key string, _, v ast.Node) bool {
		given[key] = v
		switch key {
		case "id":
			d.clientText(key, v, &c.ID)
		case "auth":
			d.word(key, v, "basic post private_key_jwt", &c.Auth)
		case "secret":
			d.referred(key, v, 1, maxClientSecret, &c.Secret)
		case "key":
			d.referred(key, v, 1, maxPublicKey, &c.Key)
		case "key_id":
			d.clientText(key, v, &c.KeyID)
		default:
			return false
		}
		return true
	})
	if !ok || d.errors > before {
		return
	}
	needs, not := "secret", "key"
	if c.Auth == "private_key_jwt" {
		needs, not = "key", "secret"
	}
	switch {
	case given["id"] == nil:
		d.problem(n, "", "%q has no %q", key, "id")
	case given[needs] == nil:
		d.problem(n, "add "+needs+": env:NAME, or file:/path", "%q has no %q for %q", key, needs, c.Auth)
	case given[not] != nil:
		d.problem(given[not], "", "%q is of no use with %q", not, "auth: "+c.Auth)
	case given["key_id"] != nil && not == "key":
		d.problem(given["key_id"], "", "%q is of no use with %q", "key_id", "auth: "+c.Auth)
	}
}

func (d *decoder) clientText(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if s == "" || len(s) > maxClaimBytes || hasControl(s) {
		d.problem(n, "", "%q has from 1 to %d bytes, and no control characters", key, maxClaimBytes)
		return
	}
	*to = s
}

func (w *dumper) introspect(i *Introspect) {
	w.block("introspect:", func() {
		w.service(&i.Service)
		w.bearer(&i.Bearer)
		w.oauthClient(&i.Client)
		w.line("cache: { ttl: %s, negative: %s, most: %d }", formatDuration(i.TTL), formatDuration(i.Negative), i.Most)
	})
}

func (w *dumper) oauthClient(c *IntrospectClient) {
	w.block("client:", func() {
		w.line("id: %s", quote(c.ID))
		w.line("auth: %s", c.Auth)
		if c.Auth == "private_key_jwt" {
			w.line("key: %s", quote(c.Key.String()))
		} else {
			w.line("secret: %s", quote(c.Secret.String()))
		}
		if c.KeyID != "" {
			w.line("key_id: %s", quote(c.KeyID))
		}
	})
}
