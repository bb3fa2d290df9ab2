package config

import (
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	maxSocketPathBytes = 107 // sun_path of unix(7), less its NUL
	maxHostBytes       = 253 // RFC 1035 section 2.3.4, in text form
	maxLabelBytes      = 63
)

// bind reads an address to listen on. Names are refused, because a Config resolves nothing.
func (d *decoder) bind(key string, n ast.Node, to *Bind) bool {
	var s string
	n = d.resolve(n)
	if n == nil || !d.text(key, n, &s) {
		return false
	}
	if file, ok := strings.CutPrefix(s, "unix:"); ok {
		if !d.socketPath(n, file) {
			return false
		}
		*to = Bind{Path: file, Pos: d.at(n)}
		return true
	}
	if port, ok := strings.CutPrefix(s, ":"); ok {
		if p, ok := parsePort(port, 0); ok {
			*to = Bind{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), p), Pos: d.at(n)}
			return true
		}
	}
	host, port, hasPort := cutPort(s)
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	p, portOK := parsePort(port, 0)
	if hasPort && portOK && err == nil && strings.HasPrefix(host, "[") == addr.Is6() {
		*to = Bind{Addr: netip.AddrPortFrom(addr.Unmap(), p), Pos: d.at(n)}
		return true
	}
	hint := `write ":80", "127.0.0.1:80", "[::1]:80" or "unix:/path"`
	switch {
	case isDigits(s):
		hint = `write ":` + clip(s) + `"`
	case host == "*" && portOK:
		hint = `write ":` + port + `"`
	case host == "localhost" && portOK:
		hint = `write "127.0.0.1:` + port + `" or "[::1]:` + port + `"`
	case !hasPort && err == nil && addr.Is4():
		hint = `write "` + s + `:80"`
	case strings.HasPrefix(s, "/"):
		hint = `write "unix:` + clip(s) + `"`
	}
	d.problem(n, hint, "%q is no address to listen on", clip(s))
	return false
}

func (d *decoder) socketPath(n ast.Node, file string) bool {
	switch {
	case !strings.HasPrefix(file, "/") || path.Clean(file) != file || strings.ContainsRune(file, 0):
		d.problem(n, "write unix:/run/name.sock", "the path of a unix socket must be absolute and clean, not %q", clip(file))
	case len(file) > maxSocketPathBytes:
		d.problem(n, "", "the path of a unix socket must not be longer than %d bytes", maxSocketPathBytes)
	default:
		return true
	}
	return false
}

// endpointAddress reads host:port, [v6]:port, unix:/path or srv:name.
func (d *decoder) endpointAddress(key string, n ast.Node, to *string) bool {
	var s string
	n = d.resolve(n)
	if n == nil || !d.text(key, n, &s) {
		return false
	}
	if file, ok := strings.CutPrefix(s, "unix:"); ok {
		*to = s
		return d.socketPath(n, file)
	}
	if name, ok := strings.CutPrefix(s, servicePrefix); ok {
		return d.serviceAddress(n, name, to)
	}
	host, port, hasPort := cutPort(s)
	hint := `write "host:port", "[v6]:port" or "unix:/path"`
	switch {
	case strings.Contains(s, "://"):
		_, rest, _ := strings.Cut(s, "://")
		hint = `an endpoint has no scheme: write "` + clip(strings.TrimRight(rest, "/")) + `"`
	case !hasPort && hostProblem(s) == "":
		hint = `write the port: "` + clip(s) + `:80"`
	case hasPort:
		if _, ok := parsePort(port, 1); !ok {
			hint = "a port is a number from 1 to 65535"
			break
		}
		if wrong := hostProblem(strings.ToLower(host)); wrong != "" {
			hint = wrong
			break
		}
		*to = strings.ToLower(s)
		return true
	}
	d.problem(n, hint, "%q is no address of an endpoint", clip(s))
	return false
}

// cutPort splits at the last colon that is not inside of brackets.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.LastIndexByte(s, ']') > i {
		return s, "", false
	}
	host = s[:i]
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return s, "", false
	}
	return host, s[i+1:], true
}

func parsePort(s string, low uint64) (uint16, bool) {
	p, err := strconv.ParseUint(s, 10, 16)
	return uint16(p), err == nil && isDigits(s) && p >= low && (s == "0" || s[0] != '0')
}

// hostProblem says what is wrong with a lower-case host name, IPv4 address or IPv6 address in brackets; "" if nothing.
func hostProblem(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		if addr, err := netip.ParseAddr(inner); !closed || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "an IPv6 address is written as [::1], without a zone"
		}
		return ""
	}
	if len(host) > maxHostBytes {
		return "a host name has at most 253 bytes"
	}
	if strings.HasSuffix(host, ".") {
		return "leave out the last dot"
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > maxLabelBytes || label[0] == '-' || label[len(label)-1] == '-' {
			return "each part of a host name has 1 to 63 letters, digits or inner hyphens"
		}
		for i := range len(label) {
			c := label[i]
			switch {
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return "write a name in other scripts in its ASCII form, xn--..."
			case c >= 'A' && c <= 'Z':
				return "write a host name in lower case"
			case c == '*':
				return "a wildcard is written as *.example.com"
			case c == ':' && strings.Contains(host, "://"):
				return "leave out the scheme"
			case c == ':':
				return "leave out the port"
			default:
				return "a host name holds letters, digits, hyphens and dots"
			}
		}
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if _, err := netip.ParseAddr(host); err != nil && isDigits(last) {
		return "a name that ends in a number must be an IPv4 address"
	}
	return ""
}

// prefixes reads a list of CIDRs. An address by itself stands for itself.
func (d *decoder) prefixes(key string, n ast.Node, to *[]netip.Prefix) {
	d.list(key, n, func(v ast.Node) {
		var s string
		v = d.resolve(v)
		if v == nil || !d.text(key, v, &s) {
			return
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, addrErr := netip.ParseAddr(s)
			if addrErr != nil || addr.Zone() != "" {
				d.problem(v, `write "10.0.0.0/8", "fd00::/8" or an address`, "%q is no CIDR", clip(s))
				return
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Addr().Is4In6() {
			d.problem(v, "write the IPv4 form", "%q is an IPv4 address inside of IPv6", clip(s))
			return
		}
		if prefix != prefix.Masked() {
			d.problem(v, `write "`+prefix.Masked().String()+`"`, "%q has bits set behind its length", clip(s))
			return
		}
		*to = append(*to, prefix)
	})
}
