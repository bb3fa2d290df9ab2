package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a := &authority{t: t, key: key, pool: x509.NewCertPool(), last: time.Now().UnixNano()}
	a.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotAfter: time.Now().Add(1000 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	a.must(err)
	a.cert, err = x509.ParseCertificate(der)
	a.must(err)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// issue gives a certificate for names, with its key, as PEM.
func (a *authority) issue(rsaKey bool, names ...string) (cert, key []byte) {
	a.t.Helper()
	return a.make(rsaKey, "", names...)
}

// issueFor gives one that names an OCSP responder, followed by the authority's.
func (a *authority) issueFor(responder string, names ...string) (cert, key []byte) {
	a.t.Helper()
	cert, key = a.make(false, responder, names...)
	return append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...), key
}

func decodePEM(text []byte) []byte {
	b, _ := pem.Decode(text)
	return b.Bytes
}

func (a *authority) make(rsaKey bool, responder string, names ...string) (cert, key []byte) {
	a.t.Helper()
	var signer crypto.Signer
	var err error
	if rsaKey {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	a.must(err)
	a.last++
	template := &x509.Certificate{SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if responder != "" {
		template.OCSPServer = []string{responder}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, signer.Public(), a.key)
	a.must(err)
	text, err := x509.MarshalPKCS8PrivateKey(signer)
	a.must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

// put writes NAME.pem and NAME.key into folder, each swapped whole.
func (a *authority) put(folder, name string, cert, key []byte) {
	a.t.Helper()
	for file, text := range map[string][]byte{name + ".pem": cert, name + ".key": key} {
		a.must(os.WriteFile(filepath.Join(folder, file+".next"), text, 0o600))
		a.must(os.Rename(filepath.Join(folder, file+".next"), filepath.Join(folder, file)))
	}
}

// client speaks to addr under any name.
func (a *authority) client(addr string, http2 bool, change func(c *cryptotls.Config)) *http.Client {
	c := &cryptotls.Config{RootCAs: a.pool}
	if change != nil {
		change(c)
	}
	dialer := &net.Dialer{Timeout: patience}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{TLSClientConfig: c, Protocols: protocols,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		}}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

const tlsConfig = `
loops: 2
access_log: { to: off }
listeners:
  http: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: FOLDER/a.pem, key: FOLDER/a.key }, { cert: FOLDER/b.pem, key: FOLDER/b.key }]TLS } }
upstreams: { up: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: up }]
`

// mirror answers with what it was asked, and sends the body back.
func mirror(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Proto", r.Header.Get("X-Forwarded-Proto"))
		w.Header().Set("X-Asked", r.Host)
		w.Header().Set("X-Cert", strings.Join(append(r.Header.Values("Client-Cert"), r.Header.Values("Client-Cert-Chain")...), ","))
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// runTLS starts a gateway with certificates for a.test and *.b.test; more is added to the listener's tls.
func runTLS(t *testing.T, a *authority, more string) *running {
	t.Helper()
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	cert, key = a.issue(true, "*.b.test")
	a.put(folder, "b", cert, key)
	config := strings.NewReplacer("FOLDER", folder, "TLS", more, "UPSTREAM", mirror(t)).Replace(tlsConfig)
	g := run(t, config)
	g.folder = folder
	return g
}

// ask makes a request, and gives the answer with the certificate that the gateway showed.
func ask(c *http.Client, url string, body []byte) (r *http.Response, got []byte, err error) {
	method := "GET"
	if body != nil {
		method = "POST"
	}
	q, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if r, err = c.Do(q); err != nil {
		return nil, nil, err
	}
	defer r.Body.Close()
	got, err = io.ReadAll(r.Body)
	return r, got, err
}

// Both protocols come through TLS, with bodies of many records; the upstream learns that the client's side was encrypted.
func TestTLSBothProtocols(t *testing.T) {
	a := newAuthority(t)
	g := runTLS(t, a, "")
	for _, http2 := range []bool{false, true} {
		c := a.client(g.addr, http2, nil)
		for _, size := range []int{1, 1000, 100_000, 3 << 20} {
			body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			for _, host := range []string{"a.test", "x.b.test"} {
				r, got, err := ask(c, "https://"+host+"/", body)
				if err != nil {
					t.Fatal(err)
				}
				if r.StatusCode != 200 || !bytes.Equal(got, body) || (r.ProtoMajor == 2) != http2 || r.Header.Get("X-Proto") != "https" || r.Header.Get("X-Asked") != host {
					t.Errorf("%s with %d bytes: %s %d, %d bytes, %v", host, size, r.Proto, r.StatusCode, len(got), r.Header)
				}
				if names := r.TLS.PeerCertificates[0].DNSNames; names[0] != host && names[0] != "*"+host[1:] {
					t.Errorf("%s got the certificate for %v", host, names)
				}
			}
		}
	}
}

// A connection serves the names of its certificate, and no others (RFC 9110, 15.5.20).
func TestTLSMisdirected(t *testing.T) {
	a := newAuthority(t)
	g := runTLS(t, a, "")
	for _, http2 := range []bool{false, true} {
		c := a.client(g.addr, http2, nil)
		for host, want := range map[string]int{"x.b.test": 200, "y.b.test": 200, "a.test": 421} {
			q, _ := http.NewRequest("GET", "https://x.b.test/", nil)
			q.Host = host
			r, err := c.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if r.StatusCode != want {
				t.Errorf("HTTP/2 %v: %s on a connection for x.b.test: %d, want %d", http2, host, r.StatusCode, want)
			}
		}
	}
}

// Names that no certificate is for get the first, or are refused.
func TestTLSUnknownName(t *testing.T) {
	a := newAuthority(t)
	for more, want := range map[string]string{"": "a.test", ", unknown: refuse": "", ", default: x.b.test": "*.b.test"} {
		g := runTLS(t, a, more)
		for _, name := range []string{"nobody.test", ""} {
			c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: name, InsecureSkipVerify: true})
			got := ""
			if err == nil {
				got = c.ConnectionState().PeerCertificates[0].DNSNames[0]
				c.Close()
			}
			if got != want {
				t.Errorf("%q with %q: certificate of %q, want %q (%v)", name, more, got, want, err)
			}
		}
		g.stop()
	}
}

// A renewed pair is used soon, without a reload and without disturbing what is open; a broken one is not, and is told of.
func TestTLSRenewal(t *testing.T) {
	a := newAuthority(t)
	g := runTLS(t, a, "")
	open := a.client(g.addr, true, nil)
	if _, _, err := ask(open, "https://a.test/", nil); err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "a.test", RootCAs: a.pool})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	cert, key := a.issue(false, "a.test")
	_, other := a.issue(false, "a.test")
	a.put(g.folder, "a", cert, other) // the key is another certificate's
	g.eventually("a mismatched pair is told of", func() bool {
		all, err := g.admin.Certs()
		return err == nil && all[0].Problem != ""
	})
	if got := g.metric(`sluice_certificate_problem{listener="http",file="` + filepath.Join(g.folder, "a.pem") + `"}`); got != "1" {
		t.Errorf("the problem is counted as %q", got)
	}
	if serial() != before {
		t.Error("a mismatched pair is in use")
	}
	a.put(g.folder, "a", cert, key)
	g.eventually("the renewed pair is in use", func() bool { return serial() != before })
	if all, err := g.admin.Certs(); err != nil || all[0].Problem != "" {
		t.Errorf("certificates: %+v, %v", all, err)
	}
	if _, _, err := ask(open, "https://a.test/", nil); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
}

