package compile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// TestServiceEnds asks a service by policies that differ in how they know it: each has a connection of its own, which a configuration that
// says the same keeps, and which ends with the last that has the policy.
func TestServiceEnds(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	b := newBench(t)
	with := func(tls ...string) string {
		text := "routes:\n"
		for i, s := range tls {
			text += fmt.Sprintf("  - { match: /%d, use: [{ ext_authz: { url: \"grpcs://%s\"%s } }], respond: {} }\n", i, ln.Addr(), s)
		}
		return text
	}
	first, second := "", ", tls: { server_name: else.test }"
	c := b.apply(with(first, second, second))
	if len(c.services) != 2 {
		t.Fatalf("%d clients, want one for each way to know the service", len(c.services))
	}
	links := map[*link]bool{}
	for _, s := range c.services {
		links[s.link] = true
		s.link.connect(t)
	}
	again := b.apply(with(second, first))
	for _, s := range again.services {
		if !links[s.link] {
			t.Error("a service of which nothing has changed has another client")
		}
	}
	b.apply("routes: [{ match: /*, respond: {} }]\n")
	for l := range links {
		if l.conn != nil {
			t.Errorf("a connection that nobody can use is kept: %s", l.conn.GetState())
		}
	}
}

// connect has the link begin to connect.
func (l *link) connect(t *testing.T) {
	t.Helper()
	if err := l.use(func(c *grpc.ClientConn) error { c.Connect(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestServiceCertificateIsRenewed: a certificate that is shown to services and to Redis follows its files, as long as somebody shows it.
func TestServiceCertificateIsRenewed(t *testing.T) {
	folder := t.TempDir()
	serial := func(c *Compiled) (all []string) {
		for _, s := range c.services {
			all = append(all, s.encrypted.store.Certificates()[0].Serial)
		}
		return append(all, c.sharing.tls.store.Certificates()[0].Serial)
	}
	issue(t, folder, 7)
	b := newBench(t)
	shown := fmt.Sprintf("tls: { certificate: { cert: %q, key: %q } }", filepath.Join(folder, "own.pem"), filepath.Join(folder, "own.key"))
	cluster := "cluster: { redis: { addresses: [\"127.0.0.1:1\"], " + shown + " } }\n"
	text := cluster + `routes: [{ match: /*, use: [{ rate_limit: { limit: 1/s, mode: lease } }, { forward: { url: "https://127.0.0.1:1", ` + shown + " } }], respond: {} }]\n"
	c := b.apply(text)
	watches := maps.Clone(b.registry.certificates)
	if len(watches) != 2 {
		t.Fatalf("%d certificates are followed", len(watches))
	}
	issue(t, folder, 8)
	for deadline := time.Now().Add(watchEvery + patience); !slices.Equal(slices.Compact(serial(c)), []string{"8"}); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("serial numbers %q are shown", serial(c))
		}
	}
	b.apply(text)
	if !maps.Equal(watches, b.registry.certificates) {
		t.Error("a reload begins anew to follow what stays")
	}
	if b.apply("routes: [{ match: /*, respond: {} }]\n"); len(b.registry.certificates) != 0 {
		t.Error("what nobody shows is followed")
	}
}

// issue writes own.pem and own.key into folder.
func issue(t *testing.T, folder string, serial int64) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "gateway"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"own.pem": {Type: "CERTIFICATE", Bytes: der}, "own.key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
