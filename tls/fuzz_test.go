package tls

import (
	"crypto"
	"strings"
	"testing"
	"time"
)

// FuzzBundle checks that what is taken for a certificate can be used and described, whatever the text was.
func FuzzBundle(f *testing.F) {
	ca := newAuthority(f, "ca")
	for _, i := range []*issued{ca.issue(f, ring().p256, nil, "a.example.com", "*.b.example.com", "f*o"), ca.issue(f, ring().rsa2048, nil, "a.example.com")} {
		f.Add(i.text+i.keyText, "")
		f.Add(i.text, i.keyText)
		f.Add(i.keyText+i.text[:len(i.text)-30], "")
	}
	f.Add(encode("EC PARAMETERS", []byte{6})+encode("X509 CRL", []byte{0x30, 0}), "-----BEGIN PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, cert, key string) {
		s, _, err := NewStore(Options{Pairs: []Pair{{CertPEM: cert, KeyPEM: key}}})
		if err != nil {
			if s != nil || err.Error() == "" {
				t.Fatal("neither a store nor a reason")
			}
			return
		}
		l := s.slots[0].good
		if len(l.chain) == 0 || len(l.chain) > maxChain || len(l.cert.Certificate) != len(l.chain) || l.cert.Leaf != l.chain[0] {
			t.Fatal("the chain is not whole")
		}
		if err := fits(l.chain, l.cert.PrivateKey.(crypto.Signer)); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.names {
			if c := s.Lookup(n); len(n) > 1 && n[0] != '*' && c != l.cert || !s.Serves(l.cert, n) && n[0] != '*' {
				t.Fatalf("%q is not served", n)
			}
		}
		if len(s.Certificates()) != 1 || s.Lookup("") != l.cert {
			t.Fatal("not described, or not the default")
		}
		l.warnings(&s.slots[0].source, s.usage, true, time.Now())
	})
}

// FuzzNames compares the look-up with a plain reading of the rules.
func FuzzNames(f *testing.F) {
	for _, n := range []string{"a.example.com", "A.EXAMPLE.COM.", "x.example.com", "x.y.example.com", ".example.com", "example.com", "", ".", "*.example.com", "ä.example.com"} {
		f.Add(n)
	}
	ca := newAuthority(f, "ca")
	exact, wild := ca.issue(f, ring().p256, nil, "a.example.com"), ca.issue(f, ring().p256, nil, "*.example.com")
	s := newStore(f, Options{Pairs: []Pair{exact.inline(), wild.inline()}, RefuseUnknown: true})
	f.Fuzz(func(t *testing.T, name string) {
		got := s.Lookup(name)
		switch want := reference(name); {
		case want == "" && got != nil, want == "exact" && !same(got, exact), want == "wild" && !same(got, wild):
			t.Fatalf("%q: want %q", name, want)
		}
		if got != nil && !s.Serves(got, name) {
			t.Fatalf("%q may not be served with its own certificate", name)
		}
	})
}

func reference(name string) string {
	lower := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.TrimSuffix(name, "."))
	first, rest, _ := strings.Cut(lower, ".")
	switch {
	case len(strings.TrimSuffix(name, ".")) > 253:
		return ""
	case lower == "a.example.com":
		return "exact"
	case first != "" && rest == "example.com":
		return "wild"
	}
	return ""
}
