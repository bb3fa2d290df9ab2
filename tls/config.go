package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"net"
)

// ServerOptions are what the connections of one listener, or of some names of it, have in common.
type ServerOptions struct {
	Store *Store
	// Joined, unless nil, has Store in it and is asked in its place.
	Joined *Joined
	// Challenges answers the challenge tls-alpn-01 with what Joined's Issuer has for it.
	Challenges bool
	// MinVersion is "1.2", the default, or "1.3".
	MinVersion string
	// Ciphers are the names, at IANA, of the cipher suites of TLS 1.2 that are agreed to; none: all that have forward secrecy and
	// authenticated encryption, of which they must be.
	Ciphers []string
	// ALPN are the protocols offered, the preferred first. A client that offers only others is refused, RFC 7301, section 3.2.
	ALPN []string
	// ClientAuth is "none", the default, "optional": a certificate that is sent must be valid, or "require". The latter two
	// need Clients.
	ClientAuth string
	Clients    *ClientTrust
	// Tickets lets sessions be resumed; nil: they are not.
	Tickets *TicketKeys
	// TicketScope keeps tickets of configurations apart that share Tickets. Where names differ in what they want of clients,
	// each needs its own, or a session made under one name is resumed under another.
	TicketScope string
	// Policies are configurations for some names, made by NewServerConfig too, which hold for them in the place of this one. The tickets
	// of each need a scope of their own. nil: there are none.
	Policies *NameTable[*cryptotls.Config]
	// Offload runs f, elsewhere if it likes, and returns when f has returned. RSA signatures are made through it, on behalf of
	// the connection that does the handshake; the others take less than handing over. So is waited for an Issuer. nil: inline.
	// If f is not run the handshake fails.
	Offload func(conn net.Conn, f func())
}

// NewServerConfig makes a configuration, which is not to be cloned: ticket keys rotate in this one. TLS 1.3 early data is not
// accepted, since it can be replayed, and there is no renegotiation: crypto/tls has neither for servers.
func NewServerConfig(o ServerOptions) (*cryptotls.Config, error) {
	version, err := minVersion(o.MinVersion)
	if err != nil {
		return nil, err
	}
	if err := checkALPN(o.ALPN); err != nil {
		return nil, err
	}
	ciphers, err := chosen(o.Ciphers)
	if err != nil {
		return nil, err
	}
	if o.Store == nil {
		return nil, errors.New("cannot serve TLS without certificates")
	}
	c := &cryptotls.Config{
		MinVersion:             version,
		CipherSuites:           ciphers,
		CurvePreferences:       curves(),
		NextProtos:             append([]string(nil), o.ALPN...),
		GetCertificate:         getCertificate(&o),
		SessionTicketsDisabled: o.Tickets == nil,
	}
	if o.Challenges {
		if o.Joined == nil {
			return nil, errors.New("cannot answer challenges without an issuer")
		}
	}
	c.GetConfigForClient = configForClient(&o)
	switch o.ClientAuth {
	case "", "none":
		if o.Clients != nil {
			return nil, errors.New("cannot verify client certificates that are not asked for")
		}
	case "optional":
		c.ClientAuth = cryptotls.VerifyClientCertIfGiven
	case "require":
		c.ClientAuth = cryptotls.RequireAndVerifyClientCert
	default:
		return nil, fmt.Errorf("cannot use client authentication %q: it is neither none, optional nor require", o.ClientAuth)
	}
	if c.ClientAuth != cryptotls.NoClientCert {
		if o.Clients == nil {
			return nil, errors.New("cannot verify client certificates without authorities")
		}
		c.ClientCAs = o.Clients.pool
	}
	// Unlike VerifyPeerCertificate it is called for resumed connections too: who was revoked since is not let in by his ticket.
	c.VerifyConnection = func(state cryptotls.ConnectionState) error {
		if o.Clients != nil {
			if err := o.Clients.check(state); err != nil {
				return err
			}
		}
		if o.Tickets != nil {
			o.Tickets.count(state.DidResume)
		}
		return nil
	}
	if o.Tickets != nil {
		if err := o.Tickets.bind(c, o.TicketScope); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// configForClient gives what chooses between configurations by the ClientHello: a challenge's, a policy's, else, with nil, this one.
func configForClient(o *ServerOptions) func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
	policies := o.Policies
	if !o.Challenges {
		if policies == nil {
			return nil
		}
		return func(hello *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
			policy, _ := policies.Find(hello.ServerName)
			return policy, nil
		}
	}
	challenge := challengeConfig(o.Joined, o.Offload)
	return func(hello *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
		c, err := challenge(hello)
		if c == nil && err == nil && policies != nil {
			c, _ = policies.Find(hello.ServerName)
		}
		return c, err
	}
}

// getCertificate turns a refusal into what crypto/tls answers with unrecognized_name: no certificate and no error.
func getCertificate(o *ServerOptions) func(*cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	store, joined, offload := o.Store, o.Joined, o.Offload
	return func(hello *cryptotls.ClientHelloInfo) (cert *cryptotls.Certificate, err error) {
		if joined != nil {
			cert, err = joined.pick(hello, offload)
		} else {
			cert, err = store.Pick(hello)
		}
		switch {
		case errors.Is(err, ErrUnrecognizedName):
			return nil, nil
		case err != nil:
			return nil, err
		case offload == nil:
			return cert, nil
		}
		return offloaded(cert, hello.Conn, offload), nil
	}
}
