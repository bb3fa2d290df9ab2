package tls

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"
)

// shelf is an Issuer with certificates at hand, and with some that it must go for.
type shelf struct {
	at, away map[string]*cryptotls.Certificate
	gone     bool // going takes longer than anybody waits
	asked    int
}

func (s *shelf) Cached(name string) *cryptotls.Certificate { return s.at[name] }

func (s *shelf) MayBlock(hello *cryptotls.ClientHelloInfo) bool {
	return s.away != nil && s.at[hello.ServerName] == nil
}

func (s *shelf) GetCertificate(ctx context.Context, hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	s.asked++
	if s.gone {
		<-ctx.Done()
	}
	if c := s.away[hello.ServerName]; c != nil && ctx.Err() == nil {
		return c, nil
	}
	return nil, errors.New("none")
}

func TestJoin(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	file := ca.issue(t, k.p256, nil, "file.test", "*.wild.test")
	made := func(name string) *cryptotls.Certificate { return &ca.issue(t, k.p256b, nil, name).pair }
	issuer := &shelf{at: map[string]*cryptotls.Certificate{"file.test": made("file.test"), "issued.test": made("issued.test"), "own.wild.test": made("own.wild.test")}}
	with := Options{Pairs: []Pair{file.inline()}, Partial: true}
	f := func(o Options, fallback, name string, want *x509.Certificate) {
		t.Helper()
		server := serverConfig(t, ServerOptions{Store: newStore(t, o), Joined: Join(newStore(t, o), issuer, fallback, 0)})
		got := handshake(t, server, &cryptotls.Config{ServerName: name, InsecureSkipVerify: true})
		switch {
		case want == nil:
			wantsAlert(t, got.clientErr, 112)
		case got.clientErr != nil:
			t.Errorf("%s: %v", name, got.clientErr)
		case !got.client.PeerCertificates[0].Equal(want):
			t.Errorf("%s got the certificate of %v", name, got.client.PeerCertificates[0].DNSNames)
		}
	}
	f(with, "", "file.test", file.cert)
	f(with, "", "issued.test", issuer.at["issued.test"].Leaf)
	f(with, "", "own.wild.test", issuer.at["own.wild.test"].Leaf)
	f(with, "", "other.wild.test", file.cert)
	f(with, "", "unknown.test", file.cert)
	f(with, "", "", file.cert)
	f(with, "Issued.Test.", "unknown.test", issuer.at["issued.test"].Leaf)
	f(with, "issued.test", "", issuer.at["issued.test"].Leaf)
	f(with, "later.test", "unknown.test", file.cert)
	f(Options{Partial: true}, "issued.test", "unknown.test", issuer.at["issued.test"].Leaf)
	f(Options{Partial: true}, "later.test", "unknown.test", nil)
	refuse := with
	refuse.RefuseUnknown = true
	f(refuse, "", "issued.test", issuer.at["issued.test"].Leaf)
	f(refuse, "", "unknown.test", nil)
	if issuer.asked > 0 {
		t.Errorf("an issuer that does not block was asked %d times", issuer.asked)
	}
	if _, _, err := NewStore(Options{}); err == nil {
		t.Error("a store without certificates stands alone")
	}

	issuer.away = map[string]*cryptotls.Certificate{"away.test": made("away.test")}
	f(refuse, "", "away.test", issuer.away["away.test"].Leaf)
	f(refuse, "", "unknown.test", nil)
	f(with, "", "unknown.test", file.cert)
	f(with, "", "x.wild.test", file.cert)
	if issuer.asked != 3 {
		t.Errorf("the issuer was asked %d times for names that it does not have at hand, want 3", issuer.asked)
	}
}

// Who waits for an issuer does so elsewhere, and not for ever.
func TestJoinWaits(t *testing.T) {
	ca := newAuthority(t, "ca")
	file := ca.issue(t, ring().p256, nil, "file.test")
	issuer := &shelf{away: map[string]*cryptotls.Certificate{}, gone: true}
	store, offloaded := newStore(t, Options{Pairs: []Pair{file.inline()}, Partial: true}), 0
	server := serverConfig(t, ServerOptions{Store: store, Joined: Join(store, issuer, "", 20*time.Millisecond), Offload: func(c net.Conn, f func()) {
		offloaded++
		f()
	}})
	got := good(t, server, &cryptotls.Config{ServerName: "away.test", InsecureSkipVerify: true})
	if !got.client.PeerCertificates[0].Equal(file.cert) || offloaded != 1 {
		t.Errorf("offloaded %d times, got the certificate of %v", offloaded, got.client.PeerCertificates[0].DNSNames)
	}
	good(t, server, &cryptotls.Config{ServerName: "file.test", InsecureSkipVerify: true})
	if offloaded != 1 {
		t.Error("a certificate at hand was waited for")
	}
}

// The challenge gets its certificate, whatever clients must show, and is told no other.
func TestJoinChallenge(t *testing.T) {
	ca := newAuthority(t, "ca")
	file, challenge := ca.issue(t, ring().p256, nil, "file.test"), ca.issue(t, ring().p256, nil, "proved.test")
	issuer := &shelf{away: map[string]*cryptotls.Certificate{"proved.test": &challenge.pair}}
	store := newStore(t, Options{Pairs: []Pair{file.inline()}, Partial: true})
	trust, _, err := NewClientTrust(ClientTrustOptions{CAFile: write(t, t.TempDir()+"/ca.pem", ca.text)})
	if err != nil {
		t.Fatal(err)
	}
	o := ServerOptions{Store: store, Joined: Join(store, issuer, "", 0), Challenges: true, ALPN: []string{"h2"}, ClientAuth: "require", Clients: trust}
	server := serverConfig(t, o)
	client := func(name string, protocols ...string) *cryptotls.Config {
		return &cryptotls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true}
	}
	got := good(t, server, client("proved.test", ChallengeProtocol))
	if got.client.NegotiatedProtocol != ChallengeProtocol || !got.client.PeerCertificates[0].Equal(challenge.cert) {
		t.Errorf("agreed on %q", got.client.NegotiatedProtocol)
	}
	wantsAlert(t, handshake(t, server, client("file.test", ChallengeProtocol)).clientErr, 112)
	wantsAlert(t, handshake(t, server, client("file.test", "h2", ChallengeProtocol)).clientErr, 116) // a certificate is required
	o.Challenges = false
	wantsAlert(t, handshake(t, serverConfig(t, o), client("proved.test", ChallengeProtocol)).clientErr, 120)
	o.Challenges, o.Joined = true, nil
	if _, err := NewServerConfig(o); err == nil {
		t.Error("nobody would answer challenges")
	}
}

