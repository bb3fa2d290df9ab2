package redis

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/limits"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// sign makes a certificate of the authority; the first is its own.
func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue writes name.pem and name.key, good for this host on either side, and gives them as a client needs them.
func (a *authority) issue(name string) cryptotls.Certificate {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", cert.Raw)
	a.write(name+".key", "PRIVATE KEY", der)
	return cryptotls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// encrypted are the arguments of a server that is spoken with by TLS alone, by those with a certificate of a.
func (a *authority) encrypted(port string) []string {
	file := func(name string) string { return filepath.Join(a.dir, name) }
	return []string{"--port", "0", "--tls-port", port, "--tls-cert-file", file("server.pem"), "--tls-key-file", file("server.key"),
		"--tls-ca-cert-file", file("ca.pem"), "--tls-auth-clients", "yes"}
}

// TestEncrypted speaks by TLS with a Redis that asks for certificates. One that is not whom the client trusts, and one that does not trust
// the client, are away, and why is told.
func TestEncrypted(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	ours.issue("server")
	mine, foreign := ours.issue("client"), others.issue("client")
	s := newServer(t)
	s.kill()
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append(s.args, ours.encrypted(port)...)
	s.start()
	trusting := &cryptotls.Config{RootCAs: ours.pool(), Certificates: []cryptotls.Certificate{mine}}
	takesBoth(t, s.client(func(x *Spec) { x.TLS, x.Timeout = trusting, time.Second }))
	// A handshake may take longer than anybody waits for an answer.
	c := s.client(func(x *Spec) { x.TLS, x.Timeout = trusting, 50*time.Millisecond })
	s.kill()
	await(t, func() bool {
		_, err := c.Take([]*Buckets{buckets(t, c, "b", hourly(1, limits.TokenBucket))}, []limits.Ask{{Cost: 1}})
		return err != nil && c.Away()
	}, "it is there when it is killed")
	s.start()
	await(t, func() bool { return !c.Away() }, "it does not come back")

	f := func(name, want string, tls *cryptotls.Config) {
		t.Helper()
		c, err := New(Spec{Addresses: []string{s.addr}, Mode: Single, TLS: tls, Timeout: time.Second, Clock: wall, Log: newLog()})
		if err != nil {
			t.Fatal(err)
		}
		c.Start()
		defer c.Close()
		await(t, func() bool { return c.Status().Problem != "" }, name+" is no problem")
		if got := c.Status(); !c.Away() || !strings.Contains(got.Problem, want) {
			t.Errorf("%s: %+v, want away, and %q", name, got, want)
		}
		b := buckets(t, c, "b", hourly(1, limits.TokenBucket))
		if _, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}}); err != ErrAway {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("another authority", "signed by unknown authority", &cryptotls.Config{RootCAs: others.pool(), Certificates: []cryptotls.Certificate{mine}})
	f("another name", "valid for", &cryptotls.Config{RootCAs: ours.pool(), Certificates: []cryptotls.Certificate{mine}, ServerName: "redis.example"})
	f("no certificate of the client", "", &cryptotls.Config{RootCAs: ours.pool()})
	f("a certificate of another authority", "", &cryptotls.Config{RootCAs: ours.pool(), Certificates: []cryptotls.Certificate{foreign}})
	f("no TLS", "", nil)
}
