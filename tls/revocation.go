package tls

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// maxLists is the most revocation lists in one file.
const maxLists = 1000

// issuer is a certificate authority by name and key: certificates of the same authority may differ.
type issuer struct{ subject, key string }

func issuerOf(c *x509.Certificate) issuer {
	return issuer{string(c.RawSubject), string(c.RawSubjectPublicKeyInfo)}
}

// revocations is what is revoked, by issuer and serial number. Immutable once published.
type revocations struct {
	serials map[issuer]map[string]struct{}
}

func serial(n *big.Int) string { return string(n.Bytes()) }

// check says which certificate of a verified chain is revoked by the next one. The last is trusted by being in the bundle.
func (r *revocations) check(chain []*x509.Certificate) error {
	for i := 0; i+1 < len(chain); i++ {
		if _, revoked := r.serials[issuerOf(chain[i+1])][serial(chain[i].SerialNumber)]; revoked {
			return fmt.Errorf("the certificate with serial number %s is revoked", chain[i].SerialNumber.Text(16))
		}
	}
	return nil
}

// list is one file of revocation lists across its renewals.
type list struct {
	file    string
	last    *reading // the last that was tried
	good    []*x509.RevocationList
	issuers []issuer // of each of good
	problem error
}

// reload reads the file again if it changed and says whether its lists are other ones now.
func (l *list) reload(authorities []*x509.Certificate) (changed bool) {
	if l.last != nil && l.last.fresh(l.file) {
		return false
	}
	r, err := readFile(l.file, maxRevocationBytes)
	if err != nil {
		l.last, l.problem = nil, err
		return false
	}
	text := r.text
	r.text, l.last = nil, r
	lists, err := parseLists(text)
	var issuers []issuer
	for i := 0; err == nil && i < len(lists); i++ {
		var from issuer
		from, err = verifyList(lists[i], authorities)
		issuers = append(issuers, from)
	}
	if err != nil {
		l.problem = fmt.Errorf("cannot use revocation list %q: %w", l.file, err)
		return false
	}
	l.problem = nil
	same := len(lists) == len(l.good)
	for i := 0; same && i < len(lists); i++ {
		same = bytes.Equal(lists[i].Raw, l.good[i].Raw)
	}
	if same {
		return false
	}
	l.good, l.issuers = lists, issuers
	return true
}

// parseLists reads PEM or DER.
func parseLists(text []byte) ([]*x509.RevocationList, error) {
	if beginnings(text) == 0 {
		one, err := x509.ParseRevocationList(text)
		if err != nil {
			return nil, err
		}
		return []*x509.RevocationList{one}, nil
	}
	b, err := parsePEM(text, maxLists)
	switch {
	case err != nil:
		return nil, err
	case len(b.certs) > 0 || b.key != nil:
		return nil, errors.New("it holds more than revocation lists")
	case len(b.lists) == 0:
		return nil, errors.New("it holds no revocation list")
	}
	return b.lists, nil
}

// verifyList finds the authority that signed the list. Lists whose entries mean something else than "this issuer's
// certificate is revoked" are refused: deltas, RFC 5280, section 5.2.4, which may take back, and entries about other issuers,
// section 5.3.3. Lists of a part of the certificates, section 5.2.5, add up.
func verifyList(r *x509.RevocationList, authorities []*x509.Certificate) (issuer, error) {
	for _, e := range r.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}) {
			return issuer{}, errors.New("it is a delta to another one")
		}
		if e.Critical && !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 28}) {
			return issuer{}, fmt.Errorf("it has an unknown critical extension, %s", e.Id)
		}
	}
	for i := range r.RevokedCertificateEntries {
		for _, e := range r.RevokedCertificateEntries[i].Extensions {
			if e.Critical {
				return issuer{}, fmt.Errorf("entry %d has an unknown critical extension, %s", i+1, e.Id)
			}
		}
	}
	err := errors.New("none of the authorities has its issuer's name")
	for _, c := range authorities {
		if !bytes.Equal(c.RawSubject, r.RawIssuer) {
			continue
		}
		if err = r.CheckSignatureFrom(c); err == nil {
			return issuerOf(c), nil
		}
	}
	return issuer{}, fmt.Errorf("no authority vouches for it, issued by %.200q: %w", r.Issuer.String(), err)
}

// publish joins the lists. Two of one issuer add up.
func (t *ClientTrust) publish() {
	next := &revocations{serials: map[issuer]map[string]struct{}{}}
	for _, l := range t.lists {
		for i, one := range l.good {
			in := next.serials[l.issuers[i]]
			if in == nil {
				in = make(map[string]struct{}, len(one.RevokedCertificateEntries))
				next.serials[l.issuers[i]] = in
			}
			for j := range one.RevokedCertificateEntries {
				in[serial(one.RevokedCertificateEntries[j].SerialNumber)] = struct{}{}
			}
		}
	}
	t.revoked.Store(next)
}

// Reload reads the revocation lists again that changed. One that is broken or signed by nobody known leaves its
// predecessor in use, and problems says why, at every call until it is mended. changed are names of files.
func (t *ClientTrust) Reload() (changed []string, problems []error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lists {
		if l.reload(t.authorities) {
			changed = append(changed, l.file)
		}
		if l.problem != nil {
			problems = append(problems, l.problem)
		}
	}
	if len(changed) > 0 {
		t.publish()
	}
	return changed, problems
}

// Watch calls Reload until ctx ends, as Store.Watch does.
func (t *ClientTrust) Watch(ctx context.Context, every time.Duration, report func(changed []string, problems []error)) {
	watch(ctx, every, t.Reload, report)
}
