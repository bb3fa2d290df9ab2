package config

import (
	"maps"
	"net/url"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// ExtAuthz asks a service whether a request may pass, in the way of Envoy's ext_authz (gRPC, envoy.service.auth.v3).
type ExtAuthz struct {
	Service                   // its URL is grpc(s)://host:port
	Headers []string          // of the request that it is sent; nil: all that do not belong to the connection or the answer
	Body    int               // bytes of the body that it is sent at most; a longer one is refused; 0 (none)..1MiB
	BodyAs  string            // text: a body that is no UTF-8 is refused; or bytes (raw_body); text
	Copy    []string          // headers that the upstream gets from the service alone, and all that it may set; nil: any but the gateway's own
	Context map[string]string // context_extensions; at most 32 of them. Never changed
	Hide    []KeyPart         // as ForwardAuth has it
	Cache   *ForwardCache     // nil: every request is asked about
}

const (
	extAuthzKeys    = serviceKeys + " headers body body_as copy context hide cache"
	maxContext      = 32
	maxContextBytes = 1024 // of a key, and of a value
)

func (d *decoder) extAuthz(key string, n ast.Node) *ExtAuthz {
	a := &ExtAuthz{Service: newService(), BodyAs: "text"}
	before := d.errors
	given := map[string]ast.Node{}
	ok := d.mapping(key, n, extAuthzKeys, func(key string, k, v ast.Node) bool {
		given[key] = v
		switch key {
		case "url":
			d.url(key, v, "grpcs grpc", &a.URL)
		case "headers":
			d.fieldNames(key, v, &a.Headers, nil)
		case "body":
			d.sizeInt(key, v, 0, maxForwardBody, &a.Body)
		case "body_as":
			d.word(key, v, "text bytes", &a.BodyAs)
		case "copy":
			d.fieldNames(key, v, &a.Copy, func(v ast.Node, s string) bool { return d.notOurs(key, v, s) })
		case "context":
			a.Context = d.context(key, v)
		case "hide":
			a.Hide = d.hidden(key, v)
		case "cache":
			a.Cache = d.forwardCache(key, v)
		default:
			return d.service(key, k, v, &a.Service)
		}
		return true
	})
	if given["hide"] == nil {
		a.Hide = judgedField(a.Headers)
	}
	switch {
	case !ok:
		return a
	case given["url"] == nil:
		d.problem(n, "add url: grpcs://host:9001", "%q has no %q", key, "url")
		return a
	}
	d.serviceWhole(key, n, &a.Service, true, false)
	if u, err := url.Parse(a.URL); err == nil && a.URL != "" && (u.Port() == "" || u.Path != "" || u.RawQuery != "") {
		d.problem(given["url"], "write grpcs://host:9001", "%q is a host and a port here, and nothing else", "url")
	}
	if d.errors == before {
		d.judgedWhole(a.Body, a.Headers, a.Cache, given)
	}
	return a
}

// context reads what the service is told beside the request, and be it only which of its rules to go by.
func (d *decoder) context(key string, n ast.Node) map[string]string {
	all := map[string]string{}
	d.entries(key, n, func(name string, k, v ast.Node) {
		var s string
		switch _, twice := all[name]; {
		case !d.text(name, v, &s):
		case twice:
			d.problem(k, "", "%q is given twice", clip(name))
		case len(all) == maxContext:
			d.problem(k, "", "%q has more than %d entries", key, maxContext)
		case name == "" || len(name) > maxContextBytes || len(s) > maxContextBytes:
			d.problem(k, "", "a key has from 1 to %d bytes here, and a value at most as many", maxContextBytes)
		default:
			all[name] = s
		}
	})
	return all
}

func (w *dumper) extAuthz(a *ExtAuthz) {
	w.block("ext_authz:", func() {
		w.service(&a.Service)
		if a.Headers != nil {
			w.line("headers: %s", quoteList(a.Headers))
		}
		w.line("body: %s", formatSize(int64(a.Body)))
		w.line("body_as: %s", a.BodyAs)
		if a.Copy != nil {
			w.line("copy: %s", quoteList(a.Copy))
		}
		if len(a.Context) > 0 {
			w.block("context:", func() {
				for _, name := range slices.Sorted(maps.Keys(a.Context)) {
					w.line("%s: %s", quote(name), w.under(name, a.Context[name]))
				}
			})
		}
		w.hidden(a.Hide)
		w.forwardCache(a.Cache)
	})
}
