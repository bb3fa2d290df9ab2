package config

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// KeyPart is one thing of a request that says whose bucket is taken of.
type KeyPart struct {
	Kind string // ip, route, global, method, host, upstream, consumer, tenant, header, cookie, query, path or claim
	Name string // of the last five; of a header in lower case
}

// String is the part as it is written.
func (p KeyPart) String() string {
	if p.Name == "" {
		return p.Kind
	}
	return p.Kind + ":" + p.Name
}

// always says whether every request has it.
func (p KeyPart) always() bool {
	return p.Kind == "route" || p.Kind == "global" || p.Kind == "method" || p.Kind == "upstream"
}

// Keying says whose bucket a request takes of, and how many buckets there are.
type Keying struct {
	Key        []KeyPart // together; ip
	IPv6Prefix int       // bits of an IPv6 address that make one client; 64
	OnMissing  string    // what becomes of requests without the key: shared (one bucket for all of them), allow or deny; shared
	Capacity   int       // buckets that are remembered; 100000, 16..16777216
}

// Refusal is how a policy of limits refuses.
type Refusal struct {
	Status  int      // 400..599; 429
	Body    Secret   // instead of the reason in JSON
	Headers []Header // besides the gateway's own
	DryRun  bool     // it is only counted
}

const (
	keyWords    = "ip route global method host upstream consumer tenant"
	keyNames    = "header cookie query path claim" // that take a name
	maxKeyParts = 8
	minCapacity = 16
	maxCapacity = 1 << 24

	keyingKeys  = "key ipv6_prefix on_missing capacity"
	refusalKeys = "status body headers dry_run"
)

func newKeying() Keying {
	return Keying{Key: []KeyPart{{Kind: "ip"}}, IPv6Prefix: 64, OnMissing: "shared", Capacity: 100_000}
}

// keying reads one of the keys of a Keying.
func (d *decoder) keying(key string, k, v ast.Node, to *Keying) bool {
	switch key {
	case "key":
		d.keyParts(key, v, &to.Key)
	case "ipv6_prefix":
		d.integer(key, v, 1, 128, &to.IPv6Prefix)
	case "on_missing":
		d.word(key, v, "shared allow deny", &to.OnMissing)
	case "capacity":
		d.integer(key, v, minCapacity, maxCapacity, &to.Capacity)
	default:
		return false
	}
	return true
}

// checkKeying refuses what would have no effect: given are the keys that are written, of the keys of all levels.
func (d *decoder) checkKeying(given map[string]Pos, keys ...[]KeyPart) {
	refuse := func(key, why string) {
		if at, ok := given[key]; ok {
			d.problemAt(at, "", "%q has no meaning here: %s", key, why)
		}
	}
	has := func(f func(KeyPart) bool) bool {
		return slices.ContainsFunc(keys, func(parts []KeyPart) bool { return slices.ContainsFunc(parts, f) })
	}
	if !has(func(p KeyPart) bool { return p.Kind == "ip" }) {
		refuse("ipv6_prefix", "no key is the client's ip")
	}
	if !has(func(p KeyPart) bool { return !p.always() }) {
		refuse("on_missing", "every request has the key")
	}
	if !has(func(p KeyPart) bool { return p.Kind != "global" }) {
		refuse("capacity", "there is one bucket")
	}
}

// keyParts reads one part, or a list of them.
func (d *decoder) keyParts(key string, n ast.Node, to *[]KeyPart) bool {
	var parts []KeyPart
	whole := true
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		var p KeyPart
		switch {
		case v == nil || !d.keyPart(key, v, &p):
			whole = false
		case slices.Contains(parts, p):
			d.problem(v, "", "the key has %q twice", p)
			whole = false
		case len(parts) == maxKeyParts:
			d.problem(v, "", "a key has at most %d parts", maxKeyParts)
			whole = false
		case len(parts) > 0 && (p.Kind == "global" || parts[0].Kind == "global"):
			d.problem(v, "", "%q is the same for all requests: it cannot stand beside another part", "global")
			whole = false
		default:
			parts = append(parts, p)
		}
	})
	if whole && len(parts) > 0 {
		*to = parts
	}
	return whole && len(parts) > 0
}

func (d *decoder) keyPart(key string, n ast.Node, to *KeyPart) bool {
	var text string
	if !d.text(key, n, &text) {
		return false
	}
	kind, name, named := strings.Cut(text, ":")
	switch kind {
	case "header":
		if named && !d.token(key, n, name) {
			return false
		}
		switch name = strings.ToLower(name); name {
		case "host":
			d.problem(n, "write host", "%q is not the same over HTTP/1.1 and HTTP/2", text)
			return false
		case "cookie":
			d.problem(n, "write cookie:NAME", "%q is not the same over HTTP/1.1 and HTTP/2", text)
			return false
		}
	}
	switch words := strings.Fields(keyNames); {
	case !named && slices.Contains(strings.Fields(keyWords), kind):
	case !named && slices.Contains(words, kind):
		d.problem(n, "write "+kind+":NAME", "%q does not say which %s", key, kind)
		return false
	case !slices.Contains(words, kind):
		d.problem(n, d.nearest(kind, keyWords+" "+keyNames+" key"), "%q is nothing that a key can be made of", clip(text))
		return false
	case name == "" || len(name) > maxNameRunes*2 || hasControl(name) || kind == "cookie" && !isToken(name):
		d.problem(n, "", "%q cannot name a %s", clip(name), kind)
		return false
	}
	*to = KeyPart{kind, name}
	return true
}

// refusal reads one of the keys of a Refusal.
func (d *decoder) refusal(key string, k, v ast.Node, to *Refusal) bool {
	switch key {
	case "status":
		d.integer(key, v, 400, 599, &to.Status)
	case "body":
		d.secret(key, v, maxRespondBytes, &to.Body)
	case "headers":
		answer := &Respond{}
		d.answerHeaders(key, v, answer, "date retry-after ratelimit ratelimit-policy x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset")
		to.Headers = answer.Headers
	case "dry_run":
		d.boolean(key, v, &to.DryRun)
	default:
		return false
	}
	return true
}

// Concurrency bounds what is in flight.
type Concurrency struct {
	Limit int           // 1..1048575
	Hold  time.Duration // after which one that was never ended, though nothing renewed it, is dropped; 1m, 1s..24h
	Keying
	Refusal
}

const maxInFlight = 1<<20 - 1

// concurrency reads a policy: a number, or a map.
func (d *decoder) concurrency(key string, n ast.Node) *Concurrency {
	c := &Concurrency{Hold: time.Minute, Keying: newKeying(), Refusal: Refusal{Status: 429}}
	switch n = d.resolve(n); {
	case n == nil:
		return c
	case !isMap(n):
		d.integer(key, n, 1, maxInFlight, &c.Limit)
		return c
	}
	given := map[string]Pos{}
	ok := d.mapping(key, n, "limit hold "+keyingKeys+" "+refusalKeys, func(key string, k, v ast.Node) bool {
		given[key] = d.at(k)
		switch key {
		case "limit":
			d.integer(key, v, 1, maxInFlight, &c.Limit)
		case "hold":
			d.duration(key, v, time.Second, &c.Hold)
		default:
			return d.keying(key, k, v, &c.Keying) || d.refusal(key, k, v, &c.Refusal)
		}
		return true
	})
	if _, limited := given["limit"]; ok && !limited {
		d.problem(n, "", "%q has no %q", key, "limit")
	}
	d.checkKeying(given, c.Key)
	return c
}
