package tls

import (
	"crypto"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// responder answers for an authority.
type responder struct {
	t        *testing.T
	url      string
	ca       *authority
	asked    atomic.Int64
	mu       sync.Mutex
	status   int
	from     time.Duration // thisUpdate and nextUpdate, from now
	until    time.Duration
	signer   crypto.Signer
	signed   *x509.Certificate
	embedded bool
	broken   http.HandlerFunc // in place of an answer
}

func newResponder(t *testing.T, ca *authority) *responder {
	t.Helper()
	r := &responder{t: t, ca: ca, status: ocsp.Good, from: -time.Minute, until: time.Hour, signer: ca.key, signed: ca.cert}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.url = s.URL + "/status"
	return r
}

func (r *responder) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *responder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.asked.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		r.broken(w, q)
		return
	}
	body, err := io.ReadAll(q.Body)
	if q.Method == http.MethodGet {
		text, _ := url.QueryUnescape(strings.TrimPrefix(q.URL.EscapedPath(), "/status/"))
		body, err = base64.StdEncoding.DecodeString(text)
	}
	var asked *ocsp.Request
	if err == nil {
		asked, err = ocsp.ParseRequest(body)
	}
	if err != nil {
		r.t.Errorf("%s: %v", q.Method, err)
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	now := time.Now()
	template := ocsp.Response{Status: r.status, SerialNumber: asked.SerialNumber, ThisUpdate: now.Add(r.from), RevokedAt: now.Add(-time.Hour)}
	if r.until != 0 {
		template.NextUpdate = now.Add(r.until)
	}
	if r.embedded {
		template.Certificate = r.signed
	}
	raw, err := ocsp.CreateResponse(r.ca.cert, r.signed, template, r.signer)
	if err != nil {
		r.t.Error(err)
	}
	_, _ = w.Write(raw)
}

// mustStapleExtension is the TLS feature status_request.
var mustStapleExtension = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}

// quickStaples do not wait long for anything.
func quickStaples() *Staples {
	s := NewStaples()
	s.timing = stapleTiming{look: 2 * time.Millisecond, ask: 300 * time.Millisecond, firstPause: 20 * time.Millisecond, mostPause: 50 * time.Millisecond,
		leastPause: 10 * time.Millisecond, forget: time.Hour}
	return s
}

// stapled is a store that is kept stapled until the test ends.
type stapled struct {
	*Store
	server  *cryptotls.Config
	client  *cryptotls.Config
	mu      sync.Mutex
	reports []string
}

func newStapled(t *testing.T, r *responder, staples *Staples, change func(*x509.Certificate)) *stapled {
	t.Helper()
	leaf := r.ca.issue(t, ring().rsa2048, func(c *x509.Certificate) {
		c.OCSPServer = []string{"ldap://ignored.example.com", r.url}
		if change != nil {
			change(c)
		}
	}, "a.example.com")
	return stapledStore(t, r, staples, leaf)
}

func stapledStore(t *testing.T, r *responder, staples *Staples, leaf *issued) *stapled {
	t.Helper()
	s := &stapled{Store: newStore(t, Options{Pairs: []Pair{leaf.files(t)}, Staples: staples})}
	s.server = serverConfig(t, ServerOptions{Store: s.Store})
	s.client = &cryptotls.Config{RootCAs: r.ca.pool(), ServerName: "a.example.com"}
	var group sync.WaitGroup
	group.Go(func() {
		s.KeepStapled(t.Context(), func(_ string, missing bool, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			text := err.Error()
			if missing {
				text = "missing: " + text
			}
			s.reports = append(s.reports, text)
		})
	})
	t.Cleanup(group.Wait) // t.Context has ended by then
	return s
}

// seen is the staple that a client gets.
func (s *stapled) seen(t *testing.T) []byte {
	t.Helper()
	return good(t, s.server, s.client).client.OCSPResponse
}

func (s *stapled) status() StapleStatus { return s.Certificates()[0].Staple }

