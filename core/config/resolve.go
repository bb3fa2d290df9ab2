package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// maxResolvers bounds the name servers that are asked in turn.
const maxResolvers = 8

// Resolve says how the names of an upstream's endpoints are resolved.
type Resolve struct {
	Every    time.Duration    // between resolutions, from 1s; 0: as long as the TTL of what was found
	Min, Max time.Duration    // bounds of that TTL; 1s and 5m
	Timeout  time.Duration    // for a name; 3s, at most 1m
	Servers  []netip.AddrPort // at most 8, asked in this order; none: the Resolvers of the configuration
	Family   string           // any, v4 or v6; any
}

func defaultResolve() Resolve {
	return Resolve{Min: time.Second, Max: 5 * time.Minute, Timeout: 3 * time.Second, Family: "any"}
}

// resolving reads an interval, or a map.
func (d *decoder) resolving(key string, n ast.Node, r *Resolve) {
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.duration(key, n, time.Second, &r.Every)
		return
	}
	var every, ttl ast.Node
	d.mapping(key, n, "every min max timeout servers family", func(key string, k, v ast.Node) bool {
		switch key {
		case "every":
			every = k
			d.duration(key, v, time.Second, &r.Every)
		case "min":
			ttl = k
			d.duration(key, v, time.Second, &r.Min)
		case "max":
			ttl = k
			d.duration(key, v, time.Second, &r.Max)
		case "timeout":
			d.durationUpTo(key, v, 10*time.Millisecond, time.Minute, &r.Timeout)
		case "servers":
			d.resolvers(key, v, &r.Servers)
		case "family":
			d.word(key, v, "any v4 v6", &r.Family)
		default:
			return false
		}
		return true
	})
	switch {
	case every != nil && ttl != nil:
		d.problem(ttl, "drop one of the two", "with %q the TTL does not count", "every")
	case r.Min > r.Max:
		d.problem(ttl, "", "%q is above %q: %s and %s", "min", "max", formatDuration(r.Min), formatDuration(r.Max))
	}
}

// resolvers reads addresses of name servers. Names would have to be resolved themselves.
func (d *decoder) resolvers(key string, n ast.Node, to *[]netip.AddrPort) {
	d.list(key, n, func(v ast.Node) {
		var s string
		v = d.resolve(v)
		if v == nil || !d.text(key, v, &s) {
			return
		}
		at, err := netip.ParseAddrPort(s)
		if addr, failed := netip.ParseAddr(s); failed == nil {
			at, err = netip.AddrPortFrom(addr, 53), nil
		}
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		switch {
		case err != nil || at.Port() == 0 || at.Addr().Zone() != "" || at.Addr().IsUnspecified():
			d.problem(v, `write "10.0.0.2", "10.0.0.2:53" or "[fd00::2]:53"`, "%q is no address of a name server", clip(s))
		case slices.Contains(*to, at):
			d.problem(v, "", "name server %s is given twice", at)
		case len(*to) == maxResolvers:
			d.problem(v, "", "there are more than %d name servers", maxResolvers)
		default:
			*to = append(*to, at)
		}
	})
}
