package config

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	acmeKeys           = "email directory ca agree names storage challenges on_demand external_account"
	acmeChallenges     = "http-01 tls-alpn-01"
	defaultACMEStorage = "/var/lib/sluice/acme"
	maxACMENames       = 10_000
	maxEmailBytes      = 254
	maxURLBytes        = 2048
	maxHMACBytes       = 1 << 10
)

// ACME is how certificates are got from an authority, RFC 8555. That its terms are agreed to is written, or it is refused.
type ACME struct {
	Pos             Pos
	Email           string           // contact of the account
	Directory       string           // https URL of the authority's directory
	CA              string           // file with the authorities that vouch for the directory; "": those that the system trusts
	Names           []string         // get a certificate each; in lower case, without last dot; none: those on demand only
	Storage         string           // folder of account, keys and certificates; /var/lib/sluice/acme
	HTTP01          bool             // a challenge that listeners without tls answer; true
	TLSALPN01       bool             // one that this listener answers; true
	OnDemand        *OnDemand        // nil: certificates are got for Names only
	ExternalAccount *ExternalAccount // nil: the authority asks for none
}

// OnDemand says which names get a certificate when a client asks for them. Either is given.
type OnDemand struct {
	Allow []string // names, and *.name for one label before it
	Ask   string   // http or https URL that answers ?domain=NAME with 200
}

// ExternalAccount binds the ACME account to one that the authority knows, RFC 8555, section 7.3.4.
type ExternalAccount struct {
	KeyID string
	HMAC  Secret // base64url without padding
}

func (d *decoder) acme(key string, n ast.Node, t *TLS) {
	a := &ACME{Pos: d.at(n), Storage: defaultACMEStorage, HTTP01: true, TLSALPN01: true}
	agreed := false
	given := map[string]bool{}
	ok := d.mapping(key, n, acmeKeys, func(key string, _, v ast.Node) bool {
		given[key] = true
		switch key {
		case "email":
			d.email(key, v, &a.Email)
		case "directory":
			d.url(key, v, "https", &a.Directory)
		case "ca":
			if d.text(key, v, &a.CA) {
				a.CA = d.relative(a.CA)
			}
		case "agree":
			d.boolean(key, v, &agreed)
		case "names":
			d.domains(key, v, false, &a.Names)
		case "storage":
			if d.text(key, v, &a.Storage); a.Storage == "" {
				d.problem(v, "leave it out for "+defaultACMEStorage, "%q names no folder", key)
			}
			a.Storage = d.relative(a.Storage)
		case "challenges":
			d.challenges(key, v, a)
		case "on_demand":
			d.onDemand(key, v, a)
		case "external_account":
			d.externalAccount(key, v, a)
		default:
			return false
		}
		return true
	})
	if ok {
		d.checkACME(key, n, given, agreed)
	}
	t.ACME = a
}

// checkACME finds what must be said and was not.
func (d *decoder) checkACME(key string, n ast.Node, given map[string]bool, agreed bool) {
	switch {
	case !given["directory"]:
		d.problem(n, "add directory: https://authority.example/directory", "%q has no %q: no authority is asked unless it is named", key, "directory")
	case !given["email"]:
		d.problem(n, "add email: ops@example.com", "%q has no %q for the account", key, "email")
	case !agreed:
		d.problem(n, "read them, then add agree: true", "%q does not say that you agree to the terms of the authority", key)
	case !given["names"] && !given["on_demand"]:
		d.problem(n, "add names: [www.example.com]", "%q has neither %q nor %q", key, "names", "on_demand")
	}
}

// email reads one address, as it may stand in a mailto URL with nothing else (RFC 8555, 7.3).
func (d *decoder) email(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	user, domain, found := strings.Cut(s, "@")
	strange := strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`,;:?&#%<>()[]"\/`, r) })
	if !found || user == "" || strange || len(s) > maxEmailBytes || domainProblem(strings.ToLower(domain)) != "" {
		d.problem(n, "ops@example.com", "%q must be an email address, not %q", key, clip(s))
		return
	}
	*to = s
}

// url reads an absolute URL with one of the schemes, without user and fragment.
func (d *decoder) url(key string, n ast.Node, schemes string, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	u, err := url.Parse(s)
	hint := ""
	switch {
	case err != nil || u.Hostname() == "" || len(s) > maxURLBytes:
		hint = strings.Fields(schemes)[0] + "://host/path"
	case !strings.Contains(" "+schemes+" ", " "+u.Scheme+" "):
		hint = "it must begin with " + strings.ReplaceAll(schemes, " ", ":// or ") + "://"
	case u.User != nil || u.Fragment != "":
		hint = "leave out user and fragment"
	default:
		*to = s
		return
	}
	if err != nil { // a password may stand in it
		d.problem(n, hint, "%q is no URL", key)
		return
	}
	d.problem(n, hint, "%q cannot be %q", key, clip(u.Redacted()))
}