func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestStaple(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	staples := quickStaples()
	s := newStapled(t, r, staples, nil)
	until(t, "there is a staple", func() bool { return s.status().State == StapleGood })
	until(t, "a client sees it", func() bool { return s.seen(t) != nil })
	answer, err := ocsp.ParseResponseForCert(s.seen(t), s.Lookup("a.example.com").Leaf, r.ca.cert)
	if err != nil || answer.Status != ocsp.Good {
		t.Fatalf("got %+v, %v", answer, err)
	}
	if got := s.status(); got.Problem != "" || !got.Until.Equal(answer.NextUpdate) || time.Until(got.Next) < 20*time.Minute || time.Until(got.Next) > 40*time.Minute {
		t.Errorf("got %+v, want to ask again in half an hour", got)
	}
	if n := r.asked.Load(); n != 1 {
		t.Errorf("the responder was asked %d times", n)
	}
	// Another store, as after a reload, has it at once.
	next := newStore(t, Options{Pairs: []Pair{{CertPEM: encode("CERTIFICATE", s.Lookup("").Leaf.Raw) + r.ca.text, KeyPEM: keyText(t, ring().rsa2048)}}, Staples: staples})
	if !slices.Equal(next.Lookup("").OCSPStaple, s.seen(t)) {
		t.Error("a store made later has no staple")
	}
	if good, revoked, failed := staples.Counts(); good != 1 || revoked != 0 || failed != 0 {
		t.Errorf("counted %d good, %d revoked, %d failed", good, revoked, failed)
	}
}

// A long request goes by POST.
func TestStapleByPost(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	r.url += "/" + strings.Repeat("x", maxGetBytes)
	s := newStapled(t, r, quickStaples(), nil)
	until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
}

// A staple is replaced before it ends.
func TestStapleRefresh(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	r.from, r.until = 0, 4*time.Second // OCSP counts whole seconds
	s := newStapled(t, r, quickStaples(), nil)
	until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
	first := s.seen(t)
	until(t, "it sees another", func() bool {
		now := s.seen(t)
		if now == nil {
			t.Fatal("there was none in between")
		}
		return !slices.Equal(now, first)
	})
}

// A revoked certificate is not stapled, by no older response either.
func TestStapleRevoked(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	r.from, r.until = 0, 3*time.Second
	s := newStapled(t, r, quickStaples(), nil)
	until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
	r.set(func() { r.status, r.until = ocsp.Revoked, time.Hour })
	until(t, "the staple is gone", func() bool { return s.seen(t) == nil })
	if got := s.status(); got.State != StapleRevoked || !strings.Contains(got.Problem, "revoked on") {
		t.Errorf("got %+v", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) != 1 || !strings.Contains(s.reports[0], "revoked on") {
		t.Errorf("reported %q", s.reports)
	}
}

// What is not to be trusted is not stapled, and the responder is asked again, after pauses.
func TestStapleRefuses(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "ca")
	k := ring()
	sibling := ca.issue(t, k.p256, nil, "b.example.com")
	signing := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }
	expired := ca.issue(t, k.p256, func(c *x509.Certificate) { signing(c); c.NotAfter = time.Now().Add(-time.Minute) }, "ocsp")
	foreign := other.issue(t, k.p256, signing, "ocsp")
	by := func(r *responder, i *issued) { r.signer, r.signed, r.embedded = k.p256, i.cert, true }
	for name, c := range map[string]struct {
		want   string
		change func(r *responder)
	}{
		"expired":           {"it was to be replaced", func(r *responder) { r.from, r.until = -2*time.Hour, -time.Hour }},
		"without end":       {"until when", func(r *responder) { r.until = 0 }},
		"of the future":     {"only from", func(r *responder) { r.from, r.until = time.Hour, 2*time.Hour }},
		"unknown":           {"not known there", func(r *responder) { r.status = ocsp.Unknown }},
		"of another key":    {"signature", func(r *responder) { r.signer = other.key }},
		"of a sibling":      {"may not sign", func(r *responder) { by(r, sibling) }},
		"of another's":      {"signature", func(r *responder) { by(r, foreign) }},
		"of an expired one": {"not valid now", func(r *responder) { by(r, expired) }},
		"slow":              {"deadline", func(r *responder) { r.broken = func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() } }},
		"huge": {"more than 64 KiB", func(r *responder) {
			r.broken = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }
		}},
		"no response": {"cannot use the answer", func(r *responder) {
			r.broken = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
		}},
		"an error": {"its status is 503", func(r *responder) { r.broken = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) } }},
		"elsewhere": {"its status is 302", func(r *responder) {
			r.broken = func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, "/", http.StatusFound) }
		}},
		"try later": {"try later", func(r *responder) {
			r.broken = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(ocsp.TryLaterErrorResponse) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResponder(t, ca)
			c.change(r)
			s := newStapled(t, r, quickStaples(), func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{mustStapleExtension} })
			until(t, "it is asked twice", func() bool { return r.asked.Load() >= 2 })
			if got := s.status(); got.State != StapleFailed || !strings.Contains(got.Problem, c.want) || s.seen(t) != nil {
				t.Errorf("got %+v, want %q", got, c.want)
			}
			s.mu.Lock()
			reports := slices.Clone(s.reports)
			s.mu.Unlock()
			if len(reports) == 0 || !strings.HasPrefix(reports[0], "missing: ") {
				t.Errorf("reported %q", reports)
			}
			r.set(func() {
				fixed := newResponder(t, ca)
				r.status, r.from, r.until, r.signer, r.signed, r.embedded, r.broken = ocsp.Good, fixed.from, fixed.until, ca.key, ca.cert, false, nil
			})
			until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
		})
	}
}

