package tls

import (
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"
)

// revoke makes a revocation list of the authority; change, unless nil, edits the template.
func (a *authority) revoke(t *testing.T, change func(*x509.RevocationList), revoked ...*issued) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now()})
	}
	if change != nil {
		change(l)
	}
	raw, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func trust(t *testing.T, o ClientTrustOptions) *ClientTrust {
	t.Helper()
	c, _, err := NewClientTrust(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientAuth(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	s := newStore(t, Options{Pairs: []Pair{ca.issue(t, k.p256, nil, "a.example.com").inline()}})
	mine := ca.issue(t, k.p384, func(c *x509.Certificate) {
		c.Subject.Organization, c.EmailAddresses, c.IPAddresses = []string{"org"}, []string{"x@example.com"}, []net.IP{net.IPv4(192, 0, 2, 1)}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/x"}}
	}, "client.example.com")
	foreign := newAuthority(t, "ca").issue(t, k.p384, nil, "client.example.com")
	expired := ca.issue(t, k.p384, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	onlyServer := ca.issue(t, k.p384, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	clients := trust(t, ClientTrustOptions{CAPEM: ca.text})
	f := func(mode string, cert *issued, ok, known bool) {
		t.Helper()
		o := ServerOptions{Store: s, ClientAuth: mode}
		if mode != "none" {
			o.Clients = clients
		}
		client := &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com"}
		client.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
			if cert == nil {
				return &cryptotls.Certificate{}, nil
			}
			return &cert.pair, nil
		}
		got := handshake(t, serverConfig(t, o), client)
		if (got.serverErr == nil) != ok || (got.clientErr == nil) != ok {
			t.Errorf("%s: server %v, client %v", mode, got.serverErr, got.clientErr)
		}
		if _, have := PeerIdentity(got.server); have != known {
			t.Errorf("%s: identity known: %v", mode, have)
		}
	}
	f("none", mine, true, false)
	f("optional", nil, true, false)
	f("optional", mine, true, true)
	f("require", nil, false, false)
	f("require", mine, true, true)
	for _, bad := range []*issued{foreign, expired, onlyServer} {
		f("optional", bad, false, false)
		f("require", bad, false, false)
	}

	id, _ := PeerIdentity(cryptotls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{mine.cert, ca.cert}}})
	if id.Subject != "CN=leaf,O=org" || id.CommonName != "leaf" || id.Issuer != "CN=ca" || !slices.Equal(id.DNSNames, []string{"client.example.com"}) ||
		!slices.Equal(id.Emails, []string{"x@example.com"}) || !slices.Equal(id.URIs, []string{"spiffe://example.com/x"}) ||
		!slices.Equal(id.Addresses, []string{"192.0.2.1"}) || len(id.Fingerprint) != 64 || len(id.SPKI) != 44 || id.Serial == "" {
		t.Errorf("identity %+v", id)
	}
	if _, ok := PeerIdentity(cryptotls.ConnectionState{PeerCertificates: []*x509.Certificate{mine.cert}}); ok {
		t.Error("an unverified certificate is an identity")
	}
}

func TestRevocation(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	s := newStore(t, Options{Pairs: []Pair{ca.issue(t, k.p256, nil, "a.example.com").inline()}})
	bad, fine := ca.issue(t, k.p256, nil), ca.issue(t, k.p256, nil)
	list := write(t, t.TempDir()+"/list.crl", string(ca.revoke(t, nil)))
	clients := trust(t, ClientTrustOptions{CAPEM: ca.text, CRLFiles: []string{list}})
	tickets := ticketKeys(t, TicketOptions{})
	server := serverConfig(t, ServerOptions{Store: s, ClientAuth: "require", Clients: clients, Tickets: tickets})
	client := func(i *issued) *cryptotls.Config {
		return &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com", Certificates: []cryptotls.Certificate{i.pair},
			ClientSessionCache: cryptotls.NewLRUClientSessionCache(1)}
	}
	revoked, other := client(bad), client(fine)
	good(t, server, revoked)
	if !good(t, server, revoked).server.DidResume {
		t.Fatal("not resumed")
	}
	// PEM now, and renewed beneath the configuration. A session of before does not help.
	write(t, list, encode("X509 CRL", ca.revoke(t, nil, bad)))
	reload(t, clients, "", list)
	for _, c := range []*cryptotls.Config{revoked, client(bad)} {
		o := handshake(t, server, c)
		wants(t, o.serverErr, "is revoked")
		if o.clientErr == nil {
			t.Error("a revoked client was let in")
		}
	}
	good(t, server, other)
	good(t, server, other)

	forged := newAuthority(t, "ca")
	for _, broken := range []string{"", "x", encode("X509 CRL", forged.revoke(t, nil)), ca.text, encode("X509 CRL", []byte("x"))} {
		write(t, list, broken)
		reload(t, clients, "cannot use revocation list")
		wants(t, handshake(t, server, client(bad)).serverErr, "is revoked")
	}
	write(t, list, encode("X509 CRL", ca.revoke(t, nil)))
	reload(t, clients, "", list)
	good(t, server, client(bad))
}

func TestClientTrust(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	leaf := ca.issue(t, ring().p256, nil)
	dir := t.TempDir()
	f := func(want string, list []byte) {
		t.Helper()
		_, _, err := NewClientTrust(ClientTrustOptions{CAFile: write(t, dir+"/ca.pem", ca.text), CRLFiles: []string{write(t, dir+"/list.crl", string(list))}})
		wants(t, err, want)
	}
	extension := func(id int, critical bool) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: critical, Value: []byte{2, 1, 1}}
	}
	f("none of the authorities has its issuer's name", other.revoke(t, nil))
	f("it is a delta", ca.revoke(t, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{extension(27, false)} }))
	f("unknown critical extension, 2.5.29.99", ca.revoke(t, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{extension(99, true)} }))
	f("entry 1 has an unknown critical", ca.revoke(t, func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(29, true)}
	}, leaf))
	f("more than revocation lists", []byte(ca.text))
	for want, o := range map[string]ClientTrustOptions{
		"without authorities":      {},
		"both a file and a text":   {CAFile: "x", CAPEM: "x"},
		"no such file":             {CAFile: dir + "/none"},
		"holds no certificate":     {CAPEM: "x"},
		"not that of an authority": {CAPEM: encode("CERTIFICATE", leaf.cert.Raw)},
		"more than certificates":   {CAPEM: leaf.text + leaf.keyText},
		"none.crl\": no such file": {CAPEM: ca.text, CRLFiles: []string{dir + "/none.crl"}},
	} {
		_, _, err := NewClientTrust(o)
		wants(t, err, want)
	}
	expired := ca.revoke(t, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }, leaf)
	c, warnings, err := NewClientTrust(ClientTrustOptions{CAPEM: ca.text + other.text, CRLFiles: []string{write(t, dir+"/list.crl", string(expired))}})
	if err != nil || len(warnings) != 2 || warnings[0].Kind != Unchecked || warnings[1].Kind != Expired {
		t.Fatalf("%v %v", warnings, err)
	}
	wants(t, c.check(cryptotls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf.cert, ca.cert}}}), "is revoked")
	if err := c.check(cryptotls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf.cert, ca.cert}, {leaf.cert, other.cert}}}); err != nil {
		t.Errorf("one chain is whole: %v", err)
	}
}
