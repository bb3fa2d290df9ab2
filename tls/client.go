package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// maxSessions is the most sessions of one upstream that are kept; each takes some KiB with the certificates in it.
const maxSessions = 10_000

// ClientOptions are how one upstream is spoken to.
type ClientOptions struct {
	// CAFile, or the text itself in CAPEM, are the authorities that may vouch for the upstream; neither: those that the system
	// trusts.
	CAFile, CAPEM string
	// ServerName is sent to the upstream and must stand in its certificate. "": the caller sets it in a clone for each endpoint.
	ServerName string
	// PinnedSPKI are SHA-256 sums of public keys in base64, RFC 7469, section 2.4. If there are any, one must be in the verified
	// chain, or, where nothing is verified, be the upstream's own.
	PinnedSPKI []string
	// Store holds the certificate that is shown where the upstream asks for one: its default. Made with Options.Client.
	Store *Store
	// MinVersion is "1.2", the default, or "1.3".
	MinVersion string
	ALPN       []string
	// InsecureSkipVerify believes everybody, unless pinned.
	InsecureSkipVerify bool
	// Sessions is how many sessions are kept to be resumed, at most 10,000; 0: none.
	Sessions int
}

// NewClientConfig makes a configuration for connections to upstreams. Its clones share its sessions.
func NewClientConfig(o ClientOptions) (*cryptotls.Config, []Warning, error) {
	version, err := minVersion(o.MinVersion)
	if err != nil {
		return nil, nil, err
	}
	if err := checkALPN(o.ALPN); err != nil {
		return nil, nil, err
	}
	pins, err := pinned(o.PinnedSPKI)
	if err != nil {
		return nil, nil, err
	}
	if o.Sessions < 0 || o.Sessions > maxSessions {
		return nil, nil, fmt.Errorf("cannot keep %d sessions: it must be 0 to %d", o.Sessions, maxSessions)
	}
	trusted, err := authorities(o.CAFile, o.CAPEM)
	if err != nil {
		return nil, nil, err
	}
	if o.InsecureSkipVerify && trusted != nil {
		return nil, nil, errors.New("cannot verify by authorities and skip verification")
	}
	c := &cryptotls.Config{
		MinVersion:         version,
		CipherSuites:       suites(),
		CurvePreferences:   curves(),
		NextProtos:         append([]string(nil), o.ALPN...),
		ServerName:         o.ServerName,
		InsecureSkipVerify: o.InsecureSkipVerify,
		Renegotiation:      cryptotls.RenegotiateNever,
	}
	if trusted != nil {
		c.RootCAs = x509.NewCertPool()
		for _, a := range trusted {
			c.RootCAs.AddCert(a)
		}
	}
	if o.Sessions > 0 {
		c.ClientSessionCache = cryptotls.NewLRUClientSessionCache(o.Sessions)
	}
	if len(pins) > 0 {
		c.VerifyConnection = func(state cryptotls.ConnectionState) error { return checkPins(pins, state) }
	}
	if o.Store != nil {
		c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
			if cert := o.Store.Lookup(""); cert != nil {
				return cert, nil
			}
			return &cryptotls.Certificate{}, nil // says that there is none
		}
	}
	var warnings []Warning
	if o.InsecureSkipVerify && len(pins) == 0 {
		warnings = append(warnings, Warning{-1, "", Unchecked, "the upstream's certificate is NOT VERIFIED: whoever stands between can read and change everything"})
	}
	return c, warnings, nil
}

func pinned(texts []string) (map[string]bool, error) {
	pins := map[string]bool{}
	for _, p := range texts {
		if b, err := base64.StdEncoding.Strict().DecodeString(p); err != nil || len(b) != 32 {
			return nil, fmt.Errorf("cannot use pin %.60q: it is not the SHA-256 of a public key in base64", p)
		}
		pins[p] = true
	}
	return pins, nil
}

// checkPins runs for resumed connections too: crypto/tls keeps the certificates with the session.
func checkPins(pins map[string]bool, state cryptotls.ConnectionState) error {
	for _, chain := range state.VerifiedChains {
		for _, c := range chain {
			if pins[spki(c)] {
				return nil
			}
		}
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("the upstream showed no certificate")
	}
	// Of what is unverified only the first is proved: by the handshake's signature. Anybody can send the rest.
	if own := spki(state.PeerCertificates[0]); !pins[own] {
		return fmt.Errorf("the upstream's public key %s is not pinned, nor is another of its chain", own)
	}
	return nil
}
