package server

import (
	"context"
	cryptotls "crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// Certificates come by either challenge: http-01 to the listener for HTTP, before it redirects, and tls-alpn-01 to the one for
// TLS, although that wants certificates of its clients.
func TestACMEIssue(t *testing.T) {
	ours := newAuthority(t)
	folder := t.TempDir()
	ours.must(os.WriteFile(folder+"/clients.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw}), 0o600))
	for challenge, tls := range map[string]string{"http-01": "", "tls-alpn-01": "client_auth: { ca: " + folder + "/clients.pem }"} {
		t.Run(challenge, func(t *testing.T) {
			a := newIssuingAuthority(t, 0)
			g := a.run(a.config(t.TempDir(), "names: [one."+challenge+".test, two."+challenge+".test], challenges: "+challenge, tls))
			names := []string{"one." + challenge + ".test", "two." + challenge + ".test"}
			for _, name := range names {
				g.eventually(name+" has a certificate", func() bool { return !g.cert(name).NotAfter.IsZero() })
			}
			if byHTTP, byTLS := a.plain.count.Load(), a.encrypted.count.Load(); (byHTTP > 0) != (challenge == "http-01") || (byTLS > 0) != (challenge == "tls-alpn-01") {
				t.Errorf("%d connections to the plain listener, %d to the other", byHTTP, byTLS)
			}
			c := g.cert(names[0])
			if days := time.Until(c.Next).Hours() / 24; c.Source != "acme" || c.Listener != "http" || c.Problem != "" || c.Fingerprint == "" || days < 50 || days > 70 {
				t.Errorf("got %+v", c)
			}
			if got := g.metric(`sluice_acme_certificates_total{directory="` + a.url + `",renewal="no"}`); got != "2" {
				t.Errorf("counted %q certificates", got)
			}
			refusesStrangers(t, g)
			if tls != "" {
				return
			}
			a.untilIssued(g, names...)
			if leaf, err := a.connect(g, ""); err == nil || leaf != nil {
				t.Errorf("a client that trusts the authority took a certificate for no name")
			}
			misdirected(t, a, g, names[0], names[1])
		})
	}
}

// refusesStrangers fails unless what looks like a challenge, and is none, is treated as if there were no ACME.
func refusesStrangers(t *testing.T, g *running) {
	t.Helper()
	client := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/.well-known/acme-challenge/", "/.well-known/acme-challenge/unknown", "/.well-known/acme-challenge/../x", "/"} {
		r, err := client.Get("http://" + g.bind("plain") + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode != http.StatusPermanentRedirect && !strings.Contains(path, "..") {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
	}
	if _, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "other.test", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}); err == nil {
		t.Error("a challenge that is not under way was answered")
	}
}

// misdirected fails unless a connection serves the name of its certificate only.
func misdirected(t *testing.T, a *issuingAuthority, g *running, name, other string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &cryptotls.Config{RootCAs: a.pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, g.addr)
		}}}
	defer client.CloseIdleConnections()
	for host, want := range map[string]int{name: 200, other: 421} {
		q, _ := http.NewRequest("GET", "https://"+name+"/", nil)
		q.Host = host
		r, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != want || want == 200 && string(body) != "served" {
			t.Errorf("%s on a connection for %s: %d %q, want %d", host, name, r.StatusCode, body, want)
		}
	}
}

// Files win for their names, and serve those that have no certificate yet.
func TestACMEBesideFiles(t *testing.T) {
	ours := newAuthority(t)
	folder := t.TempDir()
	cert, key := ours.issue(true, "file.test", "both.test")
	ours.put(folder, "a", cert, key)
	a := newIssuingAuthority(t, 0)
	g := a.run(a.config(t.TempDir(), "names: [both.test, issued.test]", "certificates: [{ cert: "+folder+"/a.pem, key: "+folder+"/a.key }]"))
	a.plain.goTo(g.bind("plain"))
	g.eventually("issued.test has a certificate", func() bool { _, err := a.connect(g, "issued.test"); return err == nil })
	for _, name := range []string{"file.test", "both.test"} {
		c := ours.client(g.addr, true, nil)
		if r, _, err := ask(c, "https://"+name+"/", nil); err != nil || r.StatusCode != 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "unknown.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names := c.ConnectionState().PeerCertificates[0].DNSNames; names[0] != "file.test" {
		t.Errorf("an unknown name got the certificate of %v", names)
	}
}

// A client asks for a name; if the rule allows it, its handshake waits for the certificate. The loop, of which there is one,
// goes on meanwhile.
func TestACMEOnDemand(t *testing.T) {
	served := make(chan struct{}) // closed when a request was served while the rule was being asked
	asked := make(chan struct{}, 100)
	rule := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("domain") != "asked.test" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		asked <- struct{}{}
		select {
		case <-served:
		case <-r.Context().Done():
		}
	}))
	defer rule.Close()
	for _, c := range []struct{ more, good, bad string }{
		{`on_demand: { ask: "` + rule.URL + `/may" }`, "asked.test", "refused.test"},
		{`on_demand: { allow: ["*.customers.demand.test"] }`, "one.customers.demand.test", "x.one.customers.demand.test"},
	} {
		a := newIssuingAuthority(t, 0)
		g := a.run(strings.Replace(a.config(t.TempDir(), c.more, "unknown: refuse"), "loops: 2", "loops: 1", 1))
		for range 2 {
			if _, err := a.connect(g, c.bad); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%s: %v", c.bad, err)
			}
		}
		connected := make(chan error, 1)
		go func() {
			_, err := a.connect(g, c.good)
			connected <- err
		}()
		if c.good == "asked.test" {
			<-asked
			refusesStrangers(t, g)
			close(served)
		}
		if err := <-connected; err != nil {
			t.Fatalf("%s: %v\n%s", c.good, err, g.log)
		}
		first, err := a.connect(g, c.good)
		if err != nil {
			t.Fatal(err)
		}
		again, err := a.connect(g, c.good)
		if err != nil || !again.Equal(first) || a.issued.Load() != 1 {
			t.Errorf("%s: %v, %d issued", c.good, err, a.issued.Load())
		}
		if got := g.cert(c.good); got.Source != "on_demand" || got.NotAfter.IsZero() {
			t.Errorf("got %+v", got)
		}
		g.stop()
	}
}

