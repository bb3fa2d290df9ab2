package config

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// ForwardAuth asks a service whether a request may pass.
type ForwardAuth struct {
	Service
	Method         string        // that it is asked with: GET, or same, the request's own; GET
	Headers        []string      // of the request that it is sent; nil: all that do not belong to the connection or the answer
	Body           int           // bytes of the body that it is sent at most; a longer one is refused; 0 (none)..1MiB
	TrustForwarded bool          // X-Forwarded-* of a trusted proxy (real_ip) is passed on; false
	Copy           []string      // headers of its answer that the upstream gets, and from nobody else
	CopyToClient   []string      // headers of its answer that the client gets
	Hide           []KeyPart     // header:NAME, cookie:NAME, query:NAME of the request that the upstream does not get; Authorization if the service is sent it, nil: nothing
	Cache          *ForwardCache // nil: every request is asked about
}

// ForwardCache says which answers are kept. It is for one client: somebody with another credential has another key.
type ForwardCache struct {
	Key  []KeyPart     // header:NAME, cookie:NAME, query:NAME, of which there is one at least, and ip
	Per  string        // request (the same method, host and URI) or route (all of its requests); request
	TTL  time.Duration // at most, if the answer allows as much; 10s, 1s..1h
	Most int           // answers that are kept; 10000, 1..1000000
}

const (
	forwardAuthKeys  = serviceKeys + " method headers body trust_forwarded copy copy_to_client hide cache"
	maxForwardBody   = 1 << 20
	maxHidden        = 8
	maxForwardCached = 1_000_000
)

func (d *decoder) forwardAuth(key string, n ast.Node) *ForwardAuth {
	f := &ForwardAuth{Service: newService(), Method: "GET"}
	before := d.errors
	given := map[string]ast.Node{}
	ok := d.mapping(key, n, forwardAuthKeys, func(key string, k, v ast.Node) bool {
		given[key] = v
		switch key {
		case "method":
			d.word(key, v, "GET same", &f.Method)
		case "headers":
			d.fieldNames(key, v, &f.Headers, nil)
		case "body":
			d.sizeInt(key, v, 0, maxForwardBody, &f.Body)
		case "trust_forwarded":
			d.boolean(key, v, &f.TrustForwarded)
		case "copy":
			d.fieldNames(key, v, &f.Copy, func(v ast.Node, s string) bool { return d.notOurs(key, v, s) })
		case "copy_to_client":
			d.fieldNames(key, v, &f.CopyToClient, nil)
		case "hide":
			f.Hide = d.hidden(key, v)
		case "cache":
			f.Cache = d.forwardCache(key, v)
		default:
			return d.service(key, k, v, &f.Service)
		}
		return true
	})
	if given["hide"] == nil {
		f.Hide = judgedField(f.Headers)
	}
	if ok {
		d.serviceWhole(key, n, &f.Service, given["url"] != nil, false)
	}
	if ok && d.errors == before {
		d.forwardWhole(f, given)
	}
	return f
}

// hidden reads what of a request ends here, since it is a credential that the service has judged: off, a part or a list of them.
func (d *decoder) hidden(key string, n ast.Node) (all []KeyPart) {
	if s, word := d.resolve(n).(*ast.StringNode); word && s.Value == "off" {
		return nil
	}
	d.list(key, n, func(v ast.Node) {
		var s string
		if v = d.resolve(v); v == nil || !d.text(key, v, &s) {
			return
		}
		var p KeyPart
		switch kind, name, named := strings.Cut(s, ":"); {
		case !named || kind != "header" && kind != "cookie" && kind != "query":
			d.problem(v, "header:NAME, cookie:NAME, query:NAME, or off", "%q does not say where a credential is", clip(s))
		case kind == "header" && !d.fieldName(key, v, name) || !d.keyPart(key, v, &p):
		case slices.Contains(all, p):
			d.problem(v, "", "%q has %q twice", key, p)
		case len(all) == maxHidden:
			d.problem(v, "", "%q has at most %d parts", key, maxHidden)
		default:
			all = append(all, p)
		}
	})
	return all
}

// judgedField is what ends here where nothing is written: the field of RFC 9110, 11.6.2, if these headers, nil: all, show it to the service.
// Which cookies and other fields are credentials is not known.
func judgedField(headers []string) []KeyPart {
	if headers != nil && !containsFold(headers, "authorization") {
		return nil
	}
	return []KeyPart{{"header", "authorization"}}
}