// TestCertificateTwice: a certificate that a listener has by its name and by a pattern ends when it ends.
func TestCertificateTwice(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	file := filepath.Join(folder, "a.pem")
	a.must(os.WriteFile(file, append(cert, key...), 0o600))
	g := run(t, strings.ReplaceAll(`
loops: 1
listeners: { http: { bind: "127.0.0.1:0", tls: { certificates: ["DIR/a.pem", "DIR/*.pem"] } } }
routes: [{ match: "/*", respond: { status: 204 } }]
`, "DIR", folder))
	all, err := g.admin.Certs()
	if err != nil || len(all) != 2 {
		t.Fatalf("certificates: %+v, %v", all, err)
	}
	want := fmt.Sprintf("%v", float64(all[0].NotAfter.Unix()))
	name := `sluice_certificate_expiry_seconds{listener="http",file="` + file + `",fingerprint="` + all[0].Fingerprint + `"}`
	if got := g.metric(name); got != want {
		t.Errorf("it ends at %s, the metric says %s", want, got)
	}
}

// What is wrong with certificates refuses a configuration, with the place of each.
func TestTLSConfigRefused(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	_, other := a.issue(false, "a.test")
	a.put(folder, "b", cert, other)
	a.put(folder, "c", []byte("nothing\n"), key)
	file := filepath.Join(folder, "sluice.yaml")
	a.must(os.WriteFile(file, []byte(`listeners:
  http:
    bind: "127.0.0.1:0"
    tls:
      certificates:
        - { cert: a.pem, key: a.key }
        - { cert: b.pem, key: b.key }
        - { cert: c.pem, key: c.key }
        - { cert: missing.pem, key: a.key }
routes: [{ match: "*", respond: {} }]
`), 0o600))
	_, _, err := checkFile(file)
	if err == nil {
		t.Fatal("the configuration is taken")
	}
	for _, line := range []string{":7:11: ", ":8:11: ", ":9:11: "} {
		if !strings.Contains(err.Error(), file+line) {
			t.Errorf("nothing is said of %s in\n%v", line, err)
		}
	}
	if strings.Contains(err.Error(), ":6:") {
		t.Errorf("the right one is refused too:\n%v", err)
	}
}

