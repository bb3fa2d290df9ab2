package server

import (
	cryptotls "crypto/tls"
	"strings"
	"testing"
)

// Clients of TLS 1.2 agree on the suites that are chosen and no others, those of TLS 1.3 on any; a policy may choose others.
func TestTLSCiphers(t *testing.T) {
	a := newAuthority(t)
	offer := func(g *running, name string, id uint16) (uint16, error) {
		c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: name, RootCAs: a.pool, MaxVersion: cryptotls.VersionTLS12, CipherSuites: []uint16{id}})
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.ConnectionState().CipherSuite, nil
	}
	all := map[string][]uint16{ // a.test has an ECDSA key, *.b.test an RSA key
		"a.test": {cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, cryptotls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, cryptotls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
		"x.b.test": {cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
	}
	var names []string
	for _, ids := range all {
		for _, id := range ids {
			names = append(names, cryptotls.CipherSuiteName(id))
		}
	}
	g := runTLS(t, a, ", ciphers: ["+strings.Join(names, ", ")+"]")
	for name, ids := range all {
		for _, id := range ids {
			if got, err := offer(g, name, id); err != nil || got != id {
				t.Errorf("%s of all: %v", cryptotls.CipherSuiteName(id), err)
			}
		}
	}
	g.stop()
	g = runTLS(t, a, ", ciphers: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384], "+
		"policies: [{ names: y.b.test, ciphers: TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 }, { names: z.b.test, protocols: h1 }]")
	for _, c := range []struct {
		name string
		id   uint16
		want bool
	}{
		{"a.test", cryptotls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true},
		{"a.test", cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false},
		{"x.b.test", cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true},
		{"x.b.test", cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, false},
		{"y.b.test", cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true},
		{"y.b.test", cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, false},
		{"z.b.test", cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true}, // the listener's
		{"z.b.test", cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, false},
	} {
		if _, err := offer(g, c.name, c.id); (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("%s for %s: %v", cryptotls.CipherSuiteName(c.id), c.name, err)
		}
	}
	c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "y.b.test", RootCAs: a.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.ConnectionState().Version != cryptotls.VersionTLS13 {
		t.Error("not TLS 1.3")
	}
}
