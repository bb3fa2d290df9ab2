// Package acme gets certificates from an authority by ACME, RFC 8555, and renews them in time. The protocol, the storage, its
// locks and the times of renewal, RFC 9773, are certmagic's; the package adds what a gateway needs: look-ups that wait for
// nothing, challenges that are answered by listeners of the gateway rather than by ports opened for them, retries that do
// not end, and a status.
package acme

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// maxNames is the most of Options.Names.
	maxNames = 10_000
	// maxOnDemand is the most of names that were asked for by clients and are remembered.
	maxOnDemand = 10_000
	// maxAttempts is how many certificates are asked for at the same time, of Names and on demand each.
	maxAttempts = 16
	// maxCAFileBytes bounds the file of authorities.
	maxCAFileBytes = 4 << 20
)

// ErrNoCertificate is what errors of GetCertificate wrap.
var ErrNoCertificate = errors.New("no certificate")

// Options are what a Issuer is made from.
type Options struct {
	// Email is the contact of the account with the authority.
	Email string
	// Directory is the https URL of the authority's directory, RFC 8555, section 7.1.1. To use it is to agree to its terms.
	Directory string
	// CAFile are PEM certificates that the directory's is verified by; "": those of the system.
	CAFile string
	// Storage is the folder of account, keys and certificates; it is made when it is first needed. Processes may share it, and
	// issue once.
	Storage string
	// Names get certificates, one each. Neither wildcards, which neither challenge can prove, nor addresses are possible.
	Names []string
	// OnDemand, unless nil, is asked whether a name that a client wants, and that is not of Names, may have a certificate: before
	// it is got, and before it is renewed. It may be called by many goroutines at once and has 10 s.
	OnDemand func(ctx context.Context, name string) error
	// NoHTTP01 and NoTLSALPN01 exclude a challenge that no listener could answer. One must be left.
	NoHTTP01, NoTLSALPN01 bool
	// ExternalAccount binds the account to one that the authority knows already, RFC 8555, section 7.3.4; nil: it asks for none.
	ExternalAccount *ExternalAccount
	// NoStaples turns off OCSP stapling, which is otherwise done for certificates that name a responder.
	NoStaples bool
	// Counters are added to; several Issuers may have them in common. nil: the Issuer's own.
	Counters *Counters
	// Log gets what happens to certificates; nil: nobody does.
	Log *slog.Logger
}

// ExternalAccount is what the authority gave its customer: an identifier, and a key in base64url without padding.
type ExternalAccount struct {
	KeyID, HMAC string
}

// Counters only grow. They may be read at any time by any goroutine.
type Counters struct {
	// Obtained are first certificates of a name, Renewed those that replaced one, as far as this process got them.
	Obtained, Renewed atomic.Uint64
	// Failures are attempts that came to nothing.
	Failures atomic.Uint64
}

// timing is apart so that tests need not wait.
type timing struct {
	firstPause, mostPause time.Duration // after the first failure; doubled by each further one up to the most
	renewEvery            time.Duration // between two looks whether a renewal is due
	sweepEvery            time.Duration // between two looks for what changed in memory without an event, such as staples
	attempt               time.Duration // the longest attempt, waiting for other processes' included
	rule                  time.Duration // for Options.OnDemand
}

// defaultTiming makes five attempts in the first hour: an authority may refuse a name for an hour after five failed ones.
func defaultTiming() timing {
	return timing{firstPause: 2 * time.Minute, mostPause: time.Hour, renewEvery: certmagic.DefaultRenewCheckInterval, sweepEvery: time.Minute,
		attempt: 10 * time.Minute, rule: 10 * time.Second}
}

// Issuer has the certificates of Options. All methods may be called at any time by any goroutine. It lives from New to
// Close; what it had in memory it still gives after.
//
// Two things are the process's, by certmagic: a challenge under way is answered by every Issuer, whoever began it; and after
// failed renewals of a name the pauses are common.
type Issuer struct {
	options Options
	timing  timing
	roots   *x509.CertPool // nil: the system's
	storage *certmagic.FileStorage
	names   map[string]*entry // of Options.Names; not changed after New

	demandMu     sync.RWMutex // held for map operations only
	demand       map[string]*entry
	live         sync.Map // the same as demand, for look-ups on event loops, which must not wait for a lock
	mostOnDemand int

	lifeMu  sync.Mutex
	closed  bool
	running atomic.Pointer[running] // nil before Start
}

// running is what there is from Start to Close.
type running struct {
	ctx    context.Context
	cancel context.CancelFunc
	config *certmagic.Config
	// unlinked is config but for orders that do not say which certificate they replace.
	unlinked *certmagic.Config
	issuer   *certmagic.ACMEIssuer
	cache    *certmagic.Cache
	port     net.Listener
	slots    chan struct{} // on-demand attempts under way

	mu     sync.Mutex // for closed and for adding to the group
	closed bool
	group  sync.WaitGroup
}

