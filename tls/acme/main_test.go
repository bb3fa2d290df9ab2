package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
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

	"github.com/sluice-gateway/sluice/core/leak"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 30 * time.Second

// otherProcess is the variable with the options of a Issuer that a test runs in a process of its own.
const otherProcess = "SLUICE_TEST_ACME_OPTIONS"

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) {
	if text := os.Getenv(otherProcess); text != "" {
		os.Exit(beOtherProcess(text))
	}
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5", "PEBBLE_AUTHZREUSE": "0"} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(leak.Check(m.Run))
}

// beOtherProcess has a Issuer until all names have certificates.
func beOtherProcess(text string) int {
	var o Options
	err := json.Unmarshal([]byte(text), &o)
	var m *Issuer
	if err == nil {
		m, err = New(o)
	}
	if err == nil {
		err = m.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer m.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // between two looks
		for _, s := range m.Status() {
			switch s.State {
			case StateFailed:
				fmt.Println(s.LastError)
				return 1
			case StateValid:
				return 0
			}
		}
	}
	fmt.Println("no certificate in time")
	return 1
}

// front is what the authority's validation meets, and clients: real listeners whose challenges and certificates are those of
// the Issuer that is set. It counts the challenges that it answered.
type front struct {
	issuer            atomic.Pointer[Issuer]
	stored            bool // answer http-01 for other processes too
	http01, tlsALPN01 atomic.Int64
	wrong             atomic.Int64 // answers to what is no challenge, while one is under way
	httpPort, tlsPort int
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// newFront listens for either challenge, or leaves its port closed.
func newFront(t testing.TB, overHTTP, overTLS bool) *front {
	f := &front{}
	plain, encrypted := listen(t), listen(t)
	f.httpPort, f.tlsPort = plain.Addr().(*net.TCPAddr).Port, encrypted.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: http.HandlerFunc(f.serve)}
	secure := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.NotFoundHandler(), TLSConfig: &cryptotls.Config{
		GetCertificate: f.certificate, NextProtos: []string{"http/1.1", ALPN}}}
	var group sync.WaitGroup
	if overHTTP {
		group.Go(func() { _ = server.Serve(plain) })
	} else {
		_ = plain.Close()
	}
	if overTLS {
		group.Go(func() { _ = secure.ServeTLS(encrypted, "", "") })
	} else {
		_ = encrypted.Close()
	}
	t.Cleanup(func() {
		_ = server.Close()
		_ = secure.Close()
		group.Wait()
	})
	return f
}

func (f *front) serve(w http.ResponseWriter, r *http.Request) {
	if m := f.issuer.Load(); m != nil {
		body, ok := m.Challenge(r.Host, r.URL.Path)
		if !ok && f.stored {
			body, ok = m.StoredChallenge(r.Context(), r.Host, r.URL.Path)
		}
		if ok {
			f.http01.Add(1)
			for host, path := range map[string]string{r.Host: r.URL.Path + "x", "other." + r.Host: r.URL.Path, "": r.URL.Path} {
				if _, ok := m.StoredChallenge(r.Context(), host, path); ok {
					f.wrong.Add(1)
				}
			}
			_, _ = io.WriteString(w, body)
			return
		}
	}
	http.NotFound(w, r)
}

func (f *front) certificate(hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	m := f.issuer.Load()
	if m == nil {
		return nil, ErrNoCertificate
	}
	cert, err := m.GetCertificate(hello.Context(), hello)
	if err == nil && IsChallenge(hello) {
		f.tlsALPN01.Add(1)
	}
	return cert, err
}

// authority is a pebble in this process.
type authority struct {
	url, caFile, storage string
	db                   *db.MemoryStore
	roots                *x509.CertPool
	down                 atomic.Bool  // connections are cut
	requests, issued     atomic.Int64 // of all requests; of certificates
	again                atomic.Bool  // clients are to ask for renewal information again after a second
}

// newAuthority makes one whose certificates are valid for so long; 0: for 90 days. Its validation resolves all names to
// 127.0.0.1 and uses the ports of the front.
func newAuthority(t testing.TB, f *front, valid time.Duration) *authority {
	t.Helper()
	return makeAuthority(t, f, valid, nil)
}

// newBoundAuthority makes one that knows these customers, by key identifier, and serves nobody else.
func newBoundAuthority(t testing.TB, f *front, customers map[string]string) *authority {
	t.Helper()
	return makeAuthority(t, f, 0, customers)
}

