package config

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	defaultAdminPath = "/run/sluice/admin.sock"
	logLevels        = "debug info warn error"
)

// log reads the error log: a level, or a map.
func (d *decoder) log(key string, n ast.Node) {
	n = d.resolve(n)
	to := &d.cfg.Log
	if _, short := n.(*ast.StringNode); short {
		d.word(key, n, logLevels, &to.Level)
		return
	}
	d.mapping(key, n, "level format", func(key string, _, v ast.Node) bool {
		switch key {
		case "level":
			d.word(key, v, logLevels, &to.Level)
		case "format":
			d.word(key, v, "text json", &to.Format)
		default:
			return false
		}
		return true
	})
}

// accessLog reads a destination, or a map.
func (d *decoder) accessLog(key string, n ast.Node) {
	n = d.resolve(n)
	to := &d.cfg.AccessLog
	if _, short := n.(*ast.StringNode); short {
		d.destination(key, n, &to.To)
		return
	}
	d.mapping(key, n, "to sample queue", func(key string, _, v ast.Node) bool {
		switch key {
		case "to":
			d.destination(key, v, &to.To)
		case "sample":
			d.fraction(key, v, 0, 1, &to.Sample)
		case "queue":
			d.integer(key, v, 1, 1<<24, &to.Queue)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) destination(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	ok := s == "stdout" || s == "stderr" || filepath.IsAbs(s) && filepath.Clean(s) == s && s != "/"
	if path, found := strings.CutPrefix(s, "syslog:unix:"); found {
		ok = filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) <= maxSocketPathBytes
	} else if addr, found := strings.CutPrefix(s, "syslog:udp:"); found {
		parsed, err := netip.ParseAddrPort(addr)
		ok = err == nil && parsed.Port() != 0
	}
	switch {
	case s == "off":
		*to = ""
	case !ok || strings.ContainsRune(s, 0):
		d.problem(n, `write "stdout", "stderr", "/path", "syslog:unix:/dev/log", "syslog:udp:127.0.0.1:514" or "off"`,
			"%q is no destination for a log", clip(s))
	default:
		*to = s
	}
}

// admin reads an address, a map, or off.
func (d *decoder) admin(key string, n ast.Node) {
	n = d.resolve(n)
	to := &d.cfg.Admin.Bind
	read := func(key string, v ast.Node) {
		var s string
		if text, ok := d.resolve(v).(*ast.StringNode); ok {
			s = text.Value
		}
		if s == "off" {
			*to = Bind{}
		} else {
			d.bind(key, v, to)
		}
	}
	switch n.(type) {
	case nil:
	case *ast.MappingNode, *ast.MappingValueNode:
		d.mapping(key, n, "bind", func(key string, _, v ast.Node) bool {
			if key != "bind" {
				return false
			}
			read(key, v)
			return true
		})
	default:
		read(key, n)
	}
}