// New checks the options. It reads CAFile and nothing else, starts nothing and needs no Close.
func New(o Options) (*Issuer, error) {
	if err := checkEmail(o.Email); err != nil {
		return nil, err
	}
	if err := checkDirectory(o.Directory); err != nil {
		return nil, err
	}
	m := &Issuer{options: o, timing: defaultTiming(), names: map[string]*entry{}, demand: map[string]*entry{},
		mostOnDemand: maxOnDemand}
	if o.CAFile != "" {
		roots, err := readRoots(o.CAFile)
		if err != nil {
			return nil, err
		}
		m.roots = roots
	}
	switch at, err := os.Stat(o.Storage); {
	case o.Storage == "":
		return nil, errors.New("cannot use ACME without a folder for keys and certificates")
	case err == nil && !at.IsDir():
		return nil, fmt.Errorf("cannot keep certificates in %q: it is not a folder", o.Storage)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot keep certificates in %q: %w", o.Storage, err)
	}
	m.storage = &certmagic.FileStorage{Path: o.Storage}
	if o.NoHTTP01 && o.NoTLSALPN01 {
		return nil, errors.New("cannot use ACME without a challenge")
	}
	if err := checkExternalAccount(o.ExternalAccount); err != nil {
		return nil, err
	}
	if o.Counters == nil {
		m.options.Counters = &Counters{}
	}
	if len(o.Names) == 0 && o.OnDemand == nil {
		return nil, errors.New("cannot use ACME without names, unless certificates are got on demand")
	}
	if len(o.Names) > maxNames {
		return nil, fmt.Errorf("cannot get certificates for %d names by ACME: the most are %d", len(o.Names), maxNames)
	}
	for _, given := range o.Names {
		name, ok := fold(given)
		if !ok {
			return nil, fmt.Errorf("cannot get a certificate for %q by ACME: %s", given, whyNot(given))
		}
		m.names[name] = &entry{name: name}
	}
	if o.Log == nil {
		m.options.Log = slog.New(slog.DiscardHandler)
	}
	return m, nil
}

// checkEmail wants what stands in a mailto URL as one address without anything else, RFC 8555, section 7.3.
func checkEmail(email string) error {
	user, domain, ok := strings.Cut(email, "@")
	strange := strings.ContainsFunc(email, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`,;:?&#%<>()[]"\/`, r) })
	switch {
	case email == "":
		return errors.New("cannot use ACME without an email address for the account")
	case !ok || user == "" || len(email) > 254 || strange || strings.Contains(domain, "@"):
		return fmt.Errorf("cannot use %q for the ACME account: it is no email address", email)
	}
	if _, ok := fold(domain); !ok {
		return fmt.Errorf("cannot use %q for the ACME account: its domain is none", email)
	}
	return nil
}

func checkDirectory(directory string) error {
	u, err := url.Parse(directory)
	switch {
	case err != nil:
		return fmt.Errorf("cannot use the ACME directory %q: it is no URL", directory)
	case u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("cannot use the ACME directory %q: it must be an https URL", directory)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("cannot use the ACME directory %q: it has a user or a fragment", u.Redacted())
	}
	return nil
}

func checkExternalAccount(a *ExternalAccount) error {
	if a == nil {
		return nil
	}
	key, err := base64.RawURLEncoding.DecodeString(a.HMAC)
	if a.KeyID == "" || err != nil || len(key) == 0 { // the key is not for anybody's eyes
		return errors.New("cannot bind the ACME account: it takes an identifier, and a key in base64url without padding")
	}
	return nil
}

func readRoots(file string) (*x509.CertPool, error) {
	at, err := os.Stat(file)
	if err == nil && at.Size() > maxCAFileBytes {
		err = fmt.Errorf("it has more than %d bytes", maxCAFileBytes)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot trust the authorities of %q: %w", file, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("cannot trust the authorities of %q: there is no certificate in it", file)
	}
	return roots, nil
}