// Clients that must show a certificate are refused without; those that may are not.
func TestTLSClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	own, err := cryptotls.X509KeyPair(a.issue(false, "client"))
	a.must(err)
	foreign, err := cryptotls.X509KeyPair(stranger.issue(false, "client"))
	a.must(err)
	for mode, want := range map[string][3]bool{"require": {false, true, false}, "optional": {true, true, false}} {
		g := runTLS(t, a, fmt.Sprintf(", client_auth: { mode: %s, ca: %s/ca.pem } }, forward: { client_cert: true", mode, folder))
		for i, certs := range [][]cryptotls.Certificate{nil, {own}, {foreign}} {
			c := a.client(g.addr, false, func(c *cryptotls.Config) {
				c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
					if certs == nil {
						return &cryptotls.Certificate{}, nil
					}
					return &certs[0], nil
				}
			})
			q, _ := http.NewRequest("GET", "https://a.test/", nil)
			q.Header.Set("client-cert", ":forged:")
			q.Header.Set("Client-Cert-Chain", ":forged:")
			r, err := c.Do(q)
			if (err == nil) != want[i] {
				t.Errorf("%s, client %d: %v", mode, i, err)
			}
			if err != nil {
				continue
			}
			r.Body.Close()
			shown := ""
			if certs != nil {
				shown = ":" + base64.StdEncoding.EncodeToString(certs[0].Certificate[0]) + ":"
			}
			if got := r.Header.Get("X-Cert"); got != shown {
				t.Errorf("%s, client %d: the upstream was told of %q, want %q", mode, i, got, shown)
			}
		}
		g.stop()
	}
}

// A session is resumed after a reload, and by another gateway that has the same secret.
func TestTLSResumption(t *testing.T) {
	a := newAuthority(t)
	const secret = ", tickets: { secret: 0123456789abcdef0123456789abcdef }"
	first := runTLS(t, a, secret)
	cache := cryptotls.NewLRUClientSessionCache(10)
	dial := func(addr string) bool {
		c, err := cryptotls.Dial("tcp", addr, &cryptotls.Config{ServerName: "a.test", RootCAs: a.pool, ClientSessionCache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"))
		if _, err := io.ReadAll(c); err != nil { // the ticket comes with the answer
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume
	}
	if dial(first.addr) {
		t.Error("resumed without a session")
	}
	if !dial(first.addr) {
		t.Error("not resumed")
	}
	a.must(first.admin.Reload(true))
	if !dial(first.addr) {
		t.Error("not resumed after a reload")
	}
	first.stop()
	second := runTLS(t, a, secret)
	if !dial(second.addr) {
		t.Error("not resumed by another gateway with the same secret")
	}
	second.stop()
	if other := runTLS(t, a, ""); dial(other.addr) {
		t.Error("resumed by a gateway with other keys")
	}
}

// checkFile is Check of a file that can be read.
func checkFile(file string) ([]string, config.Problems, error) {
	cfg, problems := Load(file)
	if cfg == nil {
		return nil, nil, errors.New(problems.String())
	}
	return Check(cfg)
}
