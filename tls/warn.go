package tls

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// expiresSoon is how long before its end a certificate is warned of.
	expiresSoon = 30 * 24 * time.Hour
	weakRSABits = 2048
)

// Kind says what a Warning is about, for those who treat some otherwise.
type Kind string

// The kinds of warnings. Expired and Overlap, a name in two certificates with the same kind of key, of which only the first is used for
// it, are mistakes in most places: see NewStore. Purpose: the extended key usage excludes what it is there for. Unchecked: nothing is verified, or not everything
// that was asked for. Unstapled: clients may refuse the certificate without an OCSP staple, and it can have none.
const (
	Expired      Kind = "expired"
	ExpiresSoon  Kind = "expires_soon"
	NotYetValid  Kind = "not_yet_valid"
	WeakKey      Kind = "weak_key"
	SHA1         Kind = "sha1"
	Intermediate Kind = "missing_intermediate"
	NoNames      Kind = "no_names"
	OddName      Kind = "odd_name"
	Overlap      Kind = "overlap"
	Purpose      Kind = "purpose"
	Unchecked    Kind = "unchecked"
	Unstapled    Kind = "unstapled"
)

// Warning is what works, but not for long or not for everybody. Pair is the index of the Pair, or of the revocation list; -1:
// neither.
type Warning struct {
	Pair int
	File string
	Kind Kind
	Text string
}

// validity warns of a time that is over, soon over or not yet there.
func validity(c *x509.Certificate, now time.Time) (Kind, string) {
	switch {
	case now.After(c.NotAfter):
		return Expired, "the certificate expired on " + day(c.NotAfter)
	case now.Before(c.NotBefore):
		return NotYetValid, "the certificate is not valid before " + day(c.NotBefore)
	case c.NotAfter.Sub(now) < expiresSoon:
		return ExpiresSoon, fmt.Sprintf("the certificate expires on %s, in %d days", day(c.NotAfter), int(c.NotAfter.Sub(now).Hours()/24))
	}
	return "", ""
}

// over says that the certificate has expired, or one of those that clients need to verify it; "" if none has. An anchor that is sent along
// does not matter: clients have their own.
func (l *loaded) over(now time.Time) string {
	for i, c := range l.chain {
		if k, text := validity(c, now); k == Expired && (i == 0 || !selfIssued(c)) {
			return ofChain(i, text)
		}
	}
	return ""
}

// ofChain makes a text about the certificate one about the certificate at i.
func ofChain(i int, text string) string {
	if i == 0 {
		return text
	}
	return strings.Replace(text, "the certificate", fmt.Sprintf("certificate %d of the chain", i+1), 1)
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// warnings looks at a certificate as a client would that is stricter than most.
func (l *loaded) warnings(s *source, usage x509.ExtKeyUsage, staples bool, now time.Time) (all []Warning) {
	warn := func(k Kind, format string, args ...any) {
		all = append(all, Warning{s.pair, s.label(), k, fmt.Sprintf(format, args...)})
	}
	for i, c := range l.chain {
		if k, text := validity(c, now); k != "" {
			warn(k, "%s", ofChain(i, text))
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < weakRSABits {
			warn(WeakKey, "certificate %d has a weak key: RSA with %d bits, less than %d", i+1, k.N.BitLen(), weakRSABits)
		}
		// What a trust anchor is signed with does not matter, since nobody checks it.
		if a := c.SignatureAlgorithm; !selfIssued(c) && (a == x509.SHA1WithRSA || a == x509.ECDSAWithSHA1) {
			warn(SHA1, "certificate %d is signed with SHA-1, which clients refuse", i+1)
		}
		switch {
		case i+1 < len(l.chain):
			if !issuedBy(c, l.chain[i+1]) {
				warn(Intermediate, "certificate %d is not followed by its issuer, %.200q, but by %.200q", i+1, c.Issuer.String(), l.chain[i+1].Subject.String())
			}
		case i == 0 && !selfIssued(c):
			warn(Intermediate, "the certificate of its issuer, %.200q, is missing after it", c.Issuer.String())
		}
	}
	leaf := l.chain[0]
	if l.status.must && (!staples || !l.status.can()) {
		warn(Unstapled, "the certificate demands an OCSP staple and cannot get one%s", l.status.whyNot(staples))
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, usage) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		warn(Purpose, "by its extended key usage the certificate is not for this")
	}
	if usage != x509.ExtKeyUsageServerAuth {
		return all
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		warn(NoNames, "the certificate has no subject alternative name, and the common name counts for nothing")
	}
	if len(l.odd) > 0 {
		warn(OddName, "the name %.100q of the certificate can never be asked for%s", l.odd[0], more(len(l.odd)-1))
	}
	return all
}

func (s *stapling) whyNot(staples bool) string {
	switch {
	case s.responder == "":
		return ": it names no responder"
	case s.issuer == nil:
		return ": the certificate of its issuer is missing"
	case !staples:
		return ": stapling is off"
	}
	return ""
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// issuedBy compares names and key identifiers, not the signature: it is there to find a forgotten file, for ten thousand
// certificates.
func issuedBy(c, issuer *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return false
	}
	return len(c.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId)
}
