package tls

import (
	"context"
	cryptotls "crypto/tls"
	"net"
	"time"
)

// ChallengeProtocol is what an authority offers by ALPN, alone, for the challenge tls-alpn-01: RFC 8737, section 6.2. A
// connection that agreed on it ends after the handshake.
const ChallengeProtocol = "acme-tls/1"

// Issuer gets certificates by name while the gateway runs. It is declared here to keep the protocol by which it does so out of
// this package.
type Issuer interface {
	// Cached gives the certificate for a name in any case that is at hand; nil: there is none. It neither blocks nor locks.
	Cached(name string) *cryptotls.Certificate
	// MayBlock says whether GetCertificate might wait for something.
	MayBlock(hello *cryptotls.ClientHelloInfo) bool
	// GetCertificate gets the certificate of a name, or of a challenge, or says why there is none.
	GetCertificate(ctx context.Context, hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error)
}

// Joined is the certificates of a listener: those of a Store, and those of an Issuer for names of which the Store has none of
// their own. It is immutable; what it joins changes beneath it. All methods may be called at any time by any goroutine.
type Joined struct {
	store    *Store
	issuer   Issuer
	fallback string // folded; "": the store's
	patience time.Duration
}

// defaultPatience is how long a handshake waits for an Issuer unless it is said.
const defaultPatience = 30 * time.Second

// Join gives both. fallback is the name whose certificate unknown names get, and clients that send none, as long as there is
// one; "" leaves that to the store. patience bounds the wait of a handshake for the issuer; 0: 30 s.
func Join(s *Store, i Issuer, fallback string, patience time.Duration) *Joined {
	j := &Joined{store: s, issuer: i, patience: patience}
	if patience <= 0 {
		j.patience = defaultPatience
	}
	var buf [maxName]byte
	if folded, ok := fold(fallback, &buf); ok {
		j.fallback = string(folded)
	}
	return j
}

// found is what is for a name: a choice of the store, or a certificate of the issuer, or neither.
type found struct {
	choice *choice
	cert   *cryptotls.Certificate
}

func (f found) is() bool { return f.choice != nil || f.cert != nil }

func (f found) pick(hello *cryptotls.ClientHelloInfo) *cryptotls.Certificate {
	if f.choice != nil {
		return f.choice.pick(hello)
	}
	return f.cert
}

// find gives what is for a name as it came from the network: the store's of that very name, the issuer's, that of a wildcard.
func (j *Joined) find(set *set, name string) found {
	var buf [maxName]byte
	folded, ok := fold(name, &buf)
	if !ok {
		return found{}
	}
	c, exact := set.find(folded)
	if exact {
		return found{choice: c}
	}
	if cert := j.issuer.Cached(name); cert != nil {
		return found{cert: cert}
	}
	return found{choice: c}
}

// unknown gives what is for names without a certificate.
func (j *Joined) unknown(set *set) found {
	if j.fallback != "" {
		if f := j.find(set, j.fallback); f.is() {
			return f
		}
	}
	return found{choice: set.fallback}
}

// pick gives the certificate for a handshake, or ErrUnrecognizedName. Only where the issuer may block is it asked through
// offload.
func (j *Joined) pick(hello *cryptotls.ClientHelloInfo, offload func(net.Conn, func())) (*cryptotls.Certificate, error) {
	set := j.store.set.Load()
	f := j.find(set, hello.ServerName)
	if !f.is() && j.issuer.MayBlock(hello) {
		f.cert = j.get(hello, offload)
	}
	if !f.is() {
		f = j.unknown(set)
	}
	if !f.is() {
		return nil, ErrUnrecognizedName
	}
	return f.pick(hello), nil
}

// get asks the issuer and waits. Why it has no certificate is in its status.
func (j *Joined) get(hello *cryptotls.ClientHelloInfo, offload func(net.Conn, func())) (cert *cryptotls.Certificate) {
	ask := func() {
		ctx := hello.Context()
		if ctx == nil { // of a ClientHelloInfo that no handshake made
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, j.patience)
		defer cancel()
		if got, err := j.issuer.GetCertificate(ctx, hello); err == nil {
			cert = got
		}
	}
	if offload == nil {
		ask()
	} else {
		offload(hello.Conn, ask)
	}
	return cert
}

// ServesName is as of Store, for both.
func (j *Joined) ServesName(serverName, host string) bool {
	if serverName == host && serverName != "" {
		return true
	}
	set := j.store.set.Load()
	a, b := j.find(set, serverName), j.find(set, host)
	if !a.is() {
		a = j.unknown(set)
	}
	if !b.is() {
		b = j.unknown(set)
	}
	switch {
	case !a.is() || !b.is():
		return false
	case a.cert != nil || b.cert != nil:
		return a.cert == b.cert
	}
	return a.choice == b.choice || b.choice.includes(a.choice)
}

// challengeConfig gives the configuration for the challenge tls-alpn-01, nil for other handshakes. The authority has no
// certificate to show, gets no ticket, and is told nothing else.
func challengeConfig(j *Joined, offload func(net.Conn, func())) func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
	config := &cryptotls.Config{
		MinVersion:             cryptotls.VersionTLS12,
		CipherSuites:           suites(),
		CurvePreferences:       curves(),
		NextProtos:             []string{ChallengeProtocol},
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
			return j.get(hello, offload), nil
		},
	}
	return func(hello *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol {
			return config, nil
		}
		return nil, nil
	}
}
