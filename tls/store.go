package tls

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxCertificates is the most of one Store: with keys and parsed chains they take about a GiB.
const maxCertificates = 100_000

// ErrUnrecognizedName is what Pick returns for a name that is refused. The configuration of NewServerConfig answers it with the
// alert unrecognized_name, RFC 6066, section 3.
var ErrUnrecognizedName = errors.New("no certificate is for the server name that the client asks for")

// Options are what a Store is made from.
type Options struct {
	Pairs []Pair
	// Default is a name whose certificate unknown names get, and clients that send none; "": that of the first pair.
	Default string
	// RefuseUnknown refuses both instead; Default is then empty.
	RefuseUnknown bool
	// Client says that the certificates are presented to servers: their names do not matter, their purpose is another.
	Client bool
	// Partial says that other certificates are Joined: there may be no pair.
	Partial bool
	// Starting says that a process begins, with what was right when it was configured: a certificate that has expired since, or a name
	// of two files of which a pattern found one, are warned of and not refused.
	Starting bool
	// Before is the store that this one replaces; nil: none. Of what it has in use neither is refused: it would stay in use.
	Before *Store
	// Staples are the OCSP responses that KeepStapled takes and adds to; nil: nothing is stapled. Stores may have them in common.
	Staples *Staples
}

// PairError is what is wrong with one pair. Pair is its index; -1: with Default.
type PairError struct {
	Pair int
	Err  error
}

func (e *PairError) Error() string { return e.Err.Error() }
func (e *PairError) Unwrap() error { return e.Err }

// PairErrors are all mistakes of NewStore, one or more; errors.As finds them.
type PairErrors []*PairError

func (e PairErrors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	return b.String()
}

// slot is one certificate of the store across its renewals.
type slot struct {
	source
	files   []*reading // the last that were tried, without their text
	good    *loaded    // in use; nil for a file of a pattern that has never been right
	waiting *loaded    // the renewal of good, that overlaps; problem is an OverlapError then; nil: none
	problem error      // why the last try was not taken
}

// Store holds the certificates of one listener, by name. Looking up takes no lock and allocates nothing, but for clients of
// TLS 1.2 where a name has several certificates; a change replaces all that is looked up in one step. All methods may be called at any time by any goroutine.
//
// A connection keeps the certificate that it was given, whatever happens to the store.
type Store struct {
	set     atomic.Pointer[set]
	options Options
	usage   x509.ExtKeyUsage

	mu       sync.Mutex // for what follows; held while files are read
	slots    []*slot    // in the order of the pairs
	overlaps []*overlap
	// defaultProblem says why the default of an earlier set is still used.
	defaultProblem error
}

// NewStore reads all pairs. An error is PairErrors and says which of them cannot be used and why: what cannot be read or does not fit, but
// also, unless Options say otherwise, a certificate that has expired and a name in two certificates with the same kind of key, an OverlapError.
func NewStore(o Options) (*Store, []Warning, error) {
	o.Pairs = slices.Clone(o.Pairs)
	s := &Store{options: o, usage: x509.ExtKeyUsageServerAuth}
	if o.Client {
		s.usage = x509.ExtKeyUsageClientAuth
	}
	var wrong PairErrors
	add := func(pair int, err error) { wrong = append(wrong, &PairError{pair, err}) }
	now, inForce := time.Now(), o.Before.inUse()
	lenient := func(l *loaded) bool { return o.Starting || inForce[l.digest] }
	s.options.Before = nil // not kept alive
	for i := range o.Pairs {
		found, err := o.Pairs[i].sources(i, maxCertificates-len(s.slots))
		if err != nil {
			add(i, err)
			continue
		}
		for _, src := range found {
			l := &slot{source: src}
			l.reload(now, lenient)
			if l.problem != nil {
				add(i, l.problem)
			}
			s.slots = append(s.slots, l)
		}
	}
	switch {
	case len(wrong) > 0:
		return nil, nil, wrong
	case len(s.slots) == 0 && !o.Partial:
		return nil, nil, PairErrors{{-1, errors.New("cannot serve TLS without a certificate")}}
	case len(s.slots) > maxCertificates:
		return nil, nil, PairErrors{{-1, fmt.Errorf("cannot use more than %d certificates", maxCertificates)}}
	case o.RefuseUnknown && o.Default != "":
		return nil, nil, PairErrors{{-1, fmt.Errorf("cannot refuse unknown names and use %q for them", o.Default)}}
	}
	if err := s.publish(); err != nil {
		return nil, nil, PairErrors{{-1, err}}
	}
	for _, overlap := range s.overlaps {
		known := inForce[overlap.first.good.digest] && inForce[overlap.second.good.digest]
		if !o.Client && !known && !(o.Starting && overlap.fromPattern()) {
			add(overlap.second.pair, overlap.refusal(overlap.second))
		}
	}
	if len(wrong) > 0 {
		return nil, nil, wrong
	}
	return s, s.Warnings(), nil
}

// inUse gives the certificates that are, by what they were read from.
func (s *Store) inUse() map[[sha256.Size]byte]bool {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[[sha256.Size]byte]bool, len(s.slots))
	for _, l := range s.slots {
		if l.good != nil {
			all[l.good.digest] = true
		}
	}
	return all
}

