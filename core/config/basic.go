package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Basic lets requests pass that bear the user name and password of a consumer.
type Basic struct {
	Realm    string // what a client shows to its user; sluice
	Hide     bool   // the upstream does not get them; true
	Optional bool   // a request without them passes too, with wrong ones it does not; false
}

// basic reads on, or a map.
func (d *decoder) basic(key string, n ast.Node) *Basic {
	b := &Basic{Realm: "sluice", Hide: true}
	if n = d.resolve(n); n == nil {
		return b
	}
	if _, word := n.(*ast.StringNode); word {
		d.on(key, n)
		return b
	}
	d.mapping(key, n, "realm hide optional", func(key string, _, v ast.Node) bool {
		switch key {
		case "realm":
			var s string
			if !d.text(key, v, &s) {
				break
			}
			if s == "" || len(s) > maxNameRunes || hasControl(s) || strings.ContainsAny(s, `"\`) {
				d.problem(v, "", "%q has from 1 to %d bytes, and no quotes, backslashes or control characters", key, maxNameRunes)
				break
			}
			b.Realm = s
		case "hide":
			d.boolean(key, v, &b.Hide)
		case "optional":
			d.boolean(key, v, &b.Optional)
		default:
			return false
		}
		return true
	})
	return b
}
