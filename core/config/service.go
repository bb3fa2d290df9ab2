package config

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Service is somebody who is asked about requests over HTTP or gRPC, while they wait.
type Service struct {
	URL     string
	Timeout time.Duration // until the whole of the answer is there; 1s, 1ms..1m
	Calls   int           // at once; 256, 1..65536
	OnError string        // what becomes of a request when there is no answer: deny (503) or allow; deny
	TLS     *UpstreamTLS  // nil: that of https with the system's authorities
}

const (
	serviceKeys       = "url timeout calls on_error tls"
	maxServiceTimeout = time.Minute
	maxServiceCalls   = 65536
)

func newService() Service { return Service{Timeout: time.Second, Calls: 256, OnError: "deny"} }

// service reads one of the keys of a Service.
func (d *decoder) service(key string, _, v ast.Node, to *Service) bool {
	switch key {
	case "url":
		d.url(key, v, "http https", &to.URL)
	case "timeout":
		d.durationUpTo(key, v, time.Millisecond, maxServiceTimeout, &to.Timeout)
	case "calls":
		d.integer(key, v, 1, maxServiceCalls, &to.Calls)
	case "on_error":
		d.word(key, v, "deny allow", &to.OnError)
	case "tls":
		to.TLS = d.upstreamTLS(key, v)
	default:
		return false
	}
	return true
}

// serviceWhole judges what only the whole tells. named: there is a URL, right or wrong. secret: what the service is sent must not be read by others.
func (d *decoder) serviceWhole(kind string, n ast.Node, s *Service, named, secret bool) {
	if !named {
		d.problem(n, "add url: https://host/path", "%q has no %q", kind, "url")
		return
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "grpc" {
		return
	}
	if s.TLS != nil {
		d.problemAt(s.TLS.Pos, "write "+u.Scheme+"s://", "%q is of no use with a URL of %s", "tls", u.Scheme)
	}
	if a, err := netip.ParseAddr(u.Hostname()); secret && (err != nil || !a.IsLoopback()) {
		d.problem(n, "write https://", "what %q sends must be encrypted, but to this host itself", kind)
	}
}

func (w *dumper) service(s *Service) {
	w.line("url: %s", w.url(s.URL))
	w.line("timeout: %s", formatDuration(s.Timeout))
	w.line("calls: %d", s.Calls)
	w.line("on_error: %s", s.OnError)
	if s.TLS != nil {
		w.block("tls:", func() { w.upstreamTLS(s.TLS) })
	}
}

// fieldNames reads names of headers, each once, that may stand there.
func (d *decoder) fieldNames(key string, n ast.Node, to *[]string, may func(v ast.Node, s string) bool) {
	var seen []string
	d.list(key, n, func(v ast.Node) {
		var s string
		switch {
		case !d.text(key, v, &s) || !d.fieldName(key, v, s) || may != nil && !may(v, s):
		case containsFold(seen, s):
			d.problem(v, "", "%q has %q twice", key, s)
		case d.room(key, v, len(seen)):
			seen = append(seen, s)
		}
	})
	*to = seen
}

func containsFold(list []string, s string) bool {
	for _, have := range list {
		if strings.EqualFold(have, s) {
			return true
		}
	}
	return false
}
