package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Balance is how an upstream chooses among its endpoints. Of what is said for one algorithm, the others take no notice.
type Balance struct {
	Algorithm  string        // round_robin, least_request, peak_ewma, random, ring_hash, maglev or source_ip; round_robin
	Choices    int           // least_request, peak_ewma: endpoints looked at, 2..16; 2
	FullScan   bool          // least_request: all are looked at; false
	Bias       float64       // least_request: power of the requests in flight that divides a weight, 0..8; 1
	Decay      time.Duration // peak_ewma: in which a latency is forgotten to 1/e, 10ms..1h; 10s
	Failure    time.Duration // peak_ewma: what a failed request counts as, at least, 0..1h; 1s
	LoadFactor float64       // ring_hash, maglev, source_ip: times its share that an endpoint may have in flight, 1.01..100; 0: no bound
	Keys       []BalanceKey  // ring_hash, maglev, source_ip: the first that a request has; client_ip

	SlowStart        SlowStart
	Zone             string  // the gateway's own; "": zones do not matter
	ZoneMinimum      int     // endpoints of a priority below which zones do not matter, 1..10000; 6
	Overprovisioning float64 // 1..10; 1.4
	Panic            float64 // percent, 0..100; 50
}

// SlowStart is how an endpoint that has become available begins.
type SlowStart struct {
	Window     time.Duration // 0: at once; up to 24h
	Aggression float64       // 0.01..100; 1
	Minimum    float64       // percent of the weight to begin with, 0.1..100; 10
}

// BalanceKey is what requests that belong together have in common.
type BalanceKey struct {
	From   string // client_ip, header, cookie, query, path, param: a parameter of the route's path, consumer, tenant or claim
	Name   string // of the header, cookie, argument, parameter or claim
	Pos    Pos
	Sticky *StickyCookie // nil: clients are given no cookie
}

// StickyCookie is how a cookie is given to clients that have none.
type StickyCookie struct {
	TTL      time.Duration // whole seconds; 0: until the client ends
	Path     string        // "/"
	Secure   bool          // false
	HTTPOnly bool          // true
	SameSite string        // strict, lax, none or off; lax
}

// algorithms are the names of the algorithms, with the keys that each has.
var algorithms = map[string]string{ //nolint:gochecknoglobals // constant
	"round_robin":   "",
	"least_request": "choices full_scan bias",
	"peak_ewma":     "choices decay failure",
	"random":        "",
	"ring_hash":     "key load_factor",
	"maglev":        "key load_factor",
	"source_ip":     "load_factor",
}

const (
	algorithmNames = "round_robin least_request peak_ewma random ring_hash maglev source_ip"
	balanceKeys    = algorithmNames + " slow_start zone overprovisioning panic"
	maxBalanceKeys = 8 // sources of one affinity key
)

func defaultBalance() Balance {
	return Balance{
		Algorithm: "round_robin", Choices: 2, Bias: 1, Decay: 10 * time.Second, Failure: time.Second,
		SlowStart: SlowStart{Aggression: 1, Minimum: 10}, ZoneMinimum: 6, Overprovisioning: 1.4, Panic: 50,
	}
}

// Hashing says whether the algorithm goes by an affinity key.
func (b *Balance) Hashing() bool {
	return b.Algorithm == "ring_hash" || b.Algorithm == "maglev" || b.Algorithm == "source_ip"
}

// balance reads an algorithm's name, or a map with an algorithm among what holds for all.
func (d *decoder) balance(key string, n ast.Node, b *Balance) {
	n = d.resolve(n)
	switch n.(type) {
	case nil:
		return
	case *ast.MappingNode, *ast.MappingValueNode:
		d.balanceMap(key, n, b)
	default:
		d.word(key, n, algorithmNames, &b.Algorithm)
	}
	if b.Hashing() && len(b.Keys) == 0 {
		b.Keys = []BalanceKey{{From: "client_ip", Pos: d.at(n)}}
	}
}

