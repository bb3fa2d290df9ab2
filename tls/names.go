package tls

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	cryptotls "crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
)

// maxName is the length of the longest domain name in text, without trailing dot; RFC 1035, section 2.3.4.
const maxName = 253

// choice is the certificates that bear one name, each of another kind of key, the cheapest to sign with first. Immutable
// once its set is published.
type choice struct {
	certs []*cryptotls.Certificate
}

// set is all that a look-up needs, immutable and replaced whole.
type set struct {
	exact    map[string]*choice
	wild     map[string]*choice // by what follows the "*."
	fallback *choice            // for unknown names and for none; nil refuses them
}

// namesOf gives the names of a certificate in the form in which they are looked up, and those that nobody can ask for.
// The common name counts for nothing, RFC 9110, section 4.3.4.
func namesOf(leaf *x509.Certificate) (names, odd []string) {
	for _, n := range leaf.DNSNames {
		var buf [maxName]byte
		folded, ok := fold(n, &buf)
		rest, _ := strings.CutPrefix(string(folded), "*.")
		switch {
		case !ok || !hostname(rest):
			odd = append(odd, n)
		case !slices.Contains(names, string(folded)):
			names = append(names, string(folded))
		}
	}
	return names, odd
}

// hostname says whether the name consists of labels as certificates may bear them; the underscore is widespread.
func hostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// fold writes a name in lower case and without trailing dot to buf, of which the result is a part.
func fold[N string | []byte](name N, buf *[maxName]byte) (folded []byte, ok bool) {
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) == 0 || len(name) > maxName {
		return nil, false
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(name)], true
}

// find gives the choice that bears the folded name, nil if none does, and whether the name itself stands in it rather than a
// wildcard. A wildcard covers one label, RFC 6125, section 6.4.3.
func (s *set) find(folded []byte) (c *choice, exact bool) {
	if c = s.exact[string(folded)]; c != nil {
		return c, true
	}
	if len(s.wild) == 0 {
		return nil, false
	}
	for i, b := range folded {
		if b == '.' {
			if i == 0 {
				return nil, false
			}
			return s.wild[string(folded[i+1:])], false
		}
	}
	return nil, false
}

// choose gives what is for a name as it came from the network, nil to refuse it.
func (s *set) choose(name string) *choice {
	var buf [maxName]byte
	if folded, ok := fold(name, &buf); ok {
		if c, _ := s.find(folded); c != nil {
			return c
		}
	}
	return s.fallback
}

// pick takes the first certificate that the client can verify, or else the last, with which crypto/tls says what is missing.
func (c *choice) pick(hello *cryptotls.ClientHelloInfo) *cryptotls.Certificate {
	last := len(c.certs) - 1
	for _, cert := range c.certs[:last] {
		if verifiable(hello, cert) {
			return cert
		}
	}
	return c.certs[last]
}

// verifiable says whether the client can verify signatures of the certificate's key, which is not RSA. In TLS 1.3 the scheme
// alone tells; SupportsCertificate would say the same and allocate.
func verifiable(hello *cryptotls.ClientHelloInfo, cert *cryptotls.Certificate) bool {
	if slices.Contains(hello.SupportedVersions, cryptotls.VersionTLS13) {
		schemes := [...]cryptotls.SignatureScheme{cryptotls.ECDSAWithP256AndSHA256, cryptotls.ECDSAWithP384AndSHA384, cryptotls.ECDSAWithP521AndSHA512, cryptotls.Ed25519}
		r := rank(cert)
		return r < len(schemes) && slices.Contains(hello.SignatureSchemes, schemes[r])
	}
	// The name is not to be compared: the fallback bears another one.
	nameless := *hello
	nameless.ServerName = ""
	return nameless.SupportsCertificate(cert) == nil
}

// rank orders certificates of one name: by the time that a signature takes, and by how many clients can verify it.
func rank(cert *cryptotls.Certificate) int {
	switch k := cert.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return 0
		case elliptic.P384():
			return 1
		}
		return 2
	case ed25519.PublicKey:
		return 3
	}
	return 4
}

// add puts the certificate in its place. Where one of the same kind is, that one stays and is returned.
func (c *choice) add(cert *cryptotls.Certificate) (taken *cryptotls.Certificate) {
	i, found := slices.BinarySearchFunc(c.certs, rank(cert), func(have *cryptotls.Certificate, r int) int { return rank(have) - r })
	if found {
		return c.certs[i]
	}
	c.certs = slices.Insert(c.certs, i, cert)
	return nil
}

// includes says whether all certificates of other are in c.
func (c *choice) includes(other *choice) bool {
	for _, cert := range other.certs {
		if !slices.Contains(c.certs, cert) {
			return false
		}
	}
	return true
}

// bears says whether the certificate is valid for the folded name: whether it stands there as it is, or a wildcard covers
// it.
func bears(leaf *x509.Certificate, folded []byte) (exact, wildcard bool) {
	suffix := slices.Index(folded, '.') + 1
	for _, n := range leaf.DNSNames {
		n = strings.TrimSuffix(n, ".")
		if equalFold(n, folded) {
			return true, false
		}
		if base, ok := strings.CutPrefix(n, "*."); ok && suffix > 1 && equalFold(base, folded[suffix:]) {
			wildcard = true
		}
	}
	return false, wildcard
}

// equalFold compares a name with a folded one.
func equalFold(name string, folded []byte) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != folded[i] {
			return false
		}
	}
	return true
}

// bearsAddress says whether host is an address that stands in the certificate.
func bearsAddress(leaf *x509.Certificate, host string) bool {
	if len(leaf.IPAddresses) == 0 {
		return false
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil {
		return false
	}
	for _, ip := range leaf.IPAddresses {
		if have, ok := netip.AddrFromSlice(ip); ok && have.Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}