// Start gets certificates and renews them from now on, until ctx is done or Close is called; the latter is needed in any
// case. It waits for nothing, neither storage nor authority: what goes wrong there is in Status. A second Start does nothing.
func (m *Issuer) Start(ctx context.Context) error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if m.closed || m.running.Load() != nil {
		return nil
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot hold a port for ACME challenges: %w", err)
	}
	r := &running{port: port, slots: make(chan struct{}, maxAttempts)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	log := m.zapLogger()
	r.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return r.config, nil },
		RenewCheckInterval: m.timing.renewEvery,
		Logger:             log,
	})
	config := certmagic.Config{
		Storage: m.storage,
		Logger:  log,
		OnEvent: func(ctx context.Context, event string, data map[string]any) error {
			return m.onEvent(ctx, r, event, data)
		},
		ShouldEmitFunc: func(event string) bool { return event != "tls_get_certificate" },
		OCSP:           certmagic.OCSPConfig{DisableStapling: m.options.NoStaples, HTTPProxy: r.proxy},
	}
	r.config = certmagic.New(r.cache, config)
	config.DisableARI = true
	r.unlinked = certmagic.New(r.cache, config)
	// Before it presents a challenge certmagic listens on these ports, or takes it that whoever listens answers: this does the
	// latter. The challenges come to the gateway's own listeners.
	held := port.Addr().(*net.TCPAddr)
	var bound *acme.EAB
	if a := m.options.ExternalAccount; a != nil {
		bound = &acme.EAB{KeyID: a.KeyID, MACKey: a.HMAC}
	}
	r.issuer = certmagic.NewACMEIssuer(r.config, certmagic.ACMEIssuer{
		CA: m.options.Directory, Email: m.options.Email, Agreed: true, TrustedRoots: m.roots, Logger: log,
		ListenHost: held.IP.String(), AltHTTPPort: held.Port, AltTLSALPNPort: held.Port,
		DisableHTTPChallenge: m.options.NoHTTP01, DisableTLSALPNChallenge: m.options.NoTLSALPN01,
		ExternalAccount: bound,
		HTTPProxy:       r.proxy,
	})
	r.config.Issuers = []certmagic.Issuer{r.issuer}
	r.unlinked.Issuers = r.config.Issuers
	m.running.Store(r)
	r.spawn(r.hold)
	r.spawn(func() { m.drive(r) })
	return nil
}

// Close ends what Start began and waits for it. Attempts under way are given up; certificates in memory stay. It may take
// half a minute if certmagic waits for an answer of the authority about a renewal, which it does without a context of ours.
func (m *Issuer) Close() {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	r := m.running.Load()
	if m.closed || r == nil {
		m.closed = true
		return
	}
	m.closed = true
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	_ = r.port.Close()
	r.cache.Stop()
	r.group.Wait()
}

// spawn runs f unless all has ended.
func (r *running) spawn(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.group.Go(f)
	return true
}

// proxy is that of the environment. It is asked before each request, and so is where those that certmagic makes in a context
// of its own find out that all has ended.
func (r *running) proxy(request *http.Request) (*url.URL, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	return http.ProxyFromEnvironment(request)
}

// hold ends the connections by which certmagic finds out that somebody listens.
func (r *running) hold() {
	for {
		c, err := r.port.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_ = c.Close()
			continue
		}
		select { // out of descriptors, mostly
		case <-r.ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// GetCertificate gives the certificate for a handshake: for the challenge tls-alpn-01 if that is what the client offers alone,
// or that of the name. An error wraps ErrNoCertificate and says why there is none.
//
// It answers from memory, and may be called on an event loop, for names of Options.Names whether they have a certificate or
// not, and for all that Cached gives. It may block for a name got on demand, until Options.OnDemand has decided and the
// certificate is there or ctx done, which is seconds; and for a challenge, which may be one that another process on the same
// folder presents, for which a file is read. MayBlock tells beforehand. An attempt that was begun goes on after ctx is done.
func (m *Issuer) GetCertificate(ctx context.Context, hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	name, ok := fold(hello.ServerName)
	if !ok {
		return nil, fmt.Errorf("%w: the client asks for %.64q", ErrNoCertificate, hello.ServerName)
	}
	if IsChallenge(hello) {
		return m.challengeCertificate(ctx, hello, name)
	}
	if cert := m.cached(name); cert != nil {
		return cert, nil
	}
	if e := m.names[name]; e != nil {
		return nil, e.missing()
	}
	if m.options.OnDemand == nil {
		return nil, fmt.Errorf("%w for %q, which is not managed", ErrNoCertificate, name)
	}
	return m.getOnDemand(ctx, name)
}

// MayBlock says whether GetCertificate might wait for something.
func (m *Issuer) MayBlock(hello *cryptotls.ClientHelloInfo) bool {
	name, ok := fold(hello.ServerName)
	switch {
	case !ok:
		return false
	case IsChallenge(hello):
		return true
	}
	return m.names[name] == nil && m.options.OnDemand != nil && m.cached(name) == nil
}

// Cached gives the certificate for a name, in any case and with or without trailing dot, that is in memory; nil if there
// is none. It never blocks and takes no lock.
func (m *Issuer) Cached(name string) *cryptotls.Certificate {
	if name, ok := fold(name); ok {
		return m.cached(name)
	}
	return nil
}

func (m *Issuer) cached(name string) *cryptotls.Certificate {
	if e := m.names[name]; e != nil {
		return e.cert.Load()
	}
	if m.options.OnDemand == nil {
		return nil
	}
	found, ok := m.live.Load(name)
	if !ok {
		return nil
	}
	e := found.(*entry)
	cert := e.cert.Load()
	if cert != nil && !e.used.Load() {
		e.used.Store(true)
	}
	return cert
}

// managed says whether the name could have a certificate from here.
func (m *Issuer) managed(name string) bool { return m.names[name] != nil || m.options.OnDemand != nil }
