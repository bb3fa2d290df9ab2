package config

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// ClientCert says whose certificates a route accepts: those in any of its lists; if all are empty, everybody's that the
// listener has verified.
type ClientCert struct {
	Pos          Pos
	Subjects     []string // as RFC 4514 writes them: CN=api,O=Example
	Names        []string // alternative names: DNS names in lower case, URIs, mail addresses, addresses
	Fingerprints []string // SHA-256 of certificates, in lower-case hexadecimal
}

// maxIdentities bounds each list.
const maxIdentities = 10_000

// clientCert reads the word required, or a map of lists.
func (d *decoder) clientCert(key string, n ast.Node, r *Route) {
	if n = d.resolve(n); n == nil {
		return
	}
	c := &ClientCert{Pos: d.at(n)}
	if _, word := n.(*ast.StringNode); word {
		var s string
		if d.word(key, n, "required", &s); s != "" {
			r.ClientCert = c
		}
		return
	}
	r.ClientCert = c
	before := d.errors
	ok := d.mapping(key, n, "subjects names fingerprints", func(key string, _, v ast.Node) bool {
		switch key {
		case "subjects":
			d.identities(key, v, &c.Subjects, func(s string) (string, string) { return s, "" })
		case "names":
			d.identities(key, v, &c.Names, alternativeName)
		case "fingerprints":
			d.identities(key, v, &c.Fingerprints, fingerprint)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && len(c.Subjects)+len(c.Names)+len(c.Fingerprints) == 0 {
		d.problem(n, "client_cert: required", "%q names nobody", key)
	}
}

// identities reads a list; canonical gives the form in which an entry is compared, or says what is wrong with it.
func (d *decoder) identities(key string, n ast.Node, to *[]string, canonical func(string) (form, wrong string)) {
	d.list(key, n, func(v ast.Node) {
		var s string
		if !d.text(key, v, &s) {
			return
		}
		form, wrong := canonical(s)
		switch {
		case s == "" || len(s) > maxPathBytes || hasControl(s):
			d.problem(v, "", "no certificate can have %q in %q", clip(s), key)
		case wrong != "":
			d.problem(v, wrong, "no certificate can have %q in %q", clip(s), key)
		case len(*to) == maxIdentities:
			d.problem(v, "", "%q has more than %d entries", key, maxIdentities)
		default:
			*to = append(*to, form)
		}
	})
}

// alternativeName folds a DNS name. A wildcard would be compared as it is written, which is hardly what is meant.
func alternativeName(s string) (form, wrong string) {
	if strings.ContainsAny(s, ":@/") {
		return s, ""
	}
	if strings.Contains(s, "*") {
		return "", "names are compared whole: write each"
	}
	return strings.ToLower(s), ""
}

// fingerprint takes hexadecimal digits, in pairs with colons between them if you like.
func fingerprint(s string) (form, wrong string) {
	form = strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(form); err != nil || len(b) != 32 {
		return "", "openssl x509 -noout -fingerprint -sha256 -in client.pem"
	}
	return form, ""
}

// checkClientCerts refuses routes that want certificates for which no client is asked.
func (l *loader) checkClientCerts() {
	asking := make([]bool, len(l.cfg.Listeners))
	for i := range l.cfg.Listeners {
		t := l.cfg.Listeners[i].TLS
		if t == nil {
			continue
		}
		asking[i] = t.ClientAuth != nil
		for j := range t.Policies {
			asking[i] = asking[i] || t.Policies[j].ClientAuth != nil
		}
	}
	for i := range l.cfg.Routes {
		if r := &l.cfg.Routes[i]; r.ClientCert != nil && !l.names[i].partial && !l.anyAsks(r, asking) {
			l.problemAt(r.ClientCert.Pos, "add client_auth: { ca: clients.pem } to the listener's tls, or to one of its policies",
				"no listener of this route asks clients for certificates")
		}
	}
}

func (l *loader) anyAsks(r *Route, asking []bool) bool {
	for i := range r.Matches {
		names := r.Matches[i].Listeners()
		for j := range asking {
			if asking[j] && len(names) == 0 {
				return true
			}
		}
		for _, name := range names {
			if j, ok := l.listeners[name]; ok && asking[j] {
				return true
			}
		}
	}
	return false
}

func (w *dumper) clientCert(c *ClientCert) {
	var lists []string
	for _, list := range []struct {
		key    string
		values []string
	}{{"subjects", c.Subjects}, {"names", c.Names}, {"fingerprints", c.Fingerprints}} {
		if len(list.values) > 0 {
			lists = append(lists, fmt.Sprintf("%s: %s", list.key, quoteList(list.values)))
		}
	}
	if len(lists) == 0 {
		w.line("client_cert: required")
		return
	}
	w.line("client_cert: { %s }", strings.Join(lists, ", "))
}
