package config

import "github.com/goccy/go-yaml/ast"

// MTLS knows consumers by the certificate of their connection.
type MTLS struct {
	Optional bool // a client without a certificate passes too; false
}

// mtls reads on, or a map.
func (d *decoder) mtls(key string, n ast.Node) *MTLS {
	m := &MTLS{}
	if n = d.resolve(n); n == nil {
		return m
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
		return m
	}
	d.mapping(key, n, "optional", func(key string, _, v ast.Node) bool {
		if key != "optional" {
			return false
		}
		d.boolean(key, v, &m.Optional)
		return true
	})
	return m
}