// A reload that changes nothing about ACME asks for nothing; one that adds a name asks for that one. Clients never miss a
// certificate, and after a restart it comes from the storage while the authority is away.
func TestACMEReloadAndRestart(t *testing.T) {
	a := newIssuingAuthority(t, 0)
	storage := t.TempDir()
	config := func(names string) string { return a.config(storage, "names: ["+names+"]", "") }
	g := a.run(config("kept.test, dropped.test"))
	a.untilIssued(g, "kept.test", "dropped.test")
	first, err := a.connect(g, "kept.test")
	if err != nil {
		t.Fatal(err)
	}
	requests := a.requests.Load()
	same := func() {
		t.Helper()
		now, err := a.connect(g, "kept.test")
		if err != nil || !now.Equal(first) {
			t.Fatalf("the certificate is not kept: %v", err)
		}
	}
	for range 3 {
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
		same()
	}
	if n := a.requests.Load(); n != requests {
		t.Errorf("reloads made %d requests", n-requests)
	}
	g.write(config("kept.test, added.test"))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	same()
	if _, err := a.connect(g, "dropped.test"); err == nil {
		t.Error("a name that is not configured any more is served")
	}
	a.untilIssued(g, "added.test")
	same()
	if n := a.issued.Load(); n != 3 {
		t.Errorf("%d certificates were issued, want 3", n)
	}
	if got := g.metric(`sluice_acme_certificates_total{directory="` + a.url + `",renewal="no"}`); got != "3" {
		t.Errorf("counted %q certificates over the reload", got)
	}
	g.stop()

	a.down.Store(true)
	g = a.run(config("kept.test, added.test"))
	a.untilIssued(g, "kept.test", "added.test")
	same()
}

// What is in memory outlives a reload by itself: neither storage nor authority is needed for it.
func TestACMEReloadInherits(t *testing.T) {
	a := newIssuingAuthority(t, 0)
	storage := t.TempDir()
	g := a.run(a.config(storage, "names: [kept.inherit.test]", ""))
	a.untilIssued(g, "kept.inherit.test")
	a.down.Store(true)
	if err := os.RemoveAll(storage); err != nil {
		t.Fatal(err)
	}
	g.write(a.config(storage, "names: [kept.inherit.test, added.inherit.test]", ""))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	g.eventually("the new name is tried", func() bool { return g.cert("added.inherit.test").Problem != "" })
	if _, err := a.connect(g, "kept.inherit.test"); err != nil {
		t.Errorf("after the reload: %v", err)
	}
}

// What is due is renewed, by another account too, and clients never miss a certificate in between. One that lives for five
// minutes is due before the next regular look, which comes every ten.
func TestACMERenewal(t *testing.T) {
	a := newIssuingAuthority(t, 5*time.Minute)
	storage := t.TempDir()
	config := a.config(storage, "names: [short.renewal.test]", "")
	g := a.run(config)
	a.untilIssued(g, "short.renewal.test")
	first, err := a.connect(g, "short.renewal.test")
	if err != nil {
		t.Fatal(err)
	}
	// Another look than the regular one is taken where a configuration changes the issuer.
	g.write(strings.Replace(config, "ops@", "other@", 1))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	g.eventually("the certificate is another", func() bool {
		now, err := a.connect(g, "short.renewal.test")
		if err != nil {
			t.Fatalf("%v\n%s", err, g.log)
		}
		return !now.Equal(first)
	})
	g.eventually("it is counted", func() bool {
		return g.metric(`sluice_acme_certificates_total{directory="`+a.url+`",renewal="yes"}`) == "1"
	})
}

// While the authority is away the gateway serves what it has, and says what is wrong.
func TestACMEDirectoryDown(t *testing.T) {
	ours := newAuthority(t)
	folder := t.TempDir()
	cert, key := ours.issue(false, "file.test")
	ours.put(folder, "a", cert, key)
	a := newIssuingAuthority(t, 0)
	a.down.Store(true)
	g := a.run(a.config(t.TempDir(), "names: [down.test]", "certificates: [{ cert: "+folder+"/a.pem, key: "+folder+"/a.key }]\n      unknown: refuse"))
	if r, _, err := ask(ours.client(g.addr, true, nil), "https://file.test/", nil); err != nil || r.StatusCode != 200 {
		t.Errorf("file.test: %v", err)
	}
	g.eventually("the failure is told", func() bool { return g.cert("down.test").Problem != "" })
	c := g.cert("down.test")
	if !strings.Contains(c.Problem, a.url) || !c.NotAfter.IsZero() || time.Until(c.Next) < time.Minute {
		t.Errorf("got %+v", c)
	}
	if got := g.metric(`sluice_acme_failures_total{directory="` + a.url + `"}`); got != "1" {
		t.Errorf("counted %q failures", got)
	}
	if got := g.metric(`sluice_acme_names{listener="http",state="failed"}`); got != "1" {
		t.Errorf("%q names have failed", got)
	}
	if _, err := a.connect(g, "down.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("down.test: %v", err)
	}
}
