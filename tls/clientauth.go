package tls

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maxAuthorities is the most certificates of a CA bundle; systems trust about 150.
const maxAuthorities = 5000

// ClientTrustOptions say who may vouch for clients: CAFile, or the text itself in CAPEM, and CRLFiles, the lists of
// certificates that these authorities have revoked, PEM or DER.
type ClientTrustOptions struct {
	CAFile   string
	CAPEM    string
	CRLFiles []string
}

// ClientTrust verifies client certificates. Its authorities stay; its revocation lists are read again by Reload, and the
// configurations made with it heed them at once, also for sessions that are resumed. Connections go on. All methods may be
// called by any goroutine.
type ClientTrust struct {
	authorities []*x509.Certificate
	file        string
	pool        *x509.CertPool
	revoked     atomic.Pointer[revocations]

	mu    sync.Mutex // held while files are read
	lists []*list
}

// NewClientTrust reads the files. A list that is expired is used, with a warning: it still names who must not come in.
func NewClientTrust(o ClientTrustOptions) (*ClientTrust, []Warning, error) {
	all, err := authorities(o.CAFile, o.CAPEM)
	if err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return nil, nil, errors.New("cannot verify client certificates without authorities")
	}
	t := &ClientTrust{authorities: all, file: o.CAFile, pool: x509.NewCertPool()}
	for _, c := range all {
		t.pool.AddCert(c)
	}
	var wrong PairErrors
	for i, name := range o.CRLFiles {
		l := &list{file: name}
		if l.reload(all); l.problem != nil {
			wrong = append(wrong, &PairError{i, l.problem})
		}
		t.lists = append(t.lists, l)
	}
	if len(wrong) > 0 {
		return nil, nil, wrong
	}
	t.publish()
	return t, t.Warnings(), nil
}

// authorities reads a CA bundle from a file or a text; none if both are empty.
func authorities(file, text string) ([]*x509.Certificate, error) {
	label := file
	switch {
	case file == "" && text == "":
		return nil, nil
	case file != "" && text != "":
		return nil, errors.New("cannot use authorities that are both a file and a text")
	case file != "":
		r, err := readFile(file, maxAuthoritiesBytes)
		if err != nil {
			return nil, err
		}
		text = string(r.text)
	default:
		label = "inline authorities"
	}
	b, err := parsePEM([]byte(text), maxAuthorities)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot use %q: %w", label, err)
	case b.key != nil || len(b.lists) > 0:
		return nil, fmt.Errorf("cannot use %q: it holds more than certificates", label)
	case len(b.certs) == 0:
		return nil, fmt.Errorf("cannot use %q: it holds no certificate", label)
	}
	for i, c := range b.certs {
		// A certificate that vouches for itself alone is trusted by being here.
		if !c.IsCA && c.Version == 3 && !selfIssued(c) {
			return nil, fmt.Errorf("cannot use %q: certificate %d, of %.200q, is not that of an authority", label, i+1, c.Subject.String())
		}
	}
	return b.certs, nil
}

// check refuses a client all of whose chains hold a revoked certificate. Authorities that cross-sign each other make several
// chains; the client's own certificate has the same issuer in each.
func (t *ClientTrust) check(state cryptotls.ConnectionState) error {
	r := t.revoked.Load()
	if len(r.serials) == 0 || len(state.VerifiedChains) == 0 {
		return nil
	}
	var err error
	for _, chain := range state.VerifiedChains {
		if err = r.check(chain); err == nil {
			return nil
		}
	}
	return err
}

// Warnings tells, as of now, of authorities and lists past their time and of authorities without a list where others have one.
func (t *ClientTrust) Warnings() (all []Warning) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, c := range t.authorities {
		if k, text := validity(c, now); k != "" {
			all = append(all, Warning{-1, t.file, k, fmt.Sprintf("%s, of the authority %.200q", text, c.Subject.String())})
		}
		if len(t.lists) > 0 && t.revoked.Load().serials[issuerOf(c)] == nil {
			all = append(all, Warning{-1, t.file, Unchecked, fmt.Sprintf("no revocation list is of %.200q: what it issued is not checked", c.Subject.String())})
		}
	}
	for i, l := range t.lists {
		for _, one := range l.good {
			if !one.NextUpdate.IsZero() && now.After(one.NextUpdate) {
				all = append(all, Warning{i, l.file, Expired, "the revocation list expired on " + day(one.NextUpdate) + " and is still used"})
			}
		}
	}
	return all
}

// Identity is who the peer has proved to be. Fingerprint is that of the whole certificate, by SHA-256 in hexadecimal; SPKI
// that of the public key, in base64 as in pins: it stays when a certificate is renewed with the same key.
type Identity struct {
	Subject, CommonName string
	Issuer              string
	Serial              string // hexadecimal
	DNSNames            []string
	Emails              []string
	URIs                []string // a SPIFFE ID is one
	Addresses           []string
	NotAfter            time.Time
	Fingerprint         string
	SPKI                string
}

// PeerIdentity gives the identity of a peer whose certificate was verified, and false for all others. It is meant to be called
// once a connection.
func PeerIdentity(state cryptotls.ConnectionState) (id Identity, ok bool) {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return id, false
	}
	c := state.VerifiedChains[0][0]
	sum := sha256.Sum256(c.Raw)
	id = Identity{
		Subject: c.Subject.String(), CommonName: c.Subject.CommonName, Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		DNSNames: c.DNSNames, Emails: c.EmailAddresses, NotAfter: c.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), SPKI: spki(c),
	}
	for _, u := range c.URIs {
		id.URIs = append(id.URIs, u.String())
	}
	for _, a := range c.IPAddresses {
		id.Addresses = append(id.Addresses, a.String())
	}
	return id, true
}

// spki is the pin of RFC 7469, section 2.4.
func spki(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