func (d *decoder) balanceMap(key string, n ast.Node, b *Balance) {
	chosen := ""
	var slow ast.Node
	d.mapping(key, n, balanceKeys, func(key string, k, v ast.Node) bool {
		if valid, is := algorithms[key]; is {
			if chosen != "" {
				d.problem(k, "", "an upstream has one algorithm, and %q is another beside %q", key, chosen)
				return true
			}
			chosen, b.Algorithm = key, key
			d.algorithm(key, v, valid, b)
			return true
		}
		switch key {
		case "slow_start":
			slow = k
			d.slowStart(key, v, &b.SlowStart)
		case "zone":
			d.zone(key, v, b)
		case "overprovisioning":
			d.fraction(key, v, 1, 10, &b.Overprovisioning)
		case "panic":
			d.percent(key, v, 0, 100, &b.Panic)
		default:
			return false
		}
		return true
	})
	if slow != nil && b.Hashing() {
		d.problem(slow, "", "%q is of no use with %q: keys would move at every step", "slow_start", b.Algorithm)
	}
}

// algorithm reads what is said for one algorithm, of which valid are the keys.
func (d *decoder) algorithm(name string, n ast.Node, valid string, b *Balance) {
	if valid == "" {
		if values, ok := d.pairs(name, n); ok && len(values) > 0 {
			d.problem(values[0].Key, "", "%q has nothing to be set", name)
		}
		return
	}
	var scan, choices ast.Node
	d.mapping(name, n, valid, func(key string, k, v ast.Node) bool {
		if !strings.Contains(" "+valid+" ", " "+key+" ") {
			return false
		}
		switch key {
		case "choices":
			choices = k
			d.integer(key, v, 2, 16, &b.Choices)
		case "full_scan":
			scan = k
			d.boolean(key, v, &b.FullScan)
		case "bias":
			d.fraction(key, v, 0, 8, &b.Bias)
		case "decay":
			d.durationUpTo(key, v, 10*time.Millisecond, time.Hour, &b.Decay)
		case "failure":
			d.durationUpTo(key, v, 0, time.Hour, &b.Failure)
		case "load_factor":
			d.fraction(key, v, 1.01, 100, &b.LoadFactor)
		case "key":
			d.balanceKeyList(key, v, b)
		}
		return true
	})
	if b.FullScan && choices != nil {
		d.problem(scan, "", "with %q all endpoints are looked at: %q is of no use", "full_scan", "choices")
	}
}

// balanceKeyList reads one source of a key, or a list.
func (d *decoder) balanceKeyList(key string, n ast.Node, b *Balance) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		if v == nil {
			return
		}
		source, ok := d.balanceKey(key, v)
		if !ok {
			return
		}
		for i := range b.Keys {
			before := &b.Keys[i]
			switch {
			case before.From == source.From && before.Name == source.Name:
				d.problem(v, "", "this stands in the list already, at %s", before.Pos)
				return
			case before.From == "path" || before.Sticky != nil:
				d.problem(v, "", "this is never looked at: every request has what is at %s", before.Pos)
				return
			}
		}
		if len(b.Keys) == maxBalanceKeys {
			d.problem(v, "", "a key has at most %d sources", maxBalanceKeys)
			return
		}
		b.Keys = append(b.Keys, source)
	})
}

const balanceKeyHint = "write client_ip, path, header:NAME, cookie:NAME, query:NAME, path:NAME, consumer, tenant, claim:NAME, or { cookie: { name: NAME } }"

// balanceKey reads one source of a key.
func (d *decoder) balanceKey(key string, n ast.Node) (source BalanceKey, ok bool) {
	source.Pos = d.at(n)
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		source.From = "cookie"
		given := false
		d.mapping(key, n, "cookie", func(key string, _, v ast.Node) bool {
			if key != "cookie" {
				return false
			}
			given, ok = true, d.stickyCookie(key, v, &source)
			return true
		})
		if !given {
			d.problem(n, balanceKeyHint, "a key is made of one source")
		}
		return source, ok
	}
	var text string
	if !d.text(key, n, &text) {
		return source, false
	}
	name, named := "", false
	source.From, name, named = strings.Cut(text, ":")
	source.Name = name
	switch source.From {
	case "header", "cookie":
		ok = named && isToken(name)
	case "query":
		ok = named && name != "" && len(name) <= maxNameRunes && !hasControl(name)
	case "claim":
		ok = named && name != "" && len(name) <= maxNameRunes && !hasControl(name)
	case "path":
		if ok = !named; named {
			source.From = "param"
			ok = name != "" && strings.Trim(name, wordBytes) == ""
		}
	case "client_ip", "consumer", "tenant":
		ok = !named
	}
	if !ok {
		d.problem(n, balanceKeyHint, "%q is no source of a key", clip(text))
	}
	return source, ok
}

