package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	defaultAdminPath = "/run/sluice/admin.sock"
	logLevels        = "debug info warn error"
	maxStatusShares  = 16
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
	d.mapping(key, n, "to sample by_status queue", func(key string, _, v ast.Node) bool {
		switch key {
		case "to":
			d.destination(key, v, &to.To)
		case "sample":
			d.fraction(key, v, 0, 1, &to.Sample)
		case "by_status":
			d.byStatus(key, v, to)
		case "queue":
			d.integer(key, v, 1, 1<<24, &to.Queue)
		default:
			return false
		}
		return true
	})
}

// byStatus reads a map of statuses, such as 404, and classes, such as 2xx, to shares.
func (d *decoder) byStatus(key string, n ast.Node, to *AccessLog) {
	var shares []StatusShare
	d.entries(key, n, func(name string, at, v ast.Node) {
		status, ok := parseStatusOrClass(name)
		share := StatusShare{Status: status}
		switch {
		case !ok:
			d.problem(at, "", "%q is neither a status, such as 404, nor a class, such as 2xx", clip(name))
		case slices.ContainsFunc(shares, func(s StatusShare) bool { return s.Status == status }):
			d.problem(at, "", "%q has %q twice", key, name)
		case len(shares) == maxStatusShares:
			d.problem(at, "", "%q has more than %d entries", key, maxStatusShares)
		default:
			d.fraction(name, v, 0, 1, &share.Share)
			shares = append(shares, share)
		}
	})
	slices.SortFunc(shares, func(a, b StatusShare) int { return a.Status - b.Status })
	copy(to.ByStatus[:], shares)
}

func parseStatusOrClass(s string) (status int, ok bool) {
	class, isClass := strings.CutSuffix(s, "xx")
	status, err := strconv.Atoi(class)
	if isClass {
		return status, err == nil && len(class) == 1 && status >= 1 && status <= 5
	}
	return status, err == nil && len(s) == 3 && status >= 100 && status <= 599
}

// text writes what byStatus reads.
func (s StatusShare) text() string {
	name := strconv.Itoa(s.Status)
	if s.Status < 10 {
		name += "xx"
	}
	return name + ": " + formatShare(s.Share)
}

func (w *dumper) accessLog(a *AccessLog) {
	more := ""
	for _, s := range a.ByStatus {
		if s.Status > 0 {
			more += ", " + s.text()
		}
	}
	if more != "" {
		more = ", by_status: { " + more[len(", "):] + " }"
	}
	w.line("access_log: { to: %s, sample: %s%s, queue: %d }", quote(orOff(a.To)), formatShare(a.Sample), more, a.Queue)
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
