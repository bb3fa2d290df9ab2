package tls

import (
	cryptotls "crypto/tls"
	"fmt"
)

// suites are those of TLS 1.2 that have forward secrecy and authenticated encryption; RFC 9113, Appendix A, forbids the rest
// for HTTP/2. The suites of TLS 1.3 are all of this kind and cannot be chosen.
func suites() []uint16 {
	return []uint16{
		cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		cryptotls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		cryptotls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// chosen gives those of suites that are named, by their names at IANA; of no names, all. In which order makes no difference.
func chosen(names []string) ([]uint16, error) {
	if len(names) == 0 {
		return suites(), nil
	}
	byName := map[string]uint16{}
	for _, id := range suites() {
		byName[cryptotls.CipherSuiteName(id)] = id
	}
	ids := make([]uint16, 0, len(names))
	for _, name := range names {
		id, known := byName[name]
		if !known {
			return nil, fmt.Errorf("cannot use cipher suite %.100q: it is none of TLS 1.2 that is used here", name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
