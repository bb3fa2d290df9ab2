package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// OIDC has people log in with a provider (OpenID Connect, authorization code with PKCE), and lets requests pass that have a session.
type OIDC struct {
	Service  // URL is the issuer; timeout 5s; OnError is of sessions whose tokens cannot be refreshed
	Bearer   // Scopes and Carrier are not used
	Client   IntrospectClient
	Ask      []string      // scopes that are asked for; openid and profile
	Paths    OIDCPaths     // of the routes that use the policy
	Cookie   OIDCCookie    // of the session
	Idle     time.Duration // 30m, 2s..30 days; 1m at least where nodes share sessions
	Life     time.Duration // 12h, 2s..400 days
	Refresh  bool          // tokens are refreshed when they expire, and the session ends if they are not to be had; true
	User     bool          // the userinfo endpoint is asked for more claims; false
	Sessions OIDCSessions
}

// OIDCPaths are those that the policy answers itself.
type OIDCPaths struct {
	Callback    string // where the provider sends browsers back to; /oauth2/callback
	Logout      string // /oauth2/logout
	AfterLogout string // where browsers go then, a path or a URL; /
	Backchannel string // where the provider tells of logouts; /oauth2/backchannel; "": it cannot
}

// OIDCCookie is the session's cookie.
type OIDCCookie struct {
	Name     string // __Host-session
	Domain   string // "": the host alone
	Path     string // /
	SameSite string // lax, none or strict; lax
	Secure   bool   // true
}

const (
	oidcKeys = "issuer client scopes callback logout after_logout backchannel_logout cookie idle lifetime refresh userinfo headers claims consumer tier tenant groups roles " +
		"hide_credentials sessions timeout calls on_error tls"
	maxOIDCIdle     = 30 * 24 * time.Hour
	maxOIDCLifetime = 400 * 24 * time.Hour
	maxSessions     = 1_000_000
	oidcTimeout     = 5 * time.Second
	minOIDCIdle     = 2 * time.Second // uses are noted to the second
	minSharedIdle   = time.Minute
)

func (d *decoder) oidc(key string, n ast.Node) *OIDC {
	o := &OIDC{Service: newService(), Bearer: Bearer{Hide: true}, Client: IntrospectClient{Auth: "basic"},
		Paths:  OIDCPaths{"/oauth2/callback", "/oauth2/logout", "/", "/oauth2/backchannel"},
		Cookie: OIDCCookie{Name: "__Host-session", Path: "/", SameSite: "lax", Secure: true}, Idle: 30 * time.Minute, Life: 12 * time.Hour, Refresh: true, Sessions: OIDCSessions{Most: 100_000, Store: "memory"}}
	o.Timeout = oidcTimeout
	before := d.errors
	given := map[string]ast.Node{}
	ok := d.mapping(key, n, oidcKeys, func(key string, k, v ast.Node) bool {
		given[key] = k
		return d.oidcKey(key, k, v, o)
	})
	if !ok {
		return o
	}
	if o.Ask == nil {
		o.Ask = []string{"openid", "profile"}
	}
	for _, needed := range [...]struct{ key, hint string }{{"issuer", "https://id.example.com"}, {"client", "{ id: gateway, secret: env:NAME }"}} {
		if given[needed.key] == nil {
			d.problem(n, "add "+needed.key+": "+needed.hint, "%q has no %q", key, needed.key)
		}
	}
	if d.errors == before {
		d.serviceWhole(key, n, &o.Service, true, true)
		d.oidcWhole(key, n, o, given)
	}
	return o
}

// oidcKey reads one key.
func (d *decoder) oidcKey(key string, k, v ast.Node, o *OIDC) bool {
	switch key {
	case "issuer":
		d.oidcIssuer(key, v, &o.URL)
	case "client":
		d.introspectClient(key, v, &o.Client)
	case "scopes":
		d.oidcScopes(key, v, &o.Ask)
	case "callback":
		d.oidcPath(key, v, &o.Paths.Callback)
	case "logout":
		d.oidcPath(key, v, &o.Paths.Logout)
	case "backchannel_logout":
		if d.oidcPath(key, v, &o.Paths.Backchannel); o.Paths.Backchannel == "off" {
			o.Paths.Backchannel = ""
		}
	case "after_logout":
		var s string
		if d.text(key, v, &s); strings.HasPrefix(s, "/") {
			d.oidcPath(key, v, &o.Paths.AfterLogout)
		} else if s != "" {
			d.url(key, v, "https http", &o.Paths.AfterLogout)
		}
	case "cookie":
		d.oidcCookie(key, v, o)
	case "idle":
		d.durationUpTo(key, v, minOIDCIdle, maxOIDCIdle, &o.Idle)
	case "lifetime":
		d.durationUpTo(key, v, minOIDCIdle, maxOIDCLifetime, &o.Life)
	case "refresh":
		d.boolean(key, v, &o.Refresh)
	case "userinfo":
		d.boolean(key, v, &o.User)
	case "sessions":
		d.oidcSessions(key, v, &o.Sessions)
	case "timeout", "calls", "on_error", "tls":
		return d.service(key, k, v, &o.Service)
	case "headers", "claims", "consumer", "tier", "tenant", "groups", "roles", "hide_credentials":
		return d.bearer(key, v, &o.Bearer)
	default:
		return false
	}
	return true
}

