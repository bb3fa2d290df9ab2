package tls

import (
	cryptotls "crypto/tls"
	"slices"
	"strings"
)

// Bears says whether a certificate is for a host of the configuration: a name, an address, or *. and a suffix, for which one of
// a name below the suffix does, however deep. What unknown names get does not count, but that an address gets it: clients
// send none.
func (s *Store) Bears(host string) bool {
	set := s.set.Load()
	var buf [maxName]byte
	if suffix, wildcard := strings.CutPrefix(host, "*."); wildcard {
		folded, ok := fold(suffix, &buf)
		return ok && set.below(string(folded))
	}
	if folded, ok := fold(host, &buf); ok {
		if c, _ := set.find(folded); c != nil {
			return true
		}
	}
	return set.fallback != nil && slices.ContainsFunc(set.fallback.certs, func(c *cryptotls.Certificate) bool { return bearsAddress(c.Leaf, host) })
}

// below says whether a name, or a wildcard, ends in suffix and is more than it.
func (s *set) below(suffix string) bool {
	if s.wild[suffix] != nil {
		return true
	}
	for name := range s.exact {
		if strings.HasSuffix(name, "."+suffix) {
			return true
		}
	}
	for name := range s.wild {
		if strings.HasSuffix(name, "."+suffix) {
			return true
		}
	}
	return false
}
