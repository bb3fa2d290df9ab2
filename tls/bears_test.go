package tls

import (
	"crypto/x509"
	"net"
	"testing"
)

func TestBears(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	first := ca.issue(t, k.p256, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }, "a.example.com", "deep.x.example.net")
	second := ca.issue(t, k.p256, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 2)} }, "*.example.org")
	s := newStore(t, Options{Pairs: []Pair{first.inline(), second.inline()}})
	for host, want := range map[string]bool{
		"a.example.com": true, "A.Example.com": true, "b.example.com": false, "example.com": false,
		"x.example.org": true, "x.y.example.org": false, "example.org": false,
		"*.example.com": true, "*.example.net": true, "*.deep.x.example.net": false, "*.xample.net": false,
		"*.example.org": true, "*.org": true, "*.y.example.org": false,
		"192.0.2.1": true, "192.0.2.2": false, // a client that asks for an address gets the default
		"": false, "*.": false,
	} {
		if got := s.Bears(host); got != want {
			t.Errorf("Bears(%q): %v", host, got)
		}
	}
}