const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// stickyCookie reads a cookie that clients are given.
func (d *decoder) stickyCookie(key string, n ast.Node, source *BalanceKey) bool {
	c := &StickyCookie{Path: "/", HTTPOnly: true, SameSite: "lax"}
	sound := true
	whole := d.mapping(key, n, "name ttl path secure http_only same_site", func(key string, _, v ast.Node) bool {
		switch key {
		case "name":
			if sound = d.text(key, v, &source.Name); sound && !isToken(source.Name) {
				d.problem(v, "", "%q is no name of a cookie", clip(source.Name))
				sound = false
			}
		case "ttl":
			d.durationUpTo(key, v, 0, 400*24*time.Hour, &c.TTL)
			if c.TTL%time.Second != 0 {
				d.problem(v, "", "%q must be whole seconds", key)
			}
		case "path":
			var path string
			if d.text(key, v, &path) && (!strings.HasPrefix(path, "/") || len(path) > maxPathBytes || strings.ContainsAny(path, ";") || !isGraphic(path)) {
				d.problem(v, "", "%q is no path of a cookie", clip(path))
				return true
			}
			c.Path = path
		case "secure":
			d.boolean(key, v, &c.Secure)
		case "http_only":
			d.boolean(key, v, &c.HTTPOnly)
		case "same_site":
			d.word(key, v, "strict lax none off", &c.SameSite)
		default:
			return false
		}
		return true
	})
	if !whole || !sound {
		return false
	}
	source.Sticky = c
	name := strings.ToLower(source.Name)
	switch {
	case name == "":
		d.problem(n, "", "the cookie has no %q", "name")
	case c.SameSite == "none" && !c.Secure:
		d.problem(n, "add secure: true", "browsers refuse a cookie with %q that is not secure", "same_site: none")
	case strings.HasPrefix(name, "__secure-") && !c.Secure:
		d.problem(n, "add secure: true", "browsers refuse a cookie of this name that is not secure")
	case strings.HasPrefix(name, "__host-") && (!c.Secure || c.Path != "/"):
		d.problem(n, "add secure: true and path: /", "browsers refuse a cookie of this name that is not secure, or has another path than /")
	default:
		return true
	}
	return false
}

// isGraphic says whether s is of printable ASCII without spaces.
func isGraphic(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// slowStart reads a window, or a map.
func (d *decoder) slowStart(key string, n ast.Node, s *SlowStart) {
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.optionalDuration(key, n, &s.Window)
		return
	}
	hasWindow := false
	ok := d.mapping(key, n, "window aggression minimum", func(key string, _, v ast.Node) bool {
		switch key {
		case "window":
			hasWindow = true
			d.optionalDuration(key, v, &s.Window)
		case "aggression":
			d.fraction(key, v, 0.01, 100, &s.Aggression)
		case "minimum":
			d.percent(key, v, 0.1, 100, &s.Minimum)
		default:
			return false
		}
		return true
	})
	if ok && !hasWindow {
		d.problem(n, "", "%q has no %q", key, "window")
	}
}

// zone reads the gateway's own zone, or a map.
func (d *decoder) zone(key string, n ast.Node, b *Balance) {
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.zoneName(key, n, &b.Zone)
		return
	}
	hasOwn := false
	ok := d.mapping(key, n, "own minimum_endpoints", func(key string, _, v ast.Node) bool {
		switch key {
		case "own":
			hasOwn = true
			d.zoneName(key, v, &b.Zone)
		case "minimum_endpoints":
			d.integer(key, v, 1, maxEndpoints, &b.ZoneMinimum)
		default:
			return false
		}
		return true
	})
	if ok && !hasOwn {
		d.problem(n, "", "%q has no %q", key, "own")
	}
}

func (d *decoder) zoneName(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if s == "" || len(s) > maxNameRunes || !isGraphic(s) {
		d.problem(n, "", "%q is no name of a zone", clip(s))
		return
	}
	*to = s
}
