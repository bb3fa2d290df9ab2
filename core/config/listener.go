package config

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

const (
	listenerKeys  = "bind timeouts limits real_ip proxy_protocol redirect half_close merge_slashes request_timeout forward protocols http2 socket tls"
	realIPHeaders = "X-Forwarded-For Forwarded X-Real-IP"
	maxBodyBytes  = 1 << 50
	maxCount      = 10_000_000 // of connections, and of whatever else is only counted
	maxHeadBytes  = 256 << 10  // what a buffer of a loop holds, with room to write another head before it: loop.BulkBytes
)

func defaultListener(name string, pos Pos) Listener {
	return Listener{
		Name:     name,
		Pos:      pos,
		Timeouts: ListenerTimeouts{Header: 10 * time.Second, Idle: 75 * time.Second, Body: time.Minute, Write: time.Minute},
		Limits:   ListenerLimits{HeaderBytes: 32 << 10, Headers: 100},
		Forward:  Forward{XForwarded: true, RequestID: "X-Request-ID"},
		HTTP2:    ListenerHTTP2{Streams: 128, KeepAliveTimeout: 10 * time.Second, MaxAgeGrace: 30 * time.Second},

		RequestTimeout: "ignore",
	}
}

// listener reads one entry of `listeners`.
func (d *decoder) listener(name string, k, v ast.Node) {
	d.name("a listener", name, k)
	if first, twice := d.listeners[name]; twice {
		d.problem(k, "", "listener %q is given twice; first at %s", name, d.cfg.Listeners[first].Pos)
		return
	}
	l := defaultListener(name, d.at(k))
	hasBind := false
	var protocols, http2, socket ast.Node
	var requests []written // what is of requests alone
	ok := d.mapping(name, v, listenerKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "real_ip", "redirect", "half_close", "merge_slashes", "request_timeout", "forward", "protocols", "http2":
			requests = append(requests, written{key, d.at(k)})
		}
		switch key {
		case "bind":
			hasBind = true
			d.list(key, v, func(v ast.Node) {
				var b Bind
				if d.bind(key, v, &b) {
					l.Binds = append(l.Binds, b)
				}
			})
		case "timeouts":
			d.listenerTimeouts(key, v, &l.Timeouts)
		case "limits":
			d.listenerLimits(key, v, &l.Limits)
		case "real_ip":
			d.realIP(key, v, &l)
		case "proxy_protocol":
			l.ProxyProtocol = &ProxyProtocol{}
			d.prefixes(key, v, &l.ProxyProtocol.From)
		case "redirect":
			if d.text(key, v, &l.Redirect) {
				d.redirects = append(d.redirects, reference{name: l.Redirect, pos: d.at(v), from: len(d.cfg.Listeners)})
			}
		case "half_close":
			d.boolean(key, v, &l.HalfClose)
		case "merge_slashes":
			d.boolean(key, v, &l.MergeSlashes)
		case "request_timeout":
			d.word(key, v, "header ignore", &l.RequestTimeout)
		case "forward":
			d.forward(key, v, &l.Forward)
		case "protocols":
			protocols = v
			d.protocols(key, v, &l.Protocols)
		case "http2":
			http2 = v
			d.listenerHTTP2(key, v, &l.HTTP2)
		case "socket":
			socket = v
			d.listenerSocket(key, v, &l.Socket)
		case "tls":
			d.tls(key, v, &l)
		default:
			return false
		}
		return true
	})
	if ok && !hasBind {
		d.problem(k, `add bind: ":80"`, "listener %q has no %q", name, "bind")
	}
	d.checkProtocols(protocols, &l)
	d.checkListenerSocket(socket, &l)
	if http2 != nil && !l.passesOnly() && !l.speaksHTTP2() {
		d.problem(http2, "add h2, or h2c without tls, to protocols", "%q is of no use on listener %q, which does not speak it", "http2", l.Name)
	}
	if l.passesOnly() {
		for _, w := range requests {
			d.problemAt(w.pos, "", "%q has no meaning where TLS is passed through: there are no requests", w.key)
		}
	}
	d.listeners[name] = len(d.cfg.Listeners)
	d.cfg.Listeners = append(d.cfg.Listeners, l)
}

// protocols reads a list of h1, h2 and h2c.
func (d *decoder) protocols(key string, n ast.Node, p *Protocols) {
	d.list(key, n, func(v ast.Node) {
		var name string
		d.word(key, v, "h1 h2 h2c", &name)
		switch name {
		case "h1":
			p.H1 = true
		case "h2":
			p.H2 = true
		case "h2c":
			p.H2C = true
		}
	})
}

// checkProtocols gives a listener that names no protocol those of its kind; n is what it named.
func (d *decoder) checkProtocols(n ast.Node, l *Listener) {
	switch p := &l.Protocols; {
	case l.passesOnly():
		*p = Protocols{}
	case n == nil:
		*p = Protocols{H1: true, H2: l.TLS != nil}
	case l.TLS == nil && p.H2:
		d.problem(n, "write h2c, or add tls", "listener %q speaks %q without %q", l.Name, "h2", "tls")
	case l.TLS != nil && p.H2C:
		d.problem(n, "write h2", "listener %q speaks %q with %q", l.Name, "h2c", "tls")
	}
}

