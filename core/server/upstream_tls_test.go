package server

import (
	"bytes"
	cryptotls "crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// secureUpstream is an upstream behind TLS that tells who asks it, and how.
type secureUpstream struct {
	*httptest.Server
	mu      sync.Mutex
	remotes map[string]bool // connections, by the client's address
}

func newSecureUpstream(t *testing.T, a *authority, names ...string) *secureUpstream {
	t.Helper()
	return startSecureUpstream(t, a, false, names...)
}

// startSecureUpstream is newSecureUpstream; with http2 it agrees to that, too.
func startSecureUpstream(t *testing.T, a *authority, http2 bool, names ...string) *secureUpstream {
	t.Helper()
	u := &secureUpstream{remotes: map[string]bool{}}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.remotes[r.RemoteAddr] = true
		u.mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-SNI", r.TLS.ServerName)
		if len(r.TLS.PeerCertificates) > 0 {
			w.Header().Set("X-Client", r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		_, _ = w.Write(body)
	}))
	pair, err := cryptotls.X509KeyPair(a.issue(false, names...))
	a.must(err)
	u.TLS = &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}, ClientAuth: cryptotls.VerifyClientCertIfGiven, ClientCAs: a.pool}
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	u.EnableHTTP2 = http2
	u.StartTLS()
	t.Cleanup(u.Close)
	return u
}

func (u *secureUpstream) connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.remotes)
}

const upstreamTLSConfig = `
loops: 1
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { up: { endpoints: ["UPSTREAM"], tls: TLS } }
routes: [{ match: "/*", to: up }]
`

// What the upstream's certificate must be decides whether it is asked at all; nobody else gets a byte of the request.
func TestUpstreamTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	u := newSecureUpstream(t, a, "up.test", "other.test")
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	a.put(folder, "stranger", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.cert.Raw}), nil)
	cert, key := a.issue(false, "gateway")
	a.put(folder, "own", cert, key)
	const wrong = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for spec, want := range map[string]struct {
		status  int
		sni, as string
	}{
		"{ ca: FOLDER/ca.pem, server_name: up.test }":          {200, "up.test", ""},
		"{ ca: FOLDER/ca.pem, server_name: other.test }":       {200, "other.test", ""},
		"{ ca: FOLDER/ca.pem }":                                {502, "", ""}, // the endpoint's name is an address
		"{ ca: FOLDER/ca.pem, server_name: third.test }":       {502, "", ""},
		"{ ca: FOLDER/stranger.pem, server_name: up.test }":    {502, "", ""},
		"{ server_name: up.test }":                             {502, "", ""}, // the system knows no such authority
		"{ insecure_skip_verify: true, server_name: up.test }": {200, "up.test", ""},
		"{ ca: FOLDER/ca.pem, server_name: up.test, certificate: { cert: FOLDER/own.pem, key: FOLDER/own.key } }": {200, "up.test", "gateway"},
		"{ ca: FOLDER/ca.pem, server_name: up.test, pins: [\"" + wrong + "\"] }":                                  {502, "", ""},
		"{ ca: FOLDER/ca.pem, server_name: up.test, min_version: 1.3 }":                                           {200, "up.test", ""},
	} {
		g := run(t, strings.NewReplacer("UPSTREAM", strings.TrimPrefix(u.URL, "https://"), "TLS", strings.ReplaceAll(spec, "FOLDER", folder)).Replace(upstreamTLSConfig))
		body := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
		before := u.connections()
		for range 5 {
			r, got, err := ask(http.DefaultClient, "http://"+g.addr+"/", body)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != want.status || r.Header.Get("X-SNI") != want.sni || r.Header.Get("X-Client") != want.as {
				t.Errorf("%s: %d %v", spec, r.StatusCode, r.Header)
			}
			if want.status == 200 && !bytes.Equal(got, body) {
				t.Errorf("%s: %d bytes came back", spec, len(got))
			}
			if want.status == 502 && !strings.Contains(string(got), "tls_failed") {
				t.Errorf("%s: %s", spec, got)
			}
		}
		if n := u.connections() - before; want.status == 200 && n != 1 {
			t.Errorf("%s: %d connections for five requests", spec, n)
		}
		http.DefaultClient.CloseIdleConnections()
		g.stop()
	}
}

// A reload keeps connections to upstreams whose TLS stays, and no others: what was not encrypted is not used where it must be.
func TestUpstreamTLSReload(t *testing.T) {
	a := newAuthority(t)
	u := newSecureUpstream(t, a, "up.test", "other.test")
	folder := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	a.put(folder, "ca", ca, nil)
	config := func(spec string) string {
		return strings.NewReplacer("UPSTREAM", strings.TrimPrefix(u.URL, "https://"), "TLS", strings.ReplaceAll(spec, "FOLDER", folder)).Replace(upstreamTLSConfig)
	}
	g := run(t, config("{ ca: FOLDER/ca.pem, server_name: up.test }"))
	defer http.DefaultClient.CloseIdleConnections()
	expect := func(sni string, connections int) {
		t.Helper()
		r, _, err := ask(http.DefaultClient, "http://"+g.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != 200 || r.Header.Get("X-SNI") != sni || u.connections() != connections {
			t.Errorf("%d for %q over %d connections, want %q and %d", r.StatusCode, r.Header.Get("X-SNI"), u.connections(), sni, connections)
		}
	}
	expect("up.test", 1)
	a.must(g.admin.Reload(true))
	expect("up.test", 1)
	g.write(config("{ ca: FOLDER/ca.pem, server_name: other.test }"))
	a.must(g.admin.Reload(true))
	expect("other.test", 2)
	a.put(folder, "ca", append(ca, ca...), nil) // other authorities, as far as anybody can tell
	a.must(g.admin.Reload(true))
	expect("other.test", 3)
	g.write(config("{ ca: FOLDER/missing.pem }"))
	if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), filepath.Base(g.config)+":5:") {
		t.Errorf("a configuration without its authorities: %v", err)
	}
	expect("other.test", 3)
}
