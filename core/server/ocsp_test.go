package server

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Clients get the response of the certificate's responder with the handshake, which waits for no responder; a reload neither
// loses it nor asks again.
func TestOCSPStapling(t *testing.T) {
	a := newAuthority(t)
	var asked atomic.Int64
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		text, _ := url.QueryUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"))
		raw, err := base64.StdEncoding.DecodeString(text)
		a.must(err)
		question, err := ocsp.ParseRequest(raw)
		a.must(err)
		answer, err := ocsp.CreateResponse(a.cert, a.cert, ocsp.Response{SerialNumber: question.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, a.key)
		a.must(err)
		_, _ = w.Write(answer)
	}))
	defer responder.Close()
	folder := t.TempDir()
	cert, key := a.issueFor(responder.URL, "a.test")
	a.put(folder, "a", cert, key)
	config := "listeners:\n  http: { bind: \"127.0.0.1:0\", tls: { certificates: [{ cert: " + filepath.Join(folder, "a.pem") + ", key: " + filepath.Join(folder, "a.key") + " }], STAPLE } }\n" +
		"routes: [{ match: \"/*\", respond: { status: 204 } }]\n"
	g := run(t, strings.Replace(config, "STAPLE", "ocsp: on", 1))
	staple := func() []byte {
		c, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "a.test", RootCAs: a.pool})
		a.must(err)
		defer c.Close()
		return c.ConnectionState().OCSPResponse
	}
	g.eventually("there is a staple", func() bool { return staple() != nil })
	leaf, err := x509.ParseCertificate(decodePEM(cert))
	a.must(err)
	if answer, err := ocsp.ParseResponseForCert(staple(), leaf, a.cert); err != nil || answer.Status != ocsp.Good {
		t.Errorf("got %+v, %v", answer, err)
	}
	c := g.cert("a.test")
	if s := c.Staple; c.Source != "file" || s == nil || s.State != "good" || time.Until(s.Until) < 50*time.Minute || time.Until(s.Next) > 40*time.Minute {
		t.Errorf("got %+v, %+v", c, s)
	}
	if got := g.metric(`sluice_ocsp_questions_total{result="good"}`); got != "1" {
		t.Errorf("counted %q questions", got)
	}
	for range 3 {
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
		if staple() == nil {
			t.Fatal("the reload lost the staple")
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the responder was asked %d times", n)
	}
	g.write(strings.Replace(config, "STAPLE", "ocsp: off", 1))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	if s := g.cert("a.test").Staple; staple() != nil || s == nil || s.State != "off" {
		t.Errorf("it is off, and there is %+v", s)
	}
}
