package server

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"github.com/sluice-gateway/sluice/core/admin"
)

// relay is a port that is known before the gateway's: connections wait until it is said where they go.
type relay struct {
	port  int
	count atomic.Int64
	mu    sync.Mutex
	to    string
	set   chan struct{} // closed once to is known
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{port: ln.Addr().(*net.TCPAddr).Port, set: make(chan struct{})}
	var group sync.WaitGroup
	over := make(chan struct{})
	group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.count.Add(1)
			group.Go(func() { r.pass(c, over) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		close(over)
		group.Wait()
	})
	return r
}

// goTo sends connections to addr, those that come after a restart of the gateway too.
func (r *relay) goTo(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to == "" {
		close(r.set)
	}
	r.to = addr
}

func (r *relay) pass(c net.Conn, over chan struct{}) {
	defer c.Close()
	select {
	case <-r.set:
	case <-over:
		return
	}
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	for _, one := range []net.Conn{c, up} {
		_ = one.SetDeadline(time.Now().Add(patience))
	}
	go func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
}

// issuingAuthority is a pebble in this process. Its validation resolves all names to 127.0.0.1 and comes through the relays.
type issuingAuthority struct {
	t                *testing.T
	url, caFile      string
	pool             *x509.CertPool
	plain, encrypted *relay
	down             atomic.Bool // connections are cut
	requests, issued atomic.Int64
}

// newIssuingAuthority makes one whose certificates are valid for so long; 0: for 90 days.
func newIssuingAuthority(t *testing.T, valid time.Duration) *issuingAuthority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	a := &issuingAuthority{t: t, plain: newRelay(t), encrypted: newRelay(t), pool: x509.NewCertPool()}
	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(valid / time.Second)}})
	validation := va.New(quiet, a.plain.port, a.encrypted.port, false, newResolver(t), store)
	front := wfe.New(quiet, store, validation, issuer, []string{"authority.test"}, false, false, 0, 0)
	handler := front.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.down.Load() {
			panic(http.ErrAbortHandler)
		}
		a.requests.Add(1)
		seen := &answered{ResponseWriter: w}
		handler.ServeHTTP(seen, r)
		if strings.Contains(r.URL.Path, "/finalize-order/") && seen.status < 300 {
			a.issued.Add(1)
		}
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	a.url = server.URL + wfe.DirectoryPath
	a.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(a.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(issuer.GetRootCert(0).Cert)
	return a
}

// answered is a response of which the status is known.
type answered struct {
	http.ResponseWriter
	status int
}

func (w *answered) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// newResolver is a name server for which all names are here.
func newResolver(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, done := make(chan struct{}), make(chan struct{})
	server := &dns.Server{Listener: ln, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return ln.Addr().String()
}

const acmeConfig = `
loops: 2
access_log: { to: off }
listeners:
  plain: { bind: "127.0.0.1:0", redirect: http }
  http:
    bind: "127.0.0.1:0"
    tls:
      acme: { email: EMAIL, directory: "DIRECTORY", ca: CA, agree: true, storage: STORAGE, MORE }
      TLS
routes: [{ match: "/*", respond: { body: served } }]
`

// config is that of a gateway that gets certificates. more is of acme, tls of the listener's tls.
func (a *issuingAuthority) config(storage, more, tls string) string {
	return strings.NewReplacer("EMAIL", "ops@gateway.test", "DIRECTORY", a.url, "CA", a.caFile, "STORAGE", storage, "MORE", more, "TLS", tls).Replace(acmeConfig)
}

// run starts a gateway to which the authority's validation comes.
func (a *issuingAuthority) run(config string) *running {
	a.t.Helper()
	g := run(a.t, config)
	a.encrypted.goTo(g.addr)
	a.plain.goTo(g.bind("plain"))
	return g
}

// bind is the first address of a listener.
func (g *running) bind(name string) string {
	g.t.Helper()
	for _, l := range g.status().Listeners {
		if l.Name == name {
			return l.Binds[0]
		}
	}
	g.t.Fatalf("there is no listener %q", name)
	return ""
}

// connect is a handshake of a client that trusts the authority alone.
func (a *issuingAuthority) connect(g *running, name string) (*x509.Certificate, error) {
	d := &cryptotls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &cryptotls.Config{ServerName: name, RootCAs: a.pool}}
	c, err := d.Dial("tcp", g.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*cryptotls.Conn).ConnectionState().PeerCertificates[0], nil
}

func (g *running) certs() []admin.CertificateStatus {
	g.t.Helper()
	all, err := g.admin.Certs()
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

// cert is the status of the certificate of a name.
func (g *running) cert(name string) (found admin.CertificateStatus) {
	g.t.Helper()
	for _, c := range g.certs() {
		if len(c.Names) > 0 && c.Names[0] == name {
			return c
		}
	}
	return found
}

// untilIssued waits until clients get certificates of the authority for the names.
func (a *issuingAuthority) untilIssued(g *running, names ...string) {
	g.t.Helper()
	for _, name := range names {
		g.eventually(name+" has a certificate", func() bool { c := g.cert(name); return !c.NotAfter.IsZero() && c.Problem == "" })
		if _, err := a.connect(g, name); err != nil {
			g.t.Fatalf("%s: %v", name, err)
		}
	}
}

// metric is the value of a series.
func (g *running) metric(series string) string {
	g.t.Helper()
	text, err := g.admin.Metrics()
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}
