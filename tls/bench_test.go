package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
)

// manyStore has n certificates with an exact name and a wildcard each.
func manyStore(n int) *Store {
	s := &Store{}
	for i := range n {
		leaf := &x509.Certificate{DNSNames: []string{fmt.Sprintf("www.customer-%d.example.com", i), fmt.Sprintf("*.customer-%d.example.com", i)}}
		leaf.PublicKey = ring().p256.Public()
		l := &loaded{cert: &cryptotls.Certificate{Leaf: leaf, PrivateKey: ring().p256}, chain: []*x509.Certificate{leaf}}
		l.names, _ = namesOf(leaf)
		s.slots = append(s.slots, &slot{good: l})
	}
	rsaLeaf := &x509.Certificate{DNSNames: []string{"www.customer-0.example.com"}, PublicKey: ring().rsa2048.Public()}
	s.slots = append(s.slots, &slot{good: &loaded{cert: &cryptotls.Certificate{Leaf: rsaLeaf, PrivateKey: ring().rsa2048},
		chain: []*x509.Certificate{rsaLeaf}, names: rsaLeaf.DNSNames}})
	if err := s.publish(); err != nil {
		panic(err)
	}
	return s
}

func hellos(n int) (all []*cryptotls.ClientHelloInfo) {
	for i := range n {
		for _, host := range []string{"www", "WWW", "shop"} {
			all = append(all, &cryptotls.ClientHelloInfo{ServerName: fmt.Sprintf("%s.customer-%d.example.com", host, (i*7919)%n),
				SupportedVersions: []uint16{cryptotls.VersionTLS13}, SignatureSchemes: []cryptotls.SignatureScheme{cryptotls.ECDSAWithP256AndSHA256}})
		}
	}
	unknown := *all[0]
	unknown.ServerName = "unknown.example.net"
	return append(all, &unknown)
}

func TestPickAllocatesNothing(t *testing.T) {
	s := manyStore(100)
	for _, hello := range hellos(100) {
		got := testing.AllocsPerRun(10, func() {
			cert, err := s.Pick(hello)
			if err != nil || !s.Serves(cert, hello.ServerName) || !s.ServesName(hello.ServerName, hello.ServerName) {
				t.Fatal("not picked")
			}
		})
		if got != 0 {
			t.Errorf("%q: %v allocations", hello.ServerName, got)
		}
	}
}

func BenchmarkPick10000(b *testing.B) {
	s, all := manyStore(10_000), hellos(10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.Pick(all[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(all) {
			i = 0
		}
	}
}

func BenchmarkPickOfTwoKinds(b *testing.B) {
	s, hello := manyStore(10_000), hellos(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Pick(hello); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkServesName(b *testing.B) {
	s := manyStore(10_000)
	b.ReportAllocs()
	for b.Loop() {
		if !s.ServesName("a.customer-5.example.com", "b.customer-5.example.com") {
			b.Fatal("refused")
		}
	}
}
