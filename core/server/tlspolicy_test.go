package server

import (
	cryptotls "crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const policyConfig = `
loops: 1
access_log: { to: off }
listeners:
  http:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{ cert: DIR/a.pem, key: DIR/a.key }]
      tickets: { secret: 0123456789abcdef0123456789abcdef }
      policies:
        - { names: ["*.bank.test"], min_version: 1.3, client_auth: { ca: DIR/ca.pem }, protocols: [h1] }
        - { names: [open.bank.test], protocols: [h1, h2] }
        - { names: [other.test], client_auth: { mode: optional, ca: DIR/other.pem } }
        - { names: [third.test], client_auth: { mode: optional, ca: DIR/ca.pem } }
        - { names: [strict.test], client_auth: { ca: DIR/other.pem } }
routes: [{ match: "/*", respond: { body: fine } }]
`

// runPolicies starts a gateway with one certificate for names under many policies. Clients of a and of other are known to some.
func runPolicies(t *testing.T, a, other *authority) *running {
	t.Helper()
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test", "x.bank.test", "y.bank.test", "open.bank.test", "other.test", "third.test", "strict.test")
	a.put(folder, "a", cert, key)
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	a.put(folder, "other", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.cert.Raw}), nil)
	return run(t, strings.ReplaceAll(policyConfig, "DIR", folder))
}

func certificateOf(a *authority, name string) cryptotls.Certificate {
	a.t.Helper()
	c, err := cryptotls.X509KeyPair(a.issue(false, name))
	a.must(err)
	return c
}

// Version, protocols and client certificates are those of the name's policy; where it says nothing, the listener's.
func TestTLSPolicies(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	g := runPolicies(t, a, other)
	own := certificateOf(a, "client")
	f := func(name string, http2, old, shows bool, want int, protocol int) {
		t.Helper()
		c := a.client(g.addr, http2, func(c *cryptotls.Config) {
			if old {
				c.MaxVersion = cryptotls.VersionTLS12
			}
			if shows {
				c.Certificates = []cryptotls.Certificate{own}
			}
		})
		r, _, err := ask(c, "https://"+name+"/", nil)
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s, HTTP/2 %v, TLS 1.2 %v, certificate %v: %s", name, http2, old, shows, r.Status)
		case want != 0 && (err != nil || r.StatusCode != want || r.ProtoMajor != protocol):
			t.Errorf("%s, HTTP/2 %v, TLS 1.2 %v, certificate %v: %v, %v", name, http2, old, shows, r, err)
		}
	}
	f("a.test", true, false, false, 200, 2)
	f("a.test", false, true, false, 200, 1)
	f("x.bank.test", false, false, true, 200, 1)
	f("x.bank.test", false, false, false, 0, 0) // no certificate
	f("x.bank.test", false, true, true, 0, 0)   // TLS 1.2
	f("x.bank.test", true, false, true, 0, 0)   // HTTP/2 alone
	f("open.bank.test", true, true, false, 200, 2)
	f("other.test", true, false, false, 200, 2)
	f("other.test", true, false, true, 0, 0) // a certificate of another authority
	f("third.test", true, false, true, 200, 2)
}

// One certificate covers all the names, and yet a connection made under one policy is of no use for what another guards.
func TestTLSPoliciesMisdirected(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	g := runPolicies(t, a, other)
	for _, http2 := range []bool{false, true} {
		for host, want := range map[string]int{"a.test": 200, "x.bank.test": 421, "X.Bank.Test.": 421, "open.bank.test": 421, "third.test": 421} {
			q, _ := http.NewRequest("GET", "https://a.test/", nil)
			q.Host = host
			r, err := a.client(g.addr, http2, nil).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Body.Close()
			if r.StatusCode != want {
				t.Errorf("HTTP/2 %v: %s on a connection for a.test: %d, want %d", http2, host, r.StatusCode, want)
			}
		}
	}
	own := certificateOf(a, "client")
	c := a.client(g.addr, false, func(c *cryptotls.Config) { c.Certificates = []cryptotls.Certificate{own} })
	q, _ := http.NewRequest("GET", "https://x.bank.test/", nil)
	q.Host = "y.bank.test"
	if r, err := c.Do(q); err != nil || r.StatusCode != 200 {
		t.Errorf("another name of the policy: %v, %v", r, err)
	} else {
		_ = r.Body.Close()
	}
}

// anySession gives the last session to whomever it is asked for, as an attacker's client would.
type anySession struct{ last *cryptotls.ClientSessionState }

func (s *anySession) Put(_ string, c *cryptotls.ClientSessionState) { s.last = c }
func (s *anySession) Get(string) (*cryptotls.ClientSessionState, bool) {
	return s.last, s.last != nil
}

// A session that was made under one policy is not resumed under another: neither one without a certificate where one is required, nor
// one with the certificate of an authority that is not asked there. Under its own policy it is, after a reload too.
func TestTLSPoliciesShareNoSessions(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	g := runPolicies(t, a, other)
	dial := func(name string, version uint16, session *anySession, cert *cryptotls.Certificate) (resumed, ok bool) {
		t.Helper()
		config := &cryptotls.Config{ServerName: name, RootCAs: a.pool, ClientSessionCache: session, MaxVersion: version}
		if cert != nil {
			config.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) { return cert, nil }
		}
		c, err := cryptotls.Dial("tcp", g.addr, config)
		if err != nil {
			return false, false
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(c) // the ticket comes with the answer
		return c.ConnectionState().DidResume, err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 200 ")
	}
	own, none := certificateOf(a, "client"), cryptotls.Certificate{}
	for _, version := range []uint16{cryptotls.VersionTLS12, cryptotls.VersionTLS13} {
		for _, from := range []string{"a.test", "third.test", "other.test", "open.bank.test"} {
			cert := &none
			if from == "third.test" {
				cert = &own
			}
			s := &anySession{}
			if _, ok := dial(from, version, s, cert); !ok || s.last == nil {
				t.Fatalf("%x: no session for %s", version, from)
			}
			kept := s.last
			if resumed, ok := dial(from, version, s, cert); !resumed || !ok {
				t.Errorf("%x: %s is not resumed under its own policy", version, from)
			}
			for _, to := range []string{"a.test", "x.bank.test", "third.test", "other.test", "strict.test", "open.bank.test"} {
				if to == from {
					continue
				}
				s.last = kept
				resumed, ok := dial(to, version, s, &none)
				if resumed {
					t.Errorf("%x: a session for %s was resumed for %s", version, from, to)
				}
				if must := to == "x.bank.test" || to == "strict.test"; ok && must {
					t.Errorf("%x: %s was let in with a session for %s", version, to, from)
				}
			}
		}
	}
	s := &anySession{}
	if _, ok := dial("x.bank.test", 0, s, &own); !ok {
		t.Fatal("not let in")
	}
	a.must(g.admin.Reload(true))
	if resumed, ok := dial("x.bank.test", 0, s, &none); !resumed || !ok {
		t.Error("not resumed after a reload")
	}
}

// A file that a policy needs is asked for by its place.
func TestTLSPolicyRefused(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	file := filepath.Join(folder, "sluice.yaml")
	a.must(os.WriteFile(file, []byte(`listeners:
  http:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{ cert: a.pem, key: a.key }]
      policies:
        - names: a.test
          client_auth: { ca: missing.pem }
routes: [{ match: "*", respond: {} }]
`), 0o600))
	if _, _, err := checkFile(file); err == nil || !strings.Contains(err.Error(), file+":8:24: ") {
		t.Errorf("got %v", err)
	}
}