// notOurs refuses the name of a header with which the gateway itself tells upstreams of a request.
func (d *decoder) notOurs(key string, n ast.Node, name string) bool {
	switch lower := strings.ToLower(name); {
	case lower == "x-consumer-name" || lower == "forwarded" || lower == "via" || lower == "x-real-ip" || strings.HasPrefix(lower, "x-forwarded-"):
		d.problem(n, "", "header %q is the gateway's own: it cannot stand in %q", name, key)
		return false
	}
	return true
}

// forwardWhole judges what only the whole tells.
func (d *decoder) forwardWhole(f *ForwardAuth, given map[string]ast.Node) {
	if f.Body > 0 && f.Method == "GET" {
		d.problem(given["body"], "add method: same", "a GET has no body to send")
	}
	d.judgedWhole(f.Body, f.Headers, f.Cache, given)
}

// judgedWhole judges what becomes of answers that are kept.
func (d *decoder) judgedWhole(body int, headers []string, c *ForwardCache, given map[string]ast.Node) {
	if c == nil {
		return
	}
	at := given["cache"]
	if body > 0 {
		d.problem(at, "drop one of the two", "an answer about a body holds for no other: %q and %q contradict each other", "body", "cache")
	}
	for _, p := range c.Key {
		if name := keyedHeader(p); name != "" && headers != nil && !containsFold(headers, name) {
			d.problem(at, "", "the key has %q, which the service is not sent: it would answer for somebody else", p)
		}
	}
}

// keyedHeader is the header in which a part of a key is sent; "": in none.
func keyedHeader(p KeyPart) string {
	switch p.Kind {
	case "header":
		return p.Name
	case "cookie":
		return "cookie"
	}
	return ""
}

func (d *decoder) forwardCache(key string, n ast.Node) *ForwardCache {
	c := &ForwardCache{Per: "request", TTL: 10 * time.Second, Most: 10_000}
	before := d.errors
	ok := d.mapping(key, n, "key per ttl most", func(key string, _, v ast.Node) bool {
		switch key {
		case "key":
			if d.keyParts(key, v, &c.Key) {
				d.credentialKey(key, v, c.Key)
			}
		case "per":
			d.word(key, v, "request route", &c.Per)
		case "ttl":
			d.durationUpTo(key, v, time.Second, time.Hour, &c.TTL)
		case "most":
			d.integer(key, v, 1, maxForwardCached, &c.Most)
		default:
			return false
		}
		return true
	})
	if ok && c.Key == nil && d.errors == before {
		d.problem(n, "add key: header:Authorization", "%q has no %q", key, "key")
	}
	return c
}

// credentialKey refuses a key that could be the same for two clients.
func (d *decoder) credentialKey(key string, n ast.Node, parts []KeyPart) {
	for _, p := range parts {
		if p.Kind != "header" && p.Kind != "cookie" && p.Kind != "query" && p.Kind != "ip" {
			d.problem(n, "header:NAME, cookie:NAME, query:NAME or ip", "%q cannot stand in %q: write what tells one client from another", p, key)
			return
		}
	}
	if !slices.ContainsFunc(parts, func(p KeyPart) bool { return p.Kind != "ip" }) {
		d.problem(n, "add header:Authorization, or whatever the service judges by", "without a credential in %q one client would get another's answer", key)
	}
}

func (w *dumper) forwardAuth(f *ForwardAuth) {
	w.block("forward:", func() {
		w.service(&f.Service)
		w.line("method: %s", f.Method)
		if f.Headers != nil {
			w.line("headers: %s", quoteList(f.Headers))
		}
		w.line("body: %s", formatSize(int64(f.Body)))
		w.line("trust_forwarded: %t", f.TrustForwarded)
		if len(f.Copy) > 0 {
			w.line("copy: %s", quoteList(f.Copy))
		}
		if len(f.CopyToClient) > 0 {
			w.line("copy_to_client: %s", quoteList(f.CopyToClient))
		}
		w.hidden(f.Hide)
		w.forwardCache(f.Cache)
	})
}

func (w *dumper) hidden(parts []KeyPart) {
	if len(parts) == 0 {
		w.line("hide: off")
	} else {
		w.line("hide: %s", keyList(parts))
	}
}

func (w *dumper) forwardCache(c *ForwardCache) {
	if c == nil {
		return
	}
	w.block("cache:", func() {
		w.line("key: %s", keyList(c.Key))
		w.line("per: %s", c.Per)
		w.line("ttl: %s", formatDuration(c.TTL))
		w.line("most: %d", c.Most)
	})
}
