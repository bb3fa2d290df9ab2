package server

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
)

const clientCertConfig = `
loops: 1
access_log: { to: off }
listeners:
  http:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{ cert: DIR/a.pem, key: DIR/a.key }]
      policies: [{ names: [asking.test], client_auth: { mode: optional, ca: DIR/ca.pem } }] # also
  plain: { bind: "127.0.0.1:0" }
routes:
  - { match: /any, respond: { body: fine }, client_cert: required }
  - { match: /named, respond: { body: fine }, client_cert: { names: [One.test, other] } }
  - { match: /subject, respond: { body: fine }, client_cert: { subjects: [CN=one.test] } }
  - { match: /fingerprint, respond: { body: fine }, client_cert: { subjects: [CN=nobody], fingerprints: ["PRINT"] } }
  - { match: /*, respond: { body: open } }
`

// A route that wants a certificate is closed to those without, to those with another than it accepts, and to those who come unencrypted; the
// verdict is the same over both protocols. 421 is for those who would be asked for one on a new connection.
func TestRouteClientCert(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test", "asking.test")
	a.put(folder, "a", cert, key)
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	one, two := certificateOf(a, "one.test"), certificateOf(a, "two.test")
	sum := sha256.Sum256(one.Certificate[0])
	config := strings.NewReplacer("DIR", folder, "PRINT", strings.ToUpper(hex.EncodeToString(sum[:]))).Replace(clientCertConfig)
	g := run(t, config)
	client := func(http2 bool, cert *cryptotls.Certificate) *http.Client {
		return a.client(g.addr, http2, func(c *cryptotls.Config) {
			c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
				if cert == nil {
					return &cryptotls.Certificate{}, nil
				}
				return cert, nil
			}
		})
	}
	f := func(c *http.Client, url string, want int, reason string) {
		t.Helper()
		r, body, err := ask(c, url, nil)
		if err != nil || r.StatusCode != want || reason != "" && !strings.Contains(string(body), `"`+reason+`"`) {
			t.Errorf("%s: %v, %q, %v, want %d %s", url, r, body, err, want, reason)
		}
	}
	var before []*http.Client
	for _, http2 := range []bool{false, true} {
		c1, c2, none := client(http2, &one), client(http2, &two), client(http2, nil)
		for _, path := range []string{"/any", "/named", "/subject", "/fingerprint", "/x"} {
			f(c1, "https://asking.test"+path, 200, "")
		}
		f(c2, "https://asking.test/any", 200, "")
		f(c2, "https://asking.test/named", 403, "client_cert_denied")
		f(c2, "https://asking.test/subject", 403, "client_cert_denied")
		f(c2, "https://asking.test/fingerprint", 403, "client_cert_denied")
		f(none, "https://asking.test/any", 403, "client_cert_required")
		f(none, "https://asking.test/x", 200, "")
		f(c1, "https://a.test/any", 403, "client_cert_required") // where nobody is asked
		q, _ := http.NewRequest("GET", "https://a.test/any", nil)
		q.Host = "asking.test"
		r, err := c1.Do(q)
		if err != nil || r.StatusCode != 421 {
			t.Fatalf("HTTP/2 %v: on a connection for another name: %v, %v", http2, r, err)
		}
		_ = r.Body.Close()
		c := client(http2, &one)
		f(c, "https://a.test/x", 200, "")
		before = append(before, c)
	}
	for _, l := range g.status().Listeners {
		if l.Name == "plain" {
			f(http.DefaultClient, "http://"+l.Binds[0]+"/any", 403, "client_cert_required")
			http.DefaultClient.CloseIdleConnections()
		}
	}

	// From now on they are asked, by a policy for the name or by the listener: who is connected already only if he comes anew.
	asks := "client_auth: { mode: optional, ca: " + folder + "/ca.pem }"
	for i, next := range []string{
		strings.Replace(config, "] # also", ", { names: [a.test], "+asks+" }]", 1),
		strings.Replace(config, "# also", "\n      "+asks, 1),
	} {
		g.write(next)
		a.must(g.admin.Reload(true))
		c := before[i]
		f(c, "https://a.test/x", 200, "")
		f(c, "https://a.test/any", 421, "client_cert_required")
		c.CloseIdleConnections()
		f(c, "https://a.test/any", 200, "")
	}
	f(client(true, nil), "https://a.test/any", 403, "client_cert_required")
}
