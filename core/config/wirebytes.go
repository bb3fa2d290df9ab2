package config

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// wireBytes reads what goes over a connection: text, or hex:, behind which are bytes in hexadecimal digits. text: before it makes
// text of what begins like the latter.
func (d *decoder) wireBytes(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if digits, coded := strings.CutPrefix(s, "hex:"); coded {
		b, err := hex.DecodeString(digits)
		if err != nil {
			d.problem(n, "write hex:0d0a, or text:hex: for these letters themselves", "%q is not in pairs of hexadecimal digits", clip(s))
			return
		}
		s = string(b)
	} else {
		s = strings.TrimPrefix(s, "text:")
	}
	if s == "" || len(s) > maxTCPBytes {
		d.problem(n, "", "%q must have from 1 to %d bytes", key, maxTCPBytes)
		return
	}
	*to = s
}

// wireText writes bytes as wireBytes reads them: as text where they are some.
func wireText(s string) string {
	switch {
	case !utf8.ValidString(s):
		return "hex:" + hex.EncodeToString([]byte(s))
	case strings.HasPrefix(s, "hex:") || strings.HasPrefix(s, "text:"):
		return "text:" + s
	}
	return s
}
