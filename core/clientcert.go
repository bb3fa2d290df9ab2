package core

import "strings"

// Identity is who a client has proved to be, by a certificate that was verified. Immutable.
type Identity struct {
	Subject     string   // as RFC 4514 writes it
	CommonName  string   // of the subject
	Names       []string // alternative names: DNS names in lower case, URIs, mail addresses, addresses
	Fingerprint string   // SHA-256 of the certificate, in lower-case hexadecimal
}

// ClientCert says whose certificate a route accepts: those in any of its sets; if there are none, everybody's that was verified. Immutable.
type ClientCert struct {
	Subjects, Names, Fingerprints map[string]bool // as in Identity
}

// accepts says whether id is one of those.
func (c *ClientCert) accepts(id *Identity) bool {
	if len(c.Subjects)+len(c.Names)+len(c.Fingerprints) == 0 || c.Subjects[id.Subject] || c.Fingerprints[id.Fingerprint] {
		return true
	}
	for _, name := range id.Names {
		if c.Names[name] {
			return true
		}
	}
	return false
}

// check refuses x without a certificate that the route accepts. Where the client was not asked for one, and would be on a
// new connection, it is told to make one (RFC 9110, 15.5.20).
func (c *ClientCert) check(x *Exchange) *Error {
	t := x.Client.TLS
	switch {
	case t == nil:
		return ErrClientCert
	case t.Identity != nil:
		if c.accepts(t.Identity) {
			return nil
		}
		return ErrClientCertDenied
	case t.Names != nil && t.Names.AsksCert(t.ServerName):
		return ErrClientCert // it was asked, and had none
	}
	if now := x.Listener.Names; now != nil && now.AsksCert(strings.ToLower(string(HostOf(x.Request.Host())))) {
		return ErrClientCertElsewhere
	}
	return ErrClientCert
}
