package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	a := ca.issue(t, k.p256, nil, "a.example.com", "Mixed.Example.com.")
	wild := ca.issue(t, k.p256, nil, "*.example.com")
	deep := ca.issue(t, k.p256, nil, "*.deep.example.com")
	o := Options{Pairs: []Pair{wild.inline(), a.inline(), deep.inline()}}
	f := func(o Options, name string, want *issued) {
		t.Helper()
		got, err := newStore(t, o).Pick(&cryptotls.ClientHelloInfo{ServerName: name})
		if want == nil && !errors.Is(err, ErrUnrecognizedName) || want != nil && !same(got, want) {
			t.Errorf("%q: wrong certificate, error %v", name, err)
		}
	}
	refuse, byName := o, o
	refuse.RefuseUnknown, byName.Default = true, "A.example.com"
	for _, o := range []Options{o, refuse} {
		f(o, "a.example.com", a)
		f(o, "A.EXAMPLE.com", a)
		f(o, "a.example.com.", a)
		f(o, "mixed.example.com", a)
		f(o, "b.example.com", wild)
		f(o, "x.deep.example.com", deep)
		f(o, "deep.example.com", wild)
	}
	for _, unknown := range []string{"", ".", "example.com", "x.y.example.com", ".example.com", "*.example.net", "a.example.com\x00", strings.Repeat("a", 254),
		strings.Repeat("a", 1000) + ".example.com"} {
		f(o, unknown, wild) // the first
		f(byName, unknown, a)
		f(refuse, unknown, nil)
	}
}

func TestServes(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	ab := ca.issue(t, k.p256, nil, "a.example.com", "b.example.com")
	wild := ca.issue(t, k.p256, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }, "*.example.com")
	other := ca.issue(t, k.rsa2048, nil, "a.example.com")
	o := Options{Pairs: []Pair{wild.inline(), ab.inline(), other.inline()}}
	s := newStore(t, o)
	o.RefuseUnknown = true
	strict := newStore(t, o)
	f := func(s *Store, name, host string, want bool) {
		t.Helper()
		// The renewed store has other certificates of the same names.
		for _, from := range []*Store{s, newStore(t, o)} {
			if got := s.Serves(from.Lookup(name), host); got != want {
				t.Errorf("Serves(certificate of %q, %q): %v", name, host, got)
			}
		}
	}
	for _, s := range []*Store{s, strict} {
		f(s, "a.example.com", "A.example.com", true)
		f(s, "a.example.com", "b.example.com", true)
		f(s, "c.example.com", "d.example.com", true)
		f(s, "c.example.com", "a.example.com", false) // has one of its own
		f(s, "a.example.com", "c.example.com", false)
		f(s, "a.example.com", "example.net", false)
		f(s, "a.example.com", "", false)
	}
	f(s, "c.example.com", "example.net", true)
	f(s, "c.example.com", "192.0.2.1", true)
	f(strict, "c.example.com", "example.net", false)
	if s.Serves(nil, "a.example.com") {
		t.Error("no certificate serves nothing")
	}
	for _, c := range []struct {
		name, host string
		want       bool
	}{
		{"a.example.com", "a.example.com", true},
		{"b.example.com", "a.example.com", true},
		{"a.example.com", "b.example.com", false}, // may have been given the RSA certificate
		{"c.example.com", "x.example.com", true},
		{"c.example.com", "a.example.com", false},
		{"", "example.net", true},
		{"", "a.example.com", false},
		{"a.example.com", "example.net", false},
	} {
		if got := s.ServesName(c.name, c.host); got != c.want {
			t.Errorf("ServesName(%q, %q): %v", c.name, c.host, got)
		}
	}
	if strict.ServesName("", "example.net") || strict.ServesName("a.example.com", "example.net") {
		t.Error("an unknown host is served though it is refused")
	}
}

