package config

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	// cipherNames are the suites of TLS 1.2 with forward secrecy and authenticated encryption, by their names at IANA.
	cipherNames = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 " +
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 " +
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
	newerCipherNames = "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256"
)

// ciphers reads a list of cipher suites. Their order counts nothing: crypto/tls prefers by the hardware of both sides.
func (d *decoder) ciphers(key string, n ast.Node, to *[]string) {
	*to = nil
	d.list(key, n, func(v ast.Node) {
		var name string
		switch {
		case !d.text(key, v, &name):
		case listed(newerCipherNames, name):
			d.problem(v, "leave it out", "%q is of TLS 1.3, whose cipher suites are always all offered", name)
		case !listed(cipherNames, name):
			d.problem(v, d.nearestCipher(name), "%q is no cipher suite of TLS 1.2 that is used here", clip(name))
		case slices.Contains(*to, name):
			d.problem(v, "", "%q stands twice in %q", name, key)
		default:
			*to = append(*to, name)
		}
	})
}

// idleCiphers refuses what would never be looked at.
func (d *decoder) idleCiphers(at Pos) {
	d.problemAt(at, "drop it", "%q has no meaning beside %q: those of TLS 1.3 are always all offered", "ciphers", "min_version: 1.3")
}

// nearestCipher is the hint for a wrong name, which may be right in OpenSSL: there ECDHE-RSA-AES128-GCM-SHA256 is what IANA calls
// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.
func (d *decoder) nearestCipher(name string) string {
	core := func(s string) string {
		s = strings.NewReplacer("-", "", "_", "", "TLS", "", "WITH", "").Replace(strings.ToUpper(s))
		return strings.Replace(s, "POLY1305SHA256", "POLY1305", 1)
	}
	if len(name) <= maxSuggestRunes {
		for w := range strings.FieldsSeq(cipherNames) {
			if core(w) == core(name) {
				return `did you mean "` + w + `"?`
			}
		}
	}
	if hint := d.nearest(name, cipherNames); hint != "" {
		return hint
	}
	return "one of " + strings.ReplaceAll(cipherNames, " ", ", ")
}

func (w *dumper) ciphers(names []string) {
	if len(names) > 0 {
		w.line("ciphers: [%s]", strings.Join(names, ", "))
	}
}
