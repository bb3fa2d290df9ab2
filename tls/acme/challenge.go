package acme

import (
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// ALPN is the protocol of the challenge tls-alpn-01, RFC 8737, section 6.2. A listener offers it besides its own, or the
	// challenge cannot be answered there; a connection that chose it ends after the handshake.
	ALPN = acmez.ACMETLS1Protocol
	// ChallengePath is what paths of the challenge http-01 begin with, RFC 8555, section 8.3.
	ChallengePath = "/.well-known/acme-challenge/"
)

// IsChallenge says whether the client offers ALPN and nothing else, as RFC 8737, section 3, wants of an authority.
func IsChallenge(hello *cryptotls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ALPN
}

// presented says whether this process has the challenge tls-alpn-01 for the name under way.
func presented(name string) bool {
	c, ok := certmagic.GetACMEChallenge(name)
	return ok && c.Type == acme.ChallengeTypeTLSALPN01
}

// challengeCertificate gives the certificate of the challenge tls-alpn-01. Storage is read only for names that could be
// managed and that this process has no challenge for.
func (m *Issuer) challengeCertificate(ctx context.Context, hello *cryptotls.ClientHelloInfo, name string) (*cryptotls.Certificate, error) {
	r := m.running.Load()
	if r == nil || hello.Conn == nil || !m.managed(name) && !presented(name) {
		return nil, fmt.Errorf("%w for the challenge for %q", ErrNoCertificate, name)
	}
	asked := *hello
	asked.ServerName = name
	cert, err := r.config.GetCertificateWithContext(ctx, &asked)
	if err != nil {
		return nil, fmt.Errorf("%w for the challenge for %q: %w", ErrNoCertificate, name, err)
	}
	return cert, nil
}

// Challenge gives the body of the answer, 200 and text/plain, to a GET of the challenge http-01. ok says whether host and
// path, as they stand in the request, are those of a challenge that this process has under way. It waits for nothing but the
// lock of a map.
func (m *Issuer) Challenge(host, path string) (body string, ok bool) {
	name, ok := challengeName(host, path)
	if !ok {
		return "", false
	}
	c, ok := certmagic.GetACMEChallenge(name)
	if !ok || c.Type != acme.ChallengeTypeHTTP01 || path != c.HTTP01ResourcePath() {
		return "", false
	}
	return c.KeyAuthorization, true
}

// StoredChallenge is Challenge for what other processes on the same folder have under way too. It reads a file and may
// block.
func (m *Issuer) StoredChallenge(ctx context.Context, host, path string) (body string, ok bool) {
	if body, ok := m.Challenge(host, path); ok {
		return body, true
	}
	name, ok := challengeName(host, path)
	r := m.running.Load()
	if !ok || r == nil || !m.managed(name) {
		return "", false
	}
	w := &answer{header: http.Header{}}
	request := (&http.Request{Method: http.MethodGet, Host: name, URL: &url.URL{Path: path}}).WithContext(ctx)
	if !r.issuer.HandleHTTPChallenge(w, request) || w.body.Len() == 0 {
		return "", false
	}
	return w.body.String(), true
}

// challengeName gives the folded name of a host, with or without port, if the path has the form of a challenge's.
func challengeName(host, path string) (name string, ok bool) {
	token, ok := strings.CutPrefix(path, ChallengePath)
	if !ok || token == "" || len(token) > 256 || strings.ContainsFunc(token, notBase64URL) {
		return "", false
	}
	host, _, _ = strings.Cut(host, ":")
	return fold(host)
}

func notBase64URL(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// answer takes what certmagic's handler writes.
type answer struct {
	header http.Header
	body   strings.Builder
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(int)             {}
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