func makeAuthority(t testing.TB, f *front, valid time.Duration, customers map[string]string) *authority {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	a := &authority{db: db.NewMemoryStore(), storage: filepath.Join(t.TempDir(), "certificates")}
	profiles := map[string]ca.Profile{"default": {ValidityPeriod: uint64(valid / time.Second)}}
	issuer := ca.New(quiet, a.db, "", "ecdsa", 0, 1, profiles)
	validation := va.New(quiet, f.httpPort, f.tlsPort, false, newResolver(t), a.db)
	pebble := wfe.New(quiet, a.db, validation, issuer, []string{"authority.test"}, false, customers != nil, 0, 0)
	for kid, key := range customers {
		if err := a.db.AddExternalAccountKeyByID(kid, key); err != nil {
			t.Fatal(err)
		}
	}
	handler := pebble.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.down.Load() {
			panic(http.ErrAbortHandler)
		}
		a.requests.Add(1)
		seen := &response{ResponseWriter: w, again: a.again.Load() && r.Method == http.MethodGet}
		handler.ServeHTTP(seen, r)
		if strings.Contains(r.URL.Path, "/finalize-order/") && seen.status == http.StatusOK {
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
	a.roots = x509.NewCertPool()
	a.roots.AddCert(issuer.GetRootCert(0).Cert)
	return a
}

// response is one of which the status is known, and after which the client may have to ask again soon.
type response struct {
	http.ResponseWriter
	status int
	again  bool
}

func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

func (r *response) WriteHeader(status int) {
	r.status = status
	if r.again && r.Header().Get("Retry-After") != "" {
		r.Header().Set("Retry-After", "1")
	}
	r.ResponseWriter.WriteHeader(status)
}

// newResolver is a name server for which all names are here.
func newResolver(t testing.TB) string {
	t.Helper()
	ln := listen(t)
	server := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
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

func (a *authority) options(names ...string) Options {
	return Options{Email: "ops@gateway.test", Directory: a.url, CAFile: a.caFile, Storage: a.storage, Names: names}
}

// newManager makes one that is patient with nobody.
func newManager(t testing.TB, o Options, change func(*Issuer)) *Issuer {
	t.Helper()
	if testing.Verbose() && os.Getenv("ACME_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.timing.firstPause, m.timing.mostPause = 50*time.Millisecond, 200*time.Millisecond
	if change != nil {
		change(m)
	}
	return m
}

// start runs a Issuer behind the front until the test ends.
func start(t testing.TB, f *front, o Options, change func(*Issuer)) *Issuer {
	t.Helper()
	m := newManager(t, o, change)
	f.issuer.Store(m)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// until waits for a condition.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func status(t testing.TB, m *Issuer, name string) CertificateStatus {
	t.Helper()
	for _, s := range m.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status for %q", name)
	return CertificateStatus{}
}

func untilValid(t testing.TB, m *Issuer, names ...string) {
	t.Helper()
	var last CertificateStatus
	defer func() {
		if t.Failed() {
			t.Logf("last status: %+v", last)
		}
	}()
	for _, n := range names {
		until(t, n+" is valid", func() bool { last = status(t, m, n); return last.State == StateValid })
	}
}

// connect is a handshake of a client that trusts the authority's root. The certificate is the one that it got.
func (a *authority) connect(f *front, name string) (*x509.Certificate, error) {
	d := &cryptotls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &cryptotls.Config{ServerName: name, RootCAs: a.roots, NextProtos: []string{"http/1.1"}}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.tlsPort))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*cryptotls.Conn).ConnectionState().PeerCertificates[0], nil
}

// verify fails unless the certificate is the authority's for the name.
func (a *authority) verify(t testing.TB, cert *cryptotls.Certificate, name string) {
	t.Helper()
	if cert == nil {
		t.Fatalf("no certificate for %q", name)
	}
	chain := x509.NewCertPool()
	for _, raw := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		chain.AddCert(c)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.roots, Intermediates: chain}); err != nil {
		t.Fatal(err)
	}
}

func hello(name string, protocols ...string) *cryptotls.ClientHelloInfo {
	return &cryptotls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols}
}

func wantsNone(t testing.TB, err error, text string) {
	t.Helper()
	if !errors.Is(err, ErrNoCertificate) || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want ErrNoCertificate with %q", err, text)
	}
}

func id(c *cryptotls.Certificate) [32]byte { return sha256.Sum256(c.Leaf.Raw) }

// selfSigned is valid for 90 days from then.
func selfSigned(t testing.TB, from time.Time) *cryptotls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(from.Unix()), DNSNames: []string{"a.test"}, NotBefore: from, NotAfter: from.Add(90 * 24 * time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &cryptotls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

// connected gives both ends of a connection.
func connected(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln := listen(t)
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if a, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// fresh is a name that no test had before: certmagic remembers for which names renewals failed, of a Issuer that is closed
// meanwhile too.
func fresh(label string) string { return fmt.Sprintf("%s-%x.test", label, time.Now().UnixNano()) }
