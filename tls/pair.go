package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// A signature takes time with the third power of the bits: 8,192 take 64 times what 2,048 take, and clients of crypto/tls
	// accept no more. Below 1,024 crypto/rsa does not sign.
	minRSABits, maxRSABits = 1024, 8192

	// readingAttempts bounds how often a pair is read again because one of its files was replaced meanwhile.
	readingAttempts = 3
)

// Pair names a certificate with its chain and private key, in one of four ways: Cert and Key, two files; Cert alone, a file
// that holds both; Glob, a pattern of such files as of path/filepath, of which hidden files and folders are left out; or CertPEM,
// the text itself, with KeyPEM where it does not hold the key. CertPEM goes with Key too, and Cert with KeyPEM.
type Pair struct {
	Cert, Key       string
	Glob            string
	CertPEM, KeyPEM string
}

// source is where one certificate comes from. In one store no two are equal.
type source struct {
	pair            int
	cert, key       string // file names; a bundle has no key
	certPEM, keyPEM string
	fromGlob        bool
}

// label says in messages which one is meant.
func (s *source) label() string {
	if s.cert != "" {
		return s.cert
	}
	return "inline certificate"
}

func (s *source) files() (names []string) {
	for _, n := range []string{s.cert, s.key} {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// sources checks the pair's form and finds its files, at most most.
func (p *Pair) sources(index, most int) ([]source, error) {
	switch {
	case p.Cert != "" && p.CertPEM != "":
		return nil, errors.New("cannot use a certificate that is both a file and a text")
	case p.Key != "" && p.KeyPEM != "":
		return nil, errors.New("cannot use a key that is both a file and a text")
	case p.Glob != "":
		if *p != (Pair{Glob: p.Glob}) {
			return nil, fmt.Errorf("cannot use pattern %q together with a certificate or key", p.Glob)
		}
		return globbed(p.Glob, index, most)
	case p.Cert == "" && p.CertPEM == "":
		return nil, errors.New("cannot use a pair without a certificate")
	}
	s := source{pair: index, cert: p.Cert, key: p.Key, certPEM: p.CertPEM, keyPEM: p.KeyPEM}
	if s.key == s.cert {
		s.key = ""
	}
	return []source{s}, nil
}

func globbed(pattern string, index, most int) (all []source, err error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("cannot use pattern %q: %w", pattern, err)
	}
	slices.Sort(names)
	for _, n := range names {
		if strings.HasPrefix(filepath.Base(n), ".") && !strings.HasPrefix(filepath.Base(pattern), ".") {
			continue
		}
		if i, err := os.Stat(n); err == nil && i.IsDir() {
			continue
		}
		if len(all) == most {
			return nil, fmt.Errorf("cannot use pattern %q: more than %d files match", pattern, most)
		}
		all = append(all, source{pair: index, cert: n, fromGlob: true})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("cannot use pattern %q: no file matches", pattern)
	}
	return all, nil
}

// read gives the readings of the source's files, in the order of files. Certificate and key are of the same moment, as far
// as polling can tell: when one of them was replaced meanwhile, both are read again.
func (s *source) read() ([]*reading, error) {
	names := s.files()
	for attempt := 1; ; attempt++ {
		all := make([]*reading, len(names))
		for i, n := range names {
			var err error
			if all[i], err = readFile(n, maxPairBytes); err != nil {
				return nil, err
			}
		}
		stable := true
		for i, n := range names {
			stable = stable && all[i].names(n)
		}
		if stable || attempt == readingAttempts {
			return all, nil
		}
	}
}

// loaded is one certificate, ready for use. It is immutable.
type loaded struct {
	cert   *cryptotls.Certificate // Leaf is set
	chain  []*x509.Certificate    // the leaf first
	names  []string               // exact, or *. and a suffix; in lower case, without trailing dot
	odd    []string               // names of the certificate that can never be asked for
	digest [sha256.Size]byte      // of what was read
	status stapling
}

// texts gives the certificate's and the key's text; the key's is nil in a bundle.
func (s *source) texts(files []*reading) (cert, key []byte) {
	cert, key = []byte(s.certPEM), []byte(s.keyPEM)
	if s.cert != "" {
		cert, files = files[0].text, files[1:]
	}
	if s.key != "" {
		key = files[0].text
	}
	return cert, key
}

func digest(cert, key []byte) [sha256.Size]byte {
	c, k := sha256.Sum256(cert), sha256.Sum256(key)
	return sha256.Sum256(append(c[:], k[:]...))
}

// load makes a certificate of the two texts.
func (s *source) load(certText, keyText []byte) (*loaded, error) {
	b, err := parsePEM(certText, maxChain)
	if err != nil {
		return nil, fmt.Errorf("cannot use %q: %w", s.label(), err)
	}
	if len(b.certs) == 0 {
		return nil, fmt.Errorf("cannot use %q: it holds no certificate", s.label())
	}
	key, keyLabel := b.key, s.label()
	if s.key != "" || s.keyPEM != "" {
		if s.key != "" {
			keyLabel = s.key
		} else {
			keyLabel = "inline key"
		}
		if b.key != nil {
			return nil, fmt.Errorf("cannot use %q: it holds a private key besides that of %q", s.label(), keyLabel)
		}
		k, err := parsePEM(keyText, maxChain)
		if err != nil {
			return nil, fmt.Errorf("cannot use key %q: %w", keyLabel, err)
		}
		if len(k.certs)+len(k.lists) > 0 {
			return nil, fmt.Errorf("cannot use key %q: it holds a certificate too", keyLabel)
		}
		key = k.key
	}
	if key == nil {
		return nil, fmt.Errorf("cannot use key %q: it holds no private key", keyLabel)
	}
	if err := fits(b.certs, key); err != nil {
		return nil, fmt.Errorf("cannot use key %q with %q: %w", keyLabel, s.label(), err)
	}
	if len(b.lists) > 0 {
		return nil, fmt.Errorf("cannot use %q: it holds a revocation list", s.label())
	}
	l := &loaded{cert: &cryptotls.Certificate{PrivateKey: key, Leaf: b.certs[0]}, chain: b.certs, digest: digest(certText, keyText)}
	for _, c := range b.certs {
		l.cert.Certificate = append(l.cert.Certificate, c.Raw)
	}
	l.names, l.odd = namesOf(b.certs[0])
	l.status = staplingOf(b.certs)
	return l, nil
}

// fits checks that the key is that of the first certificate, and of a kind that a handshake can use.
func fits(chain []*x509.Certificate, key crypto.Signer) error {
	belongs := func(c *x509.Certificate) bool {
		p, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		return ok && p.Equal(key.Public())
	}
	if !belongs(chain[0]) {
		if i := slices.IndexFunc(chain, belongs); i > 0 {
			return fmt.Errorf("it belongs to certificate %d of the chain, which must be the first", i+1)
		}
		return fmt.Errorf("it does not match the certificate (%s, %s)", keyType(key.Public()), keyType(chain[0].PublicKey))
	}
	switch k := key.Public().(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("RSA keys of %d bits are not used, only of %d to %d", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("keys of curve %s are not used in TLS", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %s are not used in TLS", keyType(k))
	}
	return nil
}

// keyType names the kind and size of a public key.
func keyType(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}
