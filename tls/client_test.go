package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"testing"
)

func clientConfig(t *testing.T, o ClientOptions) *cryptotls.Config {
	t.Helper()
	c, warnings, err := NewClientConfig(o)
	if err != nil || (len(warnings) > 0) != (o.InsecureSkipVerify && o.PinnedSPKI == nil) {
		t.Fatalf("%v %v", warnings, err)
	}
	return c
}

func TestClientConfig(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	cert, other := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.p256b, nil, "b.example.com")
	mine := newStore(t, Options{Client: true, Pairs: []Pair{ca.issue(t, k.p384, nil).inline()}})
	server := serverConfig(t, ServerOptions{Store: newStore(t, Options{Pairs: []Pair{cert.inline()}}), ALPN: []string{"h2"},
		Tickets: ticketKeys(t, TicketOptions{}), ClientAuth: "optional", Clients: trust(t, ClientTrustOptions{CAPEM: ca.text})})
	// The chain of this one ends with a certificate that it has no business with.
	liar := cert.pair
	liar.Certificate = append(liar.Certificate[:1:1], other.cert.Raw)
	lying := &cryptotls.Config{Certificates: []cryptotls.Certificate{liar}}

	name := "a.example.com"
	file := write(t, t.TempDir()+"/ca.pem", ca.text)
	for _, o := range []ClientOptions{
		{CAFile: file, ServerName: name},
		{CAPEM: ca.text, ServerName: name, MinVersion: "1.3", PinnedSPKI: []string{spki(other.cert), spki(cert.cert)}},
		{CAPEM: ca.text, ServerName: name, PinnedSPKI: []string{spki(ca.cert)}},
		{InsecureSkipVerify: true},
		{InsecureSkipVerify: true, PinnedSPKI: []string{spki(cert.cert)}},
	} {
		good(t, server, clientConfig(t, o))
	}
	var unknown *cryptotls.CertificateVerificationError
	for _, o := range []ClientOptions{
		{ServerName: name},
		{CAPEM: newAuthority(t, "ca").text, ServerName: name},
		{CAPEM: ca.text, ServerName: "b.example.com"},
	} {
		if err := handshake(t, server, clientConfig(t, o)).clientErr; !errors.As(err, &unknown) {
			t.Errorf("got error %v", err)
		}
	}
	wants(t, handshake(t, server, clientConfig(t, ClientOptions{CAPEM: ca.text, ServerName: name, PinnedSPKI: []string{spki(other.cert)}})).clientErr, "is not pinned")
	wants(t, handshake(t, lying, clientConfig(t, ClientOptions{InsecureSkipVerify: true, PinnedSPKI: []string{spki(other.cert)}})).clientErr, "is not pinned")
	wants(t, handshake(t, lying, clientConfig(t, ClientOptions{CAPEM: ca.text, ServerName: name, PinnedSPKI: []string{spki(other.cert)}})).clientErr, "is not pinned")

	c := clientConfig(t, ClientOptions{CAPEM: ca.text, ServerName: name, Sessions: 8, ALPN: []string{"h2", "http/1.1"}, Store: mine})
	for _, resumed := range []bool{false, true} {
		o := good(t, server, c)
		if id, ok := PeerIdentity(o.server); !ok || id.CommonName != "leaf" || o.client.DidResume != resumed || o.client.NegotiatedProtocol != "h2" {
			t.Errorf("identity %v, resumed %v, protocol %q", id, o.client.DidResume, o.client.NegotiatedProtocol)
		}
	}
	c = clientConfig(t, ClientOptions{CAPEM: ca.text, ServerName: name, MinVersion: "1.3"})
	old := &cryptotls.Config{Certificates: []cryptotls.Certificate{cert.pair}, MaxVersion: cryptotls.VersionTLS12}
	if handshake(t, old, c).clientErr == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func TestClientOptions(t *testing.T) {
	for want, o := range map[string]ClientOptions{
		`version "1.0"`:          {MinVersion: "1.0"},
		"listed twice":           {ALPN: []string{"h2", "h2"}},
		`pin "abc"`:              {PinnedSPKI: []string{"abc"}},
		`pin "YWJj"`:             {PinnedSPKI: []string{"YWJj"}},
		"cannot keep -1":         {Sessions: -1},
		"cannot keep 10001":      {Sessions: 10001},
		"both a file and a text": {CAFile: "x", CAPEM: "x"},
		"skip verification":      {InsecureSkipVerify: true, CAPEM: newAuthority(t, "ca").text},
	} {
		_, _, err := NewClientConfig(o)
		wants(t, err, want)
	}
}