func (d *decoder) oidcIssuer(key string, n ast.Node, to *string) {
	var s string
	if d.url(key, n, "https http", &s); s == "" {
		return
	}
	if u, err := url.Parse(s); err != nil || u.RawQuery != "" || u.ForceQuery {
		d.problem(n, "", "an issuer has no query (OpenID Connect Discovery, 3)")
		return
	}
	*to = s
}

// oidcScopes reads what is asked for: openid always is (OpenID Connect Core, 3.1.2.1).
func (d *decoder) oidcScopes(key string, n ast.Node, to *[]string) {
	d.list(key, n, func(v ast.Node) {
		var s string
		switch {
		case !d.text(key, v, &s):
		case s == "" || len(s) > maxClaimBytes || !isGraphic(s) || strings.ContainsAny(s, `"\`):
			d.problem(v, "", "no scope is %q", clip(s))
		case slices.Contains(*to, s):
			d.problem(v, "", "%q has %q twice", key, s)
		case d.room(key, v, len(*to)):
			*to = append(*to, s)
		}
	})
	if *to != nil && !slices.Contains(*to, "openid") {
		d.problem(n, "add openid", "%q has no %q: without it nobody says who has logged in", key, "openid")
	}
}

// oidcPath reads a path as requests have it when it is in normal form. "off" may stand for none.
func (d *decoder) oidcPath(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	plain := !strings.HasPrefix(s, "/") || len(s) > maxPathBytes || strings.Contains(s, "//") || strings.Contains(s+"/", "/./") || strings.Contains(s+"/", "/../")
	for i := range len(s) {
		plain = plain || !strings.ContainsRune(wordBytes+"-._~/", rune(s[i]))
	}
	if plain && (s != "off" || key != "backchannel_logout") {
		d.problem(n, "", "%q is a path of letters, digits and -._~, not %q", key, clip(s))
		return
	}
	*to = s
}

func (d *decoder) oidcCookie(key string, n ast.Node, o *OIDC) {
	c := &o.Cookie
	before := d.errors
	ok := d.mapping(key, n, "name domain path same_site secure", func(key string, _, v ast.Node) bool {
		switch key {
		case "name":
			if d.text(key, v, &c.Name) && !isToken(c.Name) {
				d.problem(v, "", "%q is no name of a cookie", clip(c.Name))
			}
		case "domain":
			if d.text(key, v, &c.Domain) && (c.Domain == "" || len(c.Domain) > 253 || strings.Trim(strings.ToLower(c.Domain), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" ||
				strings.ContainsAny(c.Domain, ";, =") || !strings.Contains(c.Domain, ".")) {
				d.problem(v, "write example.com", "%q is no domain of a cookie", clip(c.Domain))
			}
		case "path":
			d.oidcPath(key, v, &c.Path)
		case "same_site":
			d.word(key, v, "lax none strict", &c.SameSite)
		case "secure":
			d.boolean(key, v, &c.Secure)
		default:
			return false
		}
		return true
	})
	if !ok || d.errors > before {
		return
	}
	name := strings.ToLower(c.Name)
	switch {
	case strings.HasPrefix(name, "__host-") && (!c.Secure || c.Path != "/" || c.Domain != ""):
		d.problem(n, "write name: session", "browsers refuse a cookie named %q that is not secure, has another path than /, or a domain", c.Name)
	case strings.HasPrefix(name, "__secure-") && !c.Secure:
		d.problem(n, "add secure: true", "browsers refuse a cookie of this name that is not secure")
	case c.SameSite == "none" && !c.Secure:
		d.problem(n, "add secure: true", "browsers refuse a cookie with %q that is not secure", "same_site: none")
	}
}

// oidcWhole judges what only the whole tells.
func (d *decoder) oidcWhole(key string, n ast.Node, o *OIDC, given map[string]ast.Node) {
	p := &o.Paths
	if p.Callback == p.Logout || p.Callback == p.Backchannel || p.Logout == p.Backchannel {
		d.problem(n, "", "%q, %q and %q of %q must be different paths", "callback", "logout", "backchannel_logout", key)
	}
	if p.AfterLogout == p.Logout || p.AfterLogout == p.Callback {
		at := given["after_logout"]
		if at == nil {
			at = n
		}
		d.problem(at, "", "%q leads to a path that %q answers itself", "after_logout", key)
	}
	if o.Idle > o.Life {
		d.problem(n, "", "%q is more than %q: a session would end before it can be idle so long", "idle", "lifetime")
	}
	if o.Sessions.Store == "redis" && o.Idle < minSharedIdle {
		d.problem(given["idle"], "", "%q is at least %s with store redis: nodes tell each other of uses now and then", "idle", formatDuration(minSharedIdle))
	}
	if !o.Cookie.Secure {
		d.warnAt(d.at(n), "secure: true", "whoever listens on the way to a browser gets its sessions")
	}
}

// checkLogins warns of policies whose callback no route that uses them can be asked for: nobody could log in.
func (l *loader) checkLogins() {
	covered := map[*Policy]bool{}
	at := map[*Policy]Pos{}
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		l.policies(r, func(u *Use, p *Policy) {
			for p := range p.logins {
				if _, known := at[p]; !known {
					at[p] = u.Pos
				}
				for j := range r.Matches {
					covered[p] = covered[p] || r.Matches[j].Path.mayMatch(p.OIDC.Paths.Callback)
				}
			}
		})
	}
	for p, pos := range at {
		if !covered[p] {
			l.warnAt(pos, fmt.Sprintf("add a route that uses it and matches %s", p.OIDC.Paths.Callback), "nobody can log in: no route that uses this policy is asked for %q", p.OIDC.Paths.Callback)
		}
	}
}

// logins gives the policy if it has people log in, and those of its own that do.
func (p *Policy) logins(yield func(*Policy) bool) {
	for one := range p.parts {
		if one.OIDC != nil && !yield(one) {
			return
		}
	}
}

// mayMatch says whether a request with that path can match. Of paths with parameters or patterns it is assumed.
func (p Path) mayMatch(path string) bool {
	switch p.Kind {
	case PathExact:
		return p.Value == path || strings.Contains(p.Value, "{")
	case PathPrefix:
		return strings.HasPrefix(path+"/", strings.TrimSuffix(p.Value, "/")+"/") || strings.Contains(p.Value, "{")
	}
	return true
}

func (w *dumper) oidc(o *OIDC) {
	w.block("oidc:", func() {
		w.line("issuer: %s", quote(o.URL))
		w.oauthClient(&o.Client)
		w.line("scopes: %s", quoteList(o.Ask))
		for _, at := range []struct{ key, value string }{{"callback", o.Paths.Callback}, {"logout", o.Paths.Logout}, {"after_logout", o.Paths.AfterLogout}} {
			w.line("%s: %s", at.key, quote(at.value))
		}
		if o.Paths.Backchannel == "" {
			w.line("backchannel_logout: off")
		} else {
			w.line("backchannel_logout: %s", quote(o.Paths.Backchannel))
		}
		w.block("cookie:", func() {
			w.line("name: %s", quote(o.Cookie.Name))
			if o.Cookie.Domain != "" {
				w.line("domain: %s", quote(o.Cookie.Domain))
			}
			w.line("path: %s", quote(o.Cookie.Path))
			w.line("same_site: %s", o.Cookie.SameSite)
			w.line("secure: %t", o.Cookie.Secure)
		})
		w.line("idle: %s", formatDuration(o.Idle))
		w.line("lifetime: %s", formatDuration(o.Life))
		w.line("refresh: %t", o.Refresh)
		w.line("userinfo: %t", o.User)
		w.oidcSessions(&o.Sessions)
		w.line("timeout: %s", formatDuration(o.Timeout))
		w.line("calls: %d", o.Calls)
		w.line("on_error: %s", o.OnError)
		if o.TLS != nil {
			w.block("tls:", func() { w.upstreamTLS(o.TLS) })
		}
		w.claimsOf(&o.Bearer)
	})
}