func TestBadPairs(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	a, b := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.p256b, nil, "b.example.com")
	dir := t.TempDir()
	file := func(text string) string { return write(t, filepath.Join(dir, fmt.Sprint(len(text), ".pem")), text) }
	f := func(p Pair, want string) {
		t.Helper()
		_, _, err := NewStore(Options{Pairs: []Pair{a.inline(), p}})
		wants(t, err, want)
		var all PairErrors
		if !errors.As(err, &all) || len(all) != 1 || all[0].Pair != 1 {
			t.Errorf("%v does not name pair 1", err)
		}
	}
	f(Pair{}, "without a certificate")
	f(Pair{Cert: dir + "/none.pem", Key: dir + "/none.key"}, `cannot read "`+dir+`/none.pem": no such file`)
	f(Pair{Cert: dir}, "no regular file")
	f(Pair{Cert: file(a.text), Key: dir + "/none.key"}, `none.key": no such file`)
	f(Pair{Cert: file(a.text)}, "no private key")
	f(Pair{Cert: file(a.keyText)}, "holds no certificate")
	f(Pair{Cert: file("")}, "holds no certificate")
	f(Pair{CertPEM: a.text, KeyPEM: b.keyText}, "does not match the certificate (ECDSA P-256, ECDSA P-256)")
	f(Pair{CertPEM: ca.text + a.text, KeyPEM: a.keyText}, "belongs to certificate 2 of the chain")
	f(Pair{CertPEM: a.text + a.keyText + b.keyText}, "PEM block 4: a second private key")
	f(Pair{CertPEM: a.text + a.keyText, KeyPEM: b.keyText}, "besides that of")
	f(Pair{CertPEM: a.text, KeyPEM: a.text + a.keyText}, "holds a certificate too")
	f(Pair{CertPEM: strings.Replace(a.text, "-----END", "----END", 1), KeyPEM: a.keyText}, "PEM blocks begin")
	f(Pair{CertPEM: strings.Repeat(a.text, 9), KeyPEM: a.keyText}, "more than 16 certificates")
	f(Pair{CertPEM: a.text + encode("CERTIFICATE REQUEST", nil), KeyPEM: a.keyText}, `but "CERTIFICATE REQUEST"`)
	f(Pair{CertPEM: encode("CERTIFICATE", []byte("x")), KeyPEM: a.keyText}, "cannot parse certificate")
	f(Pair{CertPEM: a.text, KeyPEM: encode("PRIVATE KEY", []byte("x"))}, "cannot parse private key")
	f(Pair{CertPEM: a.text, KeyPEM: encode("ENCRYPTED PRIVATE KEY", nil)}, "is encrypted")
	f(Pair{CertPEM: a.text, KeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"DEK-Info": "x"}}))}, "is encrypted")
	f(Pair{Cert: file(strings.Repeat("x", maxPairBytes+1))}, "more than 256 KiB")
	f(Pair{Glob: dir + "/*.none"}, "no file matches")
	f(Pair{Glob: dir + "/["}, "syntax error")
	f(Pair{Glob: dir + "/*", Key: "x"}, "together with")
	f(Pair{Cert: "x", CertPEM: "x"}, "both a file and a text")

	_, _, err := NewStore(Options{})
	wants(t, err, "without a certificate")
	_, _, err = NewStore(Options{Pairs: []Pair{a.inline()}, Default: "b.example.com"})
	wants(t, err, `"b.example.com" as default`)
	_, _, err = NewStore(Options{Pairs: []Pair{a.inline()}, Default: "a.example.com", RefuseUnknown: true})
	wants(t, err, "cannot refuse unknown names")
	_, _, err = NewStore(Options{Pairs: []Pair{{}, {Cert: dir + "/none"}}})
	if all := (PairErrors)(nil); !errors.As(err, &all) || len(all) != 2 || all[1].Pair != 1 {
		t.Errorf("not all mistakes are told: %v", err)
	}
}