// speaksHTTP2 says whether any client may speak HTTP/2, be it only under some server names.
func (l *Listener) speaksHTTP2() bool {
	if l.Protocols.H2 || l.Protocols.H2C {
		return true
	}
	return l.TLS != nil && slices.ContainsFunc(l.TLS.Policies, func(p TLSPolicy) bool { return p.Protocols.H2 })
}

func (d *decoder) listenerHTTP2(key string, n ast.Node, h *ListenerHTTP2) {
	d.mapping(key, n, "streams keepalive keepalive_timeout max_age max_age_grace", func(key string, _, v ast.Node) bool {
		switch key {
		case "streams":
			d.integer(key, v, 1, 1000, &h.Streams)
		case "keepalive":
			d.optionalDuration(key, v, &h.KeepAlive)
		case "keepalive_timeout":
			d.duration(key, v, time.Millisecond, &h.KeepAliveTimeout)
		case "max_age":
			d.optionalDuration(key, v, &h.MaxAge)
		case "max_age_grace":
			d.duration(key, v, time.Millisecond, &h.MaxAgeGrace)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) listenerTimeouts(key string, n ast.Node, t *ListenerTimeouts) {
	d.mapping(key, n, "header idle body write", func(key string, _, v ast.Node) bool {
		var to *time.Duration
		switch key {
		case "header":
			to = &t.Header
		case "idle":
			to = &t.Idle
		case "body":
			to = &t.Body
		case "write":
			to = &t.Write
		default:
			return false
		}
		d.duration(key, v, time.Millisecond, to)
		return true
	})
}

func (d *decoder) listenerLimits(key string, n ast.Node, l *ListenerLimits) {
	const valid = "header_bytes headers body_bytes connections connections_per_ip connection_rate_per_ip min_rate"
	d.mapping(key, n, valid, func(key string, _, v ast.Node) bool {
		switch key {
		case "header_bytes":
			d.sizeInt(key, v, 1<<10, maxHeadBytes, &l.HeaderBytes)
		case "headers":
			d.integer(key, v, 1, 1000, &l.Headers)
		case "body_bytes":
			d.size(key, v, 0, maxBodyBytes, &l.BodyBytes)
		case "connections":
			d.integer(key, v, 0, maxCount, &l.Connections)
		case "connections_per_ip":
			d.integer(key, v, 0, maxCount, &l.ConnectionsPerIP)
		case "connection_rate_per_ip":
			d.limitRate(key, v, &l.ConnectionRatePerIP)
		case "min_rate":
			d.minRate(key, v, &l.MinRate)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) realIP(key string, n ast.Node, l *Listener) {
	r := &RealIP{Header: "X-Forwarded-For"}
	hasTrusted := false
	ok := d.mapping(key, n, "header trusted depth", func(key string, k, v ast.Node) bool {
		switch key {
		case "header":
			var name string
			if !d.text(key, v, &name) {
				return true
			}
			for valid := range strings.FieldsSeq(realIPHeaders) {
				if strings.EqualFold(name, valid) {
					r.Header = valid
					return true
				}
			}
			d.word(key, v, realIPHeaders, &r.Header)
		case "trusted":
			hasTrusted = true
			d.prefixes(key, v, &r.Trusted)
		case "depth":
			d.integer(key, v, 0, 64, &r.Depth)
		default:
			return false
		}
		return true
	})
	if ok && !hasTrusted {
		d.problem(n, "add trusted: [10.0.0.0/8]", "%q has no %q: nobody's header would be believed", key, "trusted")
	}
	l.RealIP = r
}

func (d *decoder) forward(key string, n ast.Node, f *Forward) {
	d.mapping(key, n, "x_forwarded forwarded via request_id client_cert xfcc", func(key string, _, v ast.Node) bool {
		switch key {
		case "x_forwarded":
			d.boolean(key, v, &f.XForwarded)
		case "forwarded":
			d.boolean(key, v, &f.Forwarded)
		case "client_cert":
			d.boolean(key, v, &f.ClientCert)
		case "xfcc":
			d.boolean(key, v, &f.XFCC)
		case "via":
			var s string
			if !d.text(key, v, &s) {
				return true
			}
			if s == "off" {
				f.Via = ""
			} else if d.token(key, v, s) {
				f.Via = s
			}
		case "request_id":
			var s string
			if !d.text(key, v, &s) {
				return true
			}
			if s == "off" {
				f.RequestID = ""
			} else if d.fieldName(key, v, s) {
				f.RequestID = s
			}
		default:
			return false
		}
		return true
	})
}

// token checks a token of RFC 9110 section 5.6.2.
func (d *decoder) token(key string, n ast.Node, s string) bool {
	if isToken(s) {
		return true
	}
	d.problem(n, "letters, digits and !#$%&'*+-.^_`|~, at most 256", "%q cannot stand in %q", clip(s), key)
	return false
}

// fieldName checks the name of a header that the gateway may send or look for.
func (d *decoder) fieldName(key string, n ast.Node, s string) bool {
	if !d.token(key, n, s) {
		return false
	}
	switch strings.ToLower(s) {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host":
		d.problem(n, "", "header %q belongs to the connection and cannot be set", s)
		return false
	}
	return true
}

func isToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}
