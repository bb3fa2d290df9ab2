package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	siteName       = "localhost" // the name that the certificate is for, asked for by SNI and Host
	certificateDay = 24 * time.Hour

	// What every TLS connection must come to, so that all proxies do the same work.
	wantedVersion  = cryptotls.VersionTLS13
	wantedSuite    = cryptotls.TLS_AES_128_GCM_SHA256
	wantedExchange = cryptotls.X25519
)

// opensslConfig binds a load generator that uses OpenSSL: with a proxy that wants anything else there is no connection.
const opensslConfig = `openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = client
[client]
MinProtocol = TLSv1.3
MaxProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
`

// identity is the certificate that all proxies serve. It is never changed.
type identity struct {
	certificate string // PEM file
	key         string // PEM file
	both        string // PEM file with both
	openssl     string // configuration of the generators that use OpenSSL
	leaf        []byte // DER
}

// makeIdentity writes a self-signed ECDSA P-256 certificate to dir. Its key is worth nothing: it lives as long as the folder.
func makeIdentity(dir string) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("cannot make a key: %w", err)
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: siteName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(90 * certificateDay),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{siteName},
		IPAddresses:           []net.IP{net.ParseIP(loopback)},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return identity{}, fmt.Errorf("cannot make a certificate: %w", err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, fmt.Errorf("cannot encode the key: %w", err)
	}
	certificatePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes})
	made := identity{
		certificate: filepath.Join(dir, "site.pem"),
		key:         filepath.Join(dir, "site.key"),
		both:        filepath.Join(dir, "site-with-key.pem"),
		openssl:     filepath.Join(dir, "openssl.cnf"),
		leaf:        leaf,
	}
	for path, text := range map[string][]byte{
		made.certificate: certificatePEM,
		made.key:         keyPEM,
		made.both:        append(bytes.Clone(certificatePEM), keyPEM...),
		made.openssl:     []byte(opensslConfig),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return identity{}, fmt.Errorf("cannot write the certificate: %w", err)
		}
	}
	return made, nil
}

// readLeaf is the certificate in a PEM file, as the load generators get it.
func readLeaf(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("cannot find a certificate in %q", path)
	}
	return block.Bytes, nil
}

// clientConfig accepts only connections that do the work that is to be measured: on all others the handshake fails.
// It asks for session tickets, as browsers do, and drops them.
func (w wire) clientConfig(leaf []byte) *cryptotls.Config {
	return &cryptotls.Config{
		ServerName:         siteName,
		MinVersion:         wantedVersion,
		CurvePreferences:   []cryptotls.CurveID{wantedExchange},
		NextProtos:         []string{w.protocol()},
		ClientSessionCache: noTicket{},
		// Instead of a chain, the certificate itself is compared: cheaper for the generator, and stricter.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state cryptotls.ConnectionState) error { return w.checkNegotiated(state, leaf) },
	}
}

// checkNegotiated tells what in a connection is other work than that of the rest.
func (w wire) checkNegotiated(state cryptotls.ConnectionState, leaf []byte) error {
	var problems []error
	differ := func(what, got, want string) {
		if got != want {
			problems = append(problems, fmt.Errorf("wrong work: %s %q, want %q", what, got, want))
		}
	}
	differ("TLS version", cryptotls.VersionName(state.Version), cryptotls.VersionName(wantedVersion))
	differ("cipher", cryptotls.CipherSuiteName(state.CipherSuite), cryptotls.CipherSuiteName(wantedSuite))
	differ("key exchange", state.CurveID.String(), wantedExchange.String())
	differ("protocol", state.NegotiatedProtocol, w.protocol())
	if state.HelloRetryRequest {
		problems = append(problems, errors.New("wrong work: the handshake took one more round trip"))
	}
	if len(state.PeerCertificates) != 1 || !bytes.Equal(state.PeerCertificates[0].Raw, leaf) {
		problems = append(problems, fmt.Errorf("wrong work: %d certificates that are not the bench's one", len(state.PeerCertificates)))
	}
	return errors.Join(problems...)
}

// noTicket takes session tickets and never shows one, so that each handshake is a full one.
type noTicket struct{}

func (noTicket) Get(string) (*cryptotls.ClientSessionState, bool) { return nil, false }
func (noTicket) Put(string, *cryptotls.ClientSessionState)        {}