func TestSources(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	a, b := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.p384, nil, "b.example.com")
	dir := t.TempDir()
	write(t, dir+"/b.pem", b.keyText+b.text)
	write(t, dir+"/a.pem", a.text+a.keyText)
	write(t, dir+"/.hidden.pem", "not a certificate")
	if err := os.Mkdir(dir+"/folder.pem", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, pairs := range [][]Pair{
		{{Glob: dir + "/*.pem"}},
		{{Cert: dir + "/a.pem"}, {Cert: dir + "/b.pem", Key: dir + "/b.pem"}},
		{a.files(t), {CertPEM: b.text + b.keyText}},
		{{Cert: a.files(t).Cert, KeyPEM: a.keyText}, {CertPEM: b.text, Key: b.files(t).Key}},
	} {
		s := newStore(t, Options{Pairs: pairs})
		if !same(s.Lookup("a.example.com"), a) || !same(s.Lookup("b.example.com"), b) || !same(s.Lookup(""), a) {
			t.Errorf("%+.60v: wrong certificates", pairs)
		}
		all := s.Certificates()
		if len(all) != 2 || !slices.Equal(all[1].Names, []string{"b.example.com"}) || all[1].KeyType != "ECDSA P-384" || all[1].Issuer != "CN=ca" ||
			all[1].Serial != b.cert.SerialNumber.Text(16) || !all[1].NotAfter.Equal(b.cert.NotAfter) || len(all[1].Fingerprint) != 64 {
			t.Errorf("wrong description: %+v", all)
		}
	}
}

func TestWarnings(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	f := func(want []Kind, text string, o Options, change func(*x509.Certificate), edit func(*Pair), names ...string) {
		t.Helper()
		key := k.p256
		if slices.Contains(want, WeakKey) {
			key = k.rsa1024
		}
		p := ca.issue(t, key, change, names...).inline()
		if edit != nil {
			edit(&p)
		}
		o.Pairs = append(o.Pairs, p)
		_, warnings, err := NewStore(o)
		var got []Kind
		all := ""
		for _, w := range warnings {
			if got = append(got, w.Kind); w.Pair == len(o.Pairs)-1 {
				all += w.Text + "\n"
			}
		}
		if err != nil || !slices.Equal(got, want) || !strings.Contains(all, text) {
			t.Errorf("got %v %q and %v, want %v %q", got, all, err, want, text)
		}
	}
	ends := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
	}
	first := Options{Pairs: []Pair{ca.issue(t, k.p256, nil, "a.example.com", "b.example.com", "c.example.com").inline()}}
	alone := func(p *Pair) { p.CertPEM = strings.TrimSuffix(p.CertPEM, ca.text) }
	f(nil, "", Options{}, nil, nil, "a.example.com")
	f([]Kind{Expired}, "expired on", Options{Starting: true}, ends(-time.Hour), nil, "a.example.com")
	f([]Kind{ExpiresSoon}, "in 9 days", Options{}, ends(10*24*time.Hour-time.Minute), nil, "a.example.com")
	f([]Kind{NotYetValid}, "not valid before", Options{}, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, nil, "a.example.com")
	f([]Kind{WeakKey}, "1024 bits", Options{}, nil, nil, "a.example.com")
	f([]Kind{Intermediate}, `"CN=ca", is missing`, Options{}, nil, alone, "a.example.com")
	f([]Kind{Intermediate}, `but by "CN=other"`, Options{}, nil, func(p *Pair) { alone(p); p.CertPEM += newAuthority(t, "other").text }, "a.example.com")
	f([]Kind{NoNames}, "no subject alternative name", Options{}, nil, nil)
	f(nil, "", Options{Client: true}, nil, nil)
	f([]Kind{OddName}, `"f*.example.com"`, Options{}, nil, nil, "f*.example.com", "a.example.com")
	f([]Kind{Purpose}, "not for this", Options{}, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, nil, "a.example.com")
	f([]Kind{Purpose}, "not for this", Options{Client: true}, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, nil)
	f([]Kind{WeakKey}, "", first, nil, nil, "a.example.com") // of another kind

	sha1 := &loaded{chain: []*x509.Certificate{ca.issue(t, k.p256, nil, "a.example.com").cert, ca.cert}}
	sha1.chain[0].SignatureAlgorithm = x509.SHA1WithRSA // cannot be made any more
	if w := sha1.warnings(&source{}, x509.ExtKeyUsageServerAuth, true, time.Now()); len(w) != 1 || w[0].Kind != SHA1 {
		t.Errorf("SHA-1: %v", w)
	}
}
