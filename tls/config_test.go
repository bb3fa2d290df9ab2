package tls

import (
	"crypto"
	cryptotls "crypto/tls"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
)

func TestServerConfig(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	ec, rs := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.rsa2048, nil, "a.example.com")
	s := newStore(t, Options{Pairs: []Pair{rs.inline(), ec.inline()}, RefuseUnknown: true})
	both := ServerOptions{Store: s, ALPN: []string{"h2", "http/1.1"}}
	new13 := both
	new13.MinVersion = "1.3"
	client := func(change func(*cryptotls.Config)) *cryptotls.Config {
		c := &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com", NextProtos: []string{"h2"}}
		if change != nil {
			change(c)
		}
		return c
	}
	v12 := func(c *cryptotls.Config) { c.MaxVersion = cryptotls.VersionTLS12 }

	o := good(t, serverConfig(t, both), client(nil)).client
	if o.Version != cryptotls.VersionTLS13 || o.NegotiatedProtocol != "h2" || o.CurveID != cryptotls.X25519MLKEM768 || !o.PeerCertificates[0].Equal(ec.cert) {
		t.Errorf("version %x, protocol %q, curve %v, certificate of %s", o.Version, o.NegotiatedProtocol, o.CurveID, keyType(o.PeerCertificates[0].PublicKey))
	}
	o = good(t, serverConfig(t, both), client(v12)).client
	if o.Version != cryptotls.VersionTLS12 || !o.PeerCertificates[0].Equal(ec.cert) {
		t.Errorf("version %x, certificate of %s", o.Version, keyType(o.PeerCertificates[0].PublicKey))
	}
	o = good(t, serverConfig(t, both), client(func(c *cryptotls.Config) {
		v12(c)
		c.CipherSuites = []uint16{cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	})).client
	if !o.PeerCertificates[0].Equal(rs.cert) {
		t.Error("a client without ECDSA got an ECDSA certificate")
	}

	fallback := ServerOptions{Store: newStore(t, Options{Pairs: []Pair{rs.inline(), ec.inline()}})}
	o = good(t, serverConfig(t, fallback), client(func(c *cryptotls.Config) {
		v12(c)
		c.ServerName, c.InsecureSkipVerify, c.NextProtos = "unknown.example.net", true, nil
	})).client
	if !o.PeerCertificates[0].Equal(ec.cert) {
		t.Error("under an unknown name the ECDSA certificate is not preferred")
	}

	refused := func(options ServerOptions, alert uint8, change func(*cryptotls.Config)) {
		t.Helper()
		o := handshake(t, serverConfig(t, options), client(change))
		if o.serverErr == nil {
			t.Error("the server has accepted it")
		}
		wantsAlert(t, o.clientErr, alert)
	}
	const handshakeFailure, protocolVersion, unrecognizedName, noApplicationProtocol = 40, 70, 112, 120
	refused(new13, protocolVersion, v12)
	refused(both, unrecognizedName, func(c *cryptotls.Config) { c.ServerName = "b.example.com" })
	refused(both, unrecognizedName, func(c *cryptotls.Config) { c.ServerName, c.InsecureSkipVerify = "", true })
	refused(both, noApplicationProtocol, func(c *cryptotls.Config) { c.NextProtos = []string{"smtp"} })
	refused(both, handshakeFailure, func(c *cryptotls.Config) {
		v12(c)
		c.CipherSuites = []uint16{cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, cryptotls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	})
	refused(both, handshakeFailure, func(c *cryptotls.Config) { c.CurvePreferences = []cryptotls.CurveID{cryptotls.CurveP521} })

	for want, o := range map[string]ServerOptions{
		`version "1.1"`:               {Store: s, MinVersion: "1.1"},
		"without certificates":        {},
		"1 to 255 bytes":              {Store: s, ALPN: []string{""}},
		"listed twice":                {Store: s, ALPN: []string{"h2", "h2"}},
		`authentication "maybe"`:      {Store: s, ClientAuth: "maybe"},
		"without authorities":         {Store: s, ClientAuth: "require"},
		"that are not asked for":      {Store: s, Clients: &ClientTrust{}},
		`"1.4": it is neither 1.2 no`: {Store: s, MinVersion: "1.4"},
	} {
		_, err := NewServerConfig(o)
		wants(t, err, want)
	}
}

// countedKey counts the signatures of a key that tells of itself nothing else.
type countedKey struct {
	crypto.Signer
	count *atomic.Int32
}

func (k countedKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.count.Add(1)
	return k.Signer.Sign(r, digest, o)
}

func TestOffload(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	for _, c := range []struct {
		key     crypto.Signer
		version uint16
		want    int32
	}{
		{k.rsa2048, cryptotls.VersionTLS13, 1}, // PSS
		{k.rsa2048, cryptotls.VersionTLS12, 1},
		{k.p256, cryptotls.VersionTLS13, 0},
		{k.p256, cryptotls.VersionTLS12, 0},
	} {
		cert := ca.issue(t, c.key, nil, "a.example.com")
		s := newStore(t, Options{Pairs: []Pair{cert.inline()}})
		var signed, offloads atomic.Int32
		s.Lookup("").PrivateKey = countedKey{c.key, &signed}
		var conns []net.Conn
		run := true
		server := serverConfig(t, ServerOptions{Store: s, Offload: func(conn net.Conn, f func()) {
			offloads.Add(1)
			conns = append(conns, conn)
			if !run {
				return
			}
			before, done := signed.Load(), make(chan struct{})
			go func() { defer close(done); f() }()
			<-done
			if signed.Load() != before+1 {
				t.Error("the signature was not made in f")
			}
		}})
		client := &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com", MaxVersion: c.version}
		for range 2 {
			good(t, server, client)
		}
		if offloads.Load() != 2*c.want || signed.Load() != 2 || slices.Contains(conns, nil) || c.want == 1 && conns[0] == conns[1] {
			t.Errorf("%s, version %x: %d offloads, %d signatures", keyType(c.key.Public()), c.version, offloads.Load(), signed.Load())
		}
		if c.want == 1 {
			// PKCS #1 v1.5, which TLS 1.2 clients may insist on, cannot be asked for by crypto/tls as a client.
			hello := &cryptotls.ClientHelloInfo{ServerName: "a.example.com", SignatureSchemes: []cryptotls.SignatureScheme{cryptotls.PKCS1WithSHA256},
				SupportedVersions: []uint16{cryptotls.VersionTLS12}, SupportedCurves: curves(), CipherSuites: suites(), SupportedPoints: []uint8{0}}
			cert, _ := server.GetCertificate(hello)
			if err := hello.SupportsCertificate(cert); err != nil {
				t.Errorf("PKCS #1 v1.5: %v", err)
			}
			run = false
			wants(t, handshake(t, server, client).serverErr, errNotSigned.Error())
		}
	}
}