// A responder that the issuer has authorised is believed.
func TestStapleDelegated(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	signer := r.ca.issue(t, ring().p384, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }, "ocsp")
	r.signer, r.signed, r.embedded = ring().p384, signer.cert, true
	s := newStapled(t, r, quickStaples(), nil)
	until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
}

// A responder that fails takes nothing away before its time, and an older answer replaces nothing.
func TestStapleOutlivesResponder(t *testing.T) {
	r := newResponder(t, newAuthority(t, "ca"))
	r.from, r.until = 0, 6*time.Second
	s := newStapled(t, r, quickStaples(), nil)
	until(t, "a client sees a staple", func() bool { return s.seen(t) != nil })
	first := s.seen(t)
	r.set(func() { r.from, r.until = -time.Hour, time.Hour })
	until(t, "the older answer is refused", func() bool { return strings.Contains(s.status().Problem, "older than the last") })
	r.set(func() { r.broken = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) } })
	until(t, "the responder fails", func() bool { return strings.Contains(s.status().Problem, "its status is 500") })
	if got := s.status(); got.State != StapleGood || !slices.Equal(s.seen(t), first) {
		t.Errorf("got %+v", got)
	}
	until(t, "the staple has ended", func() bool { return s.status().State == StapleFailed })
	until(t, "no client gets it", func() bool { return s.seen(t) == nil })
}

// Certificates that demand a staple and can have none are warned of; those that name no responder ask nobody.
func TestStapleImpossible(t *testing.T) {
	ca := newAuthority(t, "ca")
	f := func(want, state string, staples *Staples, chain bool, change func(*x509.Certificate)) {
		t.Helper()
		i := ca.issue(t, ring().p256, change, "a.example.com")
		if !chain {
			i.text = encode("CERTIFICATE", i.cert.Raw)
		}
		s, warnings, err := NewStore(Options{Pairs: []Pair{i.files(t)}, Staples: staples})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, w := range warnings {
			if w.Kind == Unstapled {
				got = w.Text
			}
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := s.Certificates()[0].Staple.State; got != state {
			t.Errorf("got state %q, want %q", got, state)
		}
	}
	must := func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{mustStapleExtension} }
	asks := func(c *x509.Certificate) { c.OCSPServer = []string{"http://127.0.0.1:1/"} }
	both := func(c *x509.Certificate) { must(c); asks(c) }
	f("names no responder", StapleOff, NewStaples(), true, must)
	f("issuer is missing", StapleOff, NewStaples(), false, both)
	f("stapling is off", StapleOff, nil, true, both)
	f("", StapleOff, nil, true, asks)
	f("", StapleWaiting, NewStaples(), true, both)
	f("", "", NewStaples(), true, nil)
	f("", "", nil, true, nil)
}

// The next question comes in the middle of a response's life, never too soon, whatever the response.
func TestStapleNext(t *testing.T) {
	timing, now := defaultStapleTiming(), time.Now()
	f := func(from, until, least, most time.Duration) {
		t.Helper()
		for range 50 {
			got := timing.refresh(&ocsp.Response{ThisUpdate: now.Add(from), NextUpdate: now.Add(until)}, now).Sub(now)
			if got < least || got > most {
				t.Errorf("asks again after %v, want %v to %v", got, least, most)
			}
		}
	}
	f(0, 10*time.Hour, 4*time.Hour+30*time.Minute, 5*time.Hour+30*time.Minute)
	f(-2*time.Hour, 10*time.Hour, 3*time.Hour+24*time.Minute, 4*time.Hour+36*time.Minute)
	f(-9*time.Hour, time.Hour, 27*time.Minute, 33*time.Minute) // a cache's, past its middle
	f(0, time.Second, timing.leastPause, timing.leastPause)
	f(-time.Hour, -time.Nanosecond, timing.leastPause, timing.leastPause)
}

// What no store has any more is forgotten.
func TestStaplesAreForgotten(t *testing.T) {
	s := NewStaples()
	now := time.Now()
	for i := range 3 {
		id := fingerprint(sha256.Sum256([]byte{byte(i)}))
		if !s.begin(id, now.Add(time.Duration(i-2)*time.Hour)) {
			t.Fatal("it is not time")
		}
		<-s.slots
		s.all[id].asking = i == 1
	}
	s.sweep(now)
	if len(s.all) != 2 {
		t.Errorf("%d are left", len(s.all))
	}
}
