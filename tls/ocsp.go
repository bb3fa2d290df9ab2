package tls

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	// maxResponseBytes bounds an OCSP response, which has 0.5 to 3 KiB.
	maxResponseBytes = 64 << 10
	// maxGetBytes is the longest request that is sent by GET, which caches can answer: RFC 5019, section 5.
	maxGetBytes = 255
	// clockSkew is how far ahead of ours a responder's clock may be.
	clockSkew = 5 * time.Minute
)

// ask gets the response of the certificate's responder, and verifies it.
func ask(ctx context.Context, client *http.Client, of *stapling) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(of.leaf, of.issuer, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the certificate's status: %w", err)
	}
	request, err := questionTo(ctx, of.responder, question)
	if err != nil {
		return nil, fmt.Errorf("cannot ask %q: %w", of.responder, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("cannot ask %q: %w", of.responder, errors.Unwrap(err)) // of url.Error, which says where
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("cannot use the answer of %q: its status is %d", of.responder, response.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes+1))
	if err == nil && len(raw) > maxResponseBytes {
		err = fmt.Errorf("it has more than %d KiB", maxResponseBytes>>10)
	}
	var answer *ocsp.Response
	if err == nil {
		answer, err = verify(raw, of, time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the answer of %q: %w", of.responder, err)
	}
	return answer, nil
}

// questionTo makes the request: by GET where it is short, RFC 6960, appendix A.1.
func questionTo(ctx context.Context, responder string, question []byte) (*http.Request, error) {
	where := strings.TrimSuffix(responder, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(question))
	if len(where) <= maxGetBytes {
		return http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(question))
	if err == nil {
		request.Header.Set("Content-Type", "application/ocsp-request")
	}
	return request, err
}

// verify accepts what clients would: signed by the issuer or by whom it has authorised for this, RFC 6960, section 4.2.2.2,
// about this certificate, of now, and with an end.
func verify(raw []byte, of *stapling, now time.Time) (*ocsp.Response, error) {
	answer, err := ocsp.ParseResponseForCert(raw, of.leaf, of.issuer)
	if err != nil {
		return nil, err
	}
	if signer := answer.Certificate; signer != nil && !signer.Equal(of.issuer) {
		switch {
		case !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, errors.New("its signer may not sign OCSP responses")
		case now.Before(signer.NotBefore.Add(-clockSkew)) || now.After(signer.NotAfter):
			return nil, errors.New("its signer's certificate is not valid now")
		}
	}
	switch {
	case answer.Status == ocsp.Unknown:
		return nil, errors.New("the certificate is not known there")
	case answer.NextUpdate.IsZero():
		return nil, errors.New("it does not say until when it holds")
	case answer.ThisUpdate.After(now.Add(clockSkew)):
		return nil, fmt.Errorf("it holds only from %s on", day(answer.ThisUpdate))
	case !answer.NextUpdate.After(now):
		return nil, fmt.Errorf("it was to be replaced by %s", day(answer.NextUpdate))
	}
	return answer, nil
}

// stapling is what a certificate says of OCSP. The zero value is that of one that says nothing.
type stapling struct {
	leaf      *x509.Certificate
	issuer    *x509.Certificate // nil: it does not follow the leaf, and nothing can be asked
	responder string            // "": none is named
	must      bool              // clients may refuse the certificate without a staple
	id        fingerprint
}

// can says whether there is somebody to ask.
func (s *stapling) can() bool { return s.responder != "" && s.issuer != nil }

// staplingOf reads it from the leaf, which is followed by its issuer.
func staplingOf(chain []*x509.Certificate) stapling {
	leaf := chain[0]
	s := stapling{leaf: leaf, id: fingerprintOf(leaf), must: mustStaple(leaf)}
	if len(chain) > 1 && issuedBy(leaf, chain[1]) {
		s.issuer = chain[1]
	}
	for _, responder := range leaf.OCSPServer {
		u, err := url.Parse(responder)
		if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
			s.responder = responder
			break
		}
	}
	return s
}

// mustStaple looks for the TLS feature status_request, RFC 7633, section 4.2.
func mustStaple(leaf *x509.Certificate) bool {
	const statusRequest = 5
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) {
			continue
		}
		var features []int
		if rest, err := asn1.Unmarshal(e.Value, &features); err == nil && len(rest) == 0 {
			return slices.Contains(features, statusRequest)
		}
	}
	return false
}
