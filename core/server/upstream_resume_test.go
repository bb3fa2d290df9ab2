package server

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// handshakes counts those of an upstream.
type handshakes struct{ whole, resumed atomic.Int64 }

// countedUpstream is an upstream whose clients may resume sessions, of one version of TLS.
func countedUpstream(t *testing.T, a *authority, version uint16, http2 bool) (*httptest.Server, *handshakes) {
	t.Helper()
	n := &handshakes{}
	u := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Upstream", r.Proto)
	}))
	pair, err := cryptotls.X509KeyPair(a.issue(false, "up.test"))
	a.must(err)
	u.TLS = &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}, MinVersion: version, MaxVersion: version,
		VerifyConnection: func(s cryptotls.ConnectionState) error { // of each handshake, resumed or not
			if s.DidResume {
				n.resumed.Add(1)
			} else {
				n.whole.Add(1)
			}
			return nil
		}}
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	u.EnableHTTP2 = http2
	u.StartTLS()
	t.Cleanup(u.Close)
	return u, n
}

// Connections to an upstream resume the session of those before, by either protocol and version, and go on doing so after a reload; not where the
// reload changes what the upstream has to prove.
func TestUpstreamResumption(t *testing.T) {
	const rounds = 4
	a := newAuthority(t)
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	for name, version := range map[string]uint16{"TLS 1.2": cryptotls.VersionTLS12, "TLS 1.3": cryptotls.VersionTLS13} {
		for protocol, proto := range map[string]string{"h1": "HTTP/1.1", "h2": "HTTP/2.0"} {
			u, n := countedUpstream(t, a, version, protocol == "h2")
			address := strings.TrimPrefix(u.URL, "https://")
			config := strings.NewReplacer("UPSTREAM", address, "TLS",
				"{ ca: "+folder+"/ca.pem, server_name: up.test }, protocol: "+protocol).Replace(upstreamTLSConfig)
			pin := sha256.Sum256(u.Certificate().RawSubjectPublicKeyInfo)
			g := run(t, config)
			expect := func(whole, resumed int64) {
				t.Helper()
				r, _, err := ask(http.DefaultClient, "http://"+g.addr+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.StatusCode != 200 || r.Header.Get("X-Upstream") != proto {
					t.Errorf("%s, %s: %d by %s", name, protocol, r.StatusCode, r.Header.Get("X-Upstream"))
				}
				if n.whole.Load() != whole || n.resumed.Load() != resumed {
					t.Errorf("%s, %s: %d handshakes and %d resumed ones, want %d and %d", name, protocol, n.whole.Load(), n.resumed.Load(), whole, resumed)
				}
				u.CloseClientConnections()
				g.eventually("the connection is gone", func() bool {
					return g.metric(fmt.Sprintf("sluice_upstream_connections{upstream=\"up\",endpoint=%q}", address)) == "0"
				})
			}
			expect(1, 0)
			for i := range int64(rounds) {
				expect(1, i+1)
			}
			a.must(g.admin.Reload(true))
			expect(1, rounds+1)
			g.write(strings.Replace(config, "up.test }", "up.test, pins: [\""+base64.StdEncoding.EncodeToString(pin[:])+"\"] }", 1))
			a.must(g.admin.Reload(true))
			expect(2, rounds+1)
			expect(2, rounds+2)
			http.DefaultClient.CloseIdleConnections()
			g.stop()
		}
	}
}