// Pick gives the certificate for a handshake: of the exact name, or of the wildcard above it, or the default, or
// ErrUnrecognizedName. Where one name has several, it is the first that the client can verify of ECDSA, Ed25519, RSA.
// It is not a GetCertificate for crypto/tls, which would answer the error with internal_error: see NewServerConfig.
func (s *Store) Pick(hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	c := s.set.Load().choose(hello.ServerName)
	if c == nil {
		return nil, ErrUnrecognizedName
	}
	return c.pick(hello), nil
}

// Lookup gives the certificate for a name that clients prefer where there are several; nil if the name would be refused.
func (s *Store) Lookup(name string) *cryptotls.Certificate {
	if c := s.set.Load().choose(name); c != nil {
		return c.certs[0]
	}
	return nil
}

// Serves says whether a connection that was given cert may serve requests for host, which has no port: whether a new
// connection for host could be given cert as well. Where that would get a certificate of its own, a wildcard does
// not do. A certificate that was renewed since counts by its names. If not, 421 is due, RFC 9110, section 15.5.20.
func (s *Store) Serves(cert *cryptotls.Certificate, host string) bool {
	if cert == nil || cert.Leaf == nil {
		return false
	}
	set := s.set.Load()
	var buf [maxName]byte
	if folded, ok := fold(host, &buf); ok {
		if c, exactChoice := set.find(folded); c != nil {
			if slices.Contains(c.certs, cert) {
				return true
			}
			exact, wildcard := bears(cert.Leaf, folded)
			return exact || wildcard && !exactChoice
		}
	}
	switch {
	case set.fallback == nil:
		return false
	case slices.Contains(set.fallback.certs, cert) || bearsAddress(cert.Leaf, host):
		return true
	}
	return slices.ContainsFunc(set.fallback.certs, func(have *cryptotls.Certificate) bool {
		return slices.Equal(have.Leaf.DNSNames, cert.Leaf.DNSNames)
	})
}

// ServesName is Serves for a connection of which the client's server name is known, "" if it sent none, and not the
// certificate: a resumed connection of TLS 1.3 is given none. Of several certificates of serverName all must be for host.
func (s *Store) ServesName(serverName, host string) bool {
	if serverName == host && serverName != "" {
		return true
	}
	set := s.set.Load()
	a, b := set.choose(serverName), set.choose(host)
	if a == nil || b == nil {
		return false
	}
	return a == b || b.includes(a)
}

// publish makes a set of what the slots hold. An error is that of the default, in whose place the old one stays.
func (s *Store) publish() error {
	for _, l := range s.slots {
		if l.good != nil {
			l.good = s.options.Staples.staple(l.good, time.Now())
		}
	}
	var next *set
	next, s.overlaps = s.build()
	err := s.setFallback(next)
	if err != nil {
		if old := s.set.Load(); old != nil {
			next.fallback = old.fallback
		}
	}
	if err == nil || next.fallback != nil {
		s.set.Store(next)
	}
	return err
}

// build makes a set without a fallback of what the slots hold. Of a name that stands in several certificates with the same kind of key the
// first is used.
func (s *Store) build() (next *set, overlaps []*overlap) {
	next = &set{exact: map[string]*choice{}, wild: map[string]*choice{}}
	owner := map[*cryptotls.Certificate]*slot{}
	collisions := map[[2]*slot]*overlap{}
	for _, l := range s.slots {
		if l.good == nil {
			continue
		}
		owner[l.good.cert] = l
		for _, n := range l.good.names {
			taken := next.add(n, l.good.cert)
			if taken == nil || taken.Leaf.Equal(l.good.cert.Leaf) {
				continue
			}
			at := [2]*slot{owner[taken], l}
			if collisions[at] == nil {
				collisions[at] = &overlap{first: at[0], second: l, name: n}
				overlaps = append(overlaps, collisions[at])
			}
			collisions[at].names++
		}
	}
	return next, overlaps
}

func (s *set) add(name string, cert *cryptotls.Certificate) (taken *cryptotls.Certificate) {
	in := s.exact
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		in, name = s.wild, suffix
	}
	c := in[name]
	if c == nil {
		c = &choice{}
		in[name] = c
	}
	return c.add(cert)
}

// setFallback finds what unknown names get: with the certificate of the default its siblings of the same name.
func (s *Store) setFallback(next *set) error {
	if s.options.RefuseUnknown {
		return nil
	}
	if name := s.options.Default; name != "" {
		var buf [maxName]byte
		if folded, ok := fold(name, &buf); ok {
			next.fallback, _ = next.find(folded)
		}
		if next.fallback == nil {
			return fmt.Errorf("cannot use %q as default: no certificate is for this name", name)
		}
		return nil
	}
	for _, l := range s.slots {
		if l.good == nil {
			continue
		}
		for _, n := range l.good.names {
			c := next.exact[n]
			if suffix, ok := strings.CutPrefix(n, "*."); ok {
				c = next.wild[suffix]
			}
			if slices.Contains(c.certs, l.good.cert) {
				next.fallback = c
				return nil
			}
		}
		next.fallback = &choice{certs: []*cryptotls.Certificate{l.good.cert}}
		return nil
	}
	if s.options.Partial {
		return nil
	}
	return errors.New("cannot use any certificate as default: there is none")
}