// domains reads names that an authority could certify; with wild, *. may stand before them.
func (d *decoder) domains(key string, n ast.Node, wild bool, to *[]string) {
	seen := map[string]Pos{}
	d.list(key, n, func(v ast.Node) {
		var name string
		if !d.text(key, v, &name) {
			return
		}
		bare := name
		if wild {
			bare = strings.TrimPrefix(name, "*.")
		}
		first, twice := seen[name]
		switch hint := domainProblem(bare); {
		case hint != "":
			d.problem(v, hint, "%q cannot have a certificate from an authority", clip(name))
		case twice:
			d.problem(v, "", "%q is given twice; first at %s", clip(name), first)
		case len(*to) == maxACMENames:
			d.problem(v, "", "%q has more than %d names", key, maxACMENames)
		default:
			seen[name] = d.at(v)
			*to = append(*to, name)
		}
	})
}

// domainProblem says how to write a domain name that an authority could certify.
func domainProblem(name string) string {
	switch _, err := netip.ParseAddr(strings.Trim(name, "[]")); {
	case err == nil:
		return "addresses get no certificate here"
	case strings.HasPrefix(name, "*."):
		return "a wildcard needs the challenge dns-01, which is not spoken here: list the names"
	case strings.Contains(name, "_"):
		return "no certificate has an underscore in a name"
	}
	return hostProblem(name)
}

func (d *decoder) challenges(key string, n ast.Node, a *ACME) {
	a.HTTP01, a.TLSALPN01 = false, false
	d.list(key, n, func(v ast.Node) {
		var name string
		d.word(key, v, acmeChallenges, &name)
		switch name {
		case "http-01":
			a.HTTP01 = true
		case "tls-alpn-01":
			a.TLSALPN01 = true
		}
	})
}

func (a *ACME) challenges() (names []string) {
	if a.HTTP01 {
		names = append(names, "http-01")
	}
	if a.TLSALPN01 {
		names = append(names, "tls-alpn-01")
	}
	return names
}

func (d *decoder) onDemand(key string, n ast.Node, a *ACME) {
	o := &OnDemand{}
	given := 0
	ok := d.mapping(key, n, "allow ask", func(key string, _, v ast.Node) bool {
		switch key {
		case "allow":
			d.domains(key, v, true, &o.Allow)
		case "ask":
			d.url(key, v, "http https", &o.Ask)
		default:
			return false
		}
		given++
		return true
	})
	if ok && given != 1 {
		d.problem(n, `write allow: ["*.example.com"] or ask: http://127.0.0.1:9000/may`, "%q needs either %q or %q: anybody could make the gateway ask for any name", key, "allow", "ask")
	}
	a.OnDemand = o
}

func (d *decoder) externalAccount(key string, n ast.Node, a *ACME) {
	e := &ExternalAccount{}
	given := 0
	ok := d.mapping(key, n, "kid hmac", func(key string, _, v ast.Node) bool {
		given++
		switch key {
		case "kid":
			if d.text(key, v, &e.KeyID) && e.KeyID == "" {
				d.problem(v, "", "%q is empty", key)
			}
		case "hmac":
			if !d.secret(key, v, maxHMACBytes, &e.HMAC) {
				return true
			}
			d.confidential(v, key, &e.HMAC)
			if b, err := base64.RawURLEncoding.DecodeString(e.HMAC.Reveal()); err != nil || len(b) == 0 {
				d.problem(v, "as the authority gave it", "%q is no base64url without padding", key)
			}
		default:
			given--
			return false
		}
		return true
	})
	if ok && given != 2 {
		d.problem(n, "add kid: ID and hmac: env:NAME", "%q needs %q and %q", key, "kid", "hmac")
	}
	a.ExternalAccount = e
}

// checkChallenges finds challenges that no listener answers. Something before the gateway may, so they are not refused.
func (l *loader) checkChallenges() {
	plain := false
	for i := range l.cfg.Listeners {
		plain = plain || l.cfg.Listeners[i].TLS == nil && l.cfg.Listeners[i].Protocols.H1
	}
	for i := range l.cfg.Listeners {
		t := l.cfg.Listeners[i].TLS
		if t != nil && t.ACME != nil && t.ACME.HTTP01 && !t.ACME.TLSALPN01 && !plain {
			l.warnAt(t.ACME.Pos, `add a listener with bind: ":80"`, "no listener without %q could answer the challenge http-01", "tls")
		}
	}
}

func (w *dumper) acme(a *ACME) {
	w.line("email: %s", quote(a.Email))
	w.line("directory: %s", quote(a.Directory))
	if a.CA != "" {
		w.line("ca: %s", quote(a.CA))
	}
	w.line("agree: true")
	if len(a.Names) > 0 {
		w.line("names: %s", quoteList(a.Names))
	}
	w.line("storage: %s", quote(a.Storage))
	w.line("challenges: %s", quoteList(a.challenges()))
	switch o := a.OnDemand; {
	case o == nil:
	case o.Ask != "":
		w.line("on_demand: { ask: %s }", w.url(o.Ask))
	default:
		w.line("on_demand: { allow: %s }", quoteList(o.Allow))
	}
	if e := a.ExternalAccount; e != nil {
		w.line("external_account: { kid: %s, hmac: %s }", quote(e.KeyID), w.secret(e.HMAC))
	}
}
