package tls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/leak"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 10 * time.Second

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// keyRing is keys that tests share, since an RSA key takes long to make.
type keyRing struct{ p256, p256b, p384, rsa2048, rsa1024 crypto.Signer }

var ring = sync.OnceValue(func() keyRing {
	must := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return k
	}
	ec := func(c elliptic.Curve) crypto.Signer { k, err := ecdsa.GenerateKey(c, rand.Reader); return must(k, err) }
	rs := func(bits int) crypto.Signer { k, err := rsa.GenerateKey(rand.Reader, bits); return must(k, err) }
	return keyRing{ec(elliptic.P256()), ec(elliptic.P256()), ec(elliptic.P384()), rs(2048), rs(1024)}
})

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	text string
}

// issued is a certificate with its chain and key.
type issued struct {
	cert          *x509.Certificate
	text, keyText string // the certificate's text has the chain where there is one
	pair          cryptotls.Certificate
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	c = sign(t, c, nil, key, key)
	return &authority{c, key, encode("CERTIFICATE", c.Raw)}
}

// sign fills in what the template leaves open; parent nil: self-signed.
func sign(t testing.TB, c, parent *x509.Certificate, own crypto.Signer, by crypto.Signer) *x509.Certificate {
	t.Helper()
	c.SerialNumber, _ = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(90 * 24 * time.Hour)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-365 * 24 * time.Hour)
	}
	if parent == nil {
		parent = c
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, own.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func encode(kind string, raw []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
}

func keyText(t testing.TB, key crypto.Signer) string {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("PRIVATE KEY", raw)
}

// issue makes a certificate for the names; change, unless nil, edits the template.
func (a *authority) issue(t testing.TB, key crypto.Signer, change func(*x509.Certificate), names ...string) *issued {
	t.Helper()
	c := &x509.Certificate{DNSNames: names, Subject: pkix.Name{CommonName: "leaf"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(c)
	}
	c = sign(t, c, a.cert, key, a.key)
	i := &issued{cert: c, text: encode("CERTIFICATE", c.Raw) + a.text, keyText: keyText(t, key)}
	i.pair = cryptotls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key, Leaf: c}
	return i
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (i *issued) inline() Pair { return Pair{CertPEM: i.text, KeyPEM: i.keyText} }

func write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// files writes the pair to a new folder.
func (i *issued) files(t testing.TB) Pair {
	dir := t.TempDir()
	return Pair{Cert: write(t, filepath.Join(dir, "cert.pem"), i.text), Key: write(t, filepath.Join(dir, "key.pem"), i.keyText)}
}

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, _, err := NewStore(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serverConfig(t testing.TB, o ServerOptions) *cryptotls.Config {
	t.Helper()
	c, err := NewServerConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// outcome is what both sides make of a handshake.
type outcome struct {
	client, server       cryptotls.ConnectionState
	clientErr, serverErr error
}

// handshake is a handshake and one byte from the server, with which the client has got the tickets.
func handshake(t testing.TB, server, client *cryptotls.Config) (o outcome) {
	t.Helper()
	a, b := connected(t)
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		c := cryptotls.Server(a, server)
		if o.serverErr = c.Handshake(); o.serverErr == nil {
			o.server = c.ConnectionState()
			_, o.serverErr = c.Write([]byte{1})
		}
	}()
	c := cryptotls.Client(b, client)
	if o.clientErr = c.Handshake(); o.clientErr == nil {
		_, o.clientErr = c.Read(make([]byte, 1))
		o.client = c.ConnectionState()
	}
	_ = b.Close()
	<-done
	return o
}

// connected gives both ends of a connection. A net.Pipe has no buffer: both sides of a handshake may write at once.
func connected(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if b, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// good is a handshake that must succeed.
func good(t testing.TB, server, client *cryptotls.Config) outcome {
	t.Helper()
	o := handshake(t, server, client)
	if o.clientErr != nil || o.serverErr != nil {
		t.Fatalf("client: %v; server: %v", o.clientErr, o.serverErr)
	}
	return o
}

// wants fails unless the error is there and says the text.
func wants(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want one with %q", err, text)
	}
}

// wantsAlert fails unless the peer sent this alert; numbers are those of RFC 8446, appendix B.2.
func wantsAlert(t testing.TB, err error, number uint8) {
	t.Helper()
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(op.Err.Error(), cryptotls.AlertError(number).Error()) {
		t.Errorf("got error %v, want alert %d, %v", err, number, cryptotls.AlertError(number))
	}
}

func same(a *cryptotls.Certificate, i *issued) bool {
	return a != nil && bytes.Equal(a.Certificate[0], i.cert.Raw)
}