// Of one listener the challenge is looked for first, then the policy of the name, then comes what holds for all others: an authority
// proves a name whose policy would have refused it.
func TestChallengeThenPolicy(t *testing.T) {
	ca := newAuthority(t, "ca")
	file, challenge := ca.issue(t, ring().p256, nil, "file.test", "strict.test"), ca.issue(t, ring().p256, nil, "strict.test")
	store := newStore(t, Options{Pairs: []Pair{file.inline()}})
	issuer := &shelf{away: map[string]*cryptotls.Certificate{"strict.test": &challenge.pair}}
	trust, _, err := NewClientTrust(ClientTrustOptions{CAFile: write(t, t.TempDir()+"/ca.pem", ca.text)})
	if err != nil {
		t.Fatal(err)
	}
	joined := Join(store, issuer, "", 0)
	var policies NameTable[*cryptotls.Config]
	policy := ServerOptions{Store: store, Joined: joined, MinVersion: "1.3", ALPN: []string{"http/1.1"}, ClientAuth: "require", Clients: trust}
	if err := policies.Add("strict.test", serverConfig(t, policy)); err != nil {
		t.Fatal(err)
	}
	server := serverConfig(t, ServerOptions{Store: store, Joined: joined, Challenges: true, Policies: &policies, ALPN: []string{"h2"}})
	client := func(name string, most uint16, protocols ...string) *cryptotls.Config {
		return &cryptotls.Config{ServerName: name, MaxVersion: most, NextProtos: protocols, InsecureSkipVerify: true}
	}
	const old, latest = cryptotls.VersionTLS12, cryptotls.VersionTLS13

	got := good(t, server, client("strict.test", old, ChallengeProtocol))
	if got.client.NegotiatedProtocol != ChallengeProtocol || !got.client.PeerCertificates[0].Equal(challenge.cert) {
		t.Errorf("the challenge: agreed on %q", got.client.NegotiatedProtocol)
	}
	wantsAlert(t, handshake(t, server, client("strict.test", old, "http/1.1")).clientErr, 70)                        // its version is too old
	wantsAlert(t, handshake(t, server, client("strict.test", latest, "h2")).clientErr, 120)                          // the policy's protocols
	wantsAlert(t, handshake(t, server, client("strict.test", latest, "http/1.1")).clientErr, 116)                    // a certificate is required
	wantsAlert(t, handshake(t, server, client("strict.test", latest, "http/1.1", ChallengeProtocol)).clientErr, 116) // no challenge: that comes alone
	known := client("strict.test", latest, "http/1.1")
	known.Certificates = []cryptotls.Certificate{ca.issue(t, ring().p256, nil, "client").pair}
	if got = good(t, server, known); !got.client.PeerCertificates[0].Equal(file.cert) || len(got.server.PeerCertificates) == 0 {
		t.Errorf("the policy: showed the certificate for %v", got.client.PeerCertificates[0].DNSNames)
	}

	if got = good(t, server, client("file.test", old, "h2")); got.client.NegotiatedProtocol != "h2" {
		t.Errorf("the listener's own: agreed on %q", got.client.NegotiatedProtocol)
	}
	wantsAlert(t, handshake(t, server, client("file.test", latest, ChallengeProtocol)).clientErr, 112) // nothing is under way for it
}

func TestJoinServesName(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	file := ca.issue(t, k.p256, nil, "a.test", "b.test", "*.wild.test")
	issuer := &shelf{at: map[string]*cryptotls.Certificate{"c.test": &ca.issue(t, k.p256, nil, "c.test").pair, "own.wild.test": &ca.issue(t, k.p256, nil, "own.wild.test").pair}}
	f := func(fallback, serverName, host string, want bool) {
		t.Helper()
		j := Join(newStore(t, Options{Pairs: []Pair{file.inline()}, Partial: true}), issuer, fallback, 0)
		if got := j.ServesName(serverName, host); got != want {
			t.Errorf("%q for %q: %t", serverName, host, got)
		}
	}
	f("", "a.test", "b.test", true)
	f("", "a.test", "x.wild.test", true)
	f("", "a.test", "own.wild.test", false)
	f("", "x.wild.test", "own.wild.test", false)
	f("", "a.test", "c.test", false)
	f("", "c.test", "a.test", false)
	f("", "c.test", "c.test", true)
	f("", "unknown.test", "a.test", true)
	f("", "unknown.test", "c.test", false)
	f("c.test", "unknown.test", "a.test", false)
	f("c.test", "unknown.test", "c.test", true)
	f("c.test", "c.test", "unknown.test", true)
	f("c.test", "", "unknown.test", true)
	j := Join(newStore(t, Options{Partial: true}), issuer, "", 0)
	if j.ServesName("unknown.test", "c.test") || j.ServesName("c.test", "") || j.ServesName("", "") {
		t.Error("names without a certificate are served")
	}
}
