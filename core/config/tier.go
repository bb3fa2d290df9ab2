package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// OwnRate is what consumers have whose tier has this name, or the consumer of this name.
type OwnRate struct {
	Name    string
	Pos     Pos
	Windows []Rate // 1 to 4, of different lengths
	Burst   int    // of the shortest window; 0: its limit
}

const (
	maxTierRates     = 64
	maxConsumerRates = 100
	limitModes       = "local lease strict"
)

// ownRates reads rates by name: one, a list, or a map with limit and burst.
func (d *decoder) ownRates(key string, n ast.Node, most int, to *[]OwnRate) {
	seen := map[string]Pos{}
	d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		r := OwnRate{Name: name, Pos: d.at(k)}
		first, twice := seen[name]
		switch {
		case name == "" || len(name) > maxClaimBytes || hasControl(name):
			d.problem(k, "", "nobody has the name %q", clip(name))
			return true
		case twice:
			d.problem(k, "", "%q is given twice; first at %s", clip(name), first)
			return true
		case len(*to) == most:
			d.problem(k, "", "%q has more than %d entries", key, most)
			return true
		}
		seen[name] = r.Pos
		if d.ownRate(name, v, &r) {
			*to = append(*to, r)
		}
		return true
	})
}

func (d *decoder) ownRate(name string, n ast.Node, r *OwnRate) bool {
	switch n = d.resolve(n); {
	case n == nil:
		return false
	case !isMap(n):
		return d.windows(name, n, &r.Windows)
	}
	before := d.errors
	ok := d.mapping(name, n, "limit burst", func(key string, _, v ast.Node) bool {
		switch key {
		case "limit":
			d.windows(key, v, &r.Windows)
		case "burst":
			d.integer(key, v, 1, maxRateLimit, &r.Burst)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && len(r.Windows) == 0 {
		d.problem(n, "", "%q has no %q", clip(name), "limit")
	}
	return ok && len(r.Windows) > 0
}

// tierFrom reads who says which tier a request has.
func (d *decoder) tierFrom(key string, n ast.Node, claim *string) {
	var s string
	if !d.text(key, n, &s) || s == "consumer" {
		return
	}
	name, ok := strings.CutPrefix(s, "claim:")
	if !ok {
		d.problem(n, "", "%q must be consumer or claim:NAME, not %q", key, clip(s))
		return
	}
	if d.claimName(n, name) {
		*claim = name
	}
}

func tierFrom(claim string) string {
	if claim == "" {
		return "consumer"
	}
	return "claim:" + claim
}

// tiered says whether some level has rates by tier.
func (r *RateLimit) tiered() bool {
	for i := range r.Levels {
		if len(r.Levels[i].Tiers) > 0 {
			return true
		}
	}
	return false
}

// checkMode refuses what has no effect, or what several nodes cannot do together.
func (d *decoder) checkMode(given map[string]Pos, r *RateLimit) {
	if at, ok := given["tier_from"]; ok && !r.tiered() {
		d.problemAt(at, "add tiers: { free: 100/min }", "%q has no meaning here: there are no tiers", "tier_from")
	}
	if at, ok := given["on_error"]; ok && r.Mode == "local" {
		d.problemAt(at, "add mode: lease, or mode: strict", "%q has no meaning here: no other place is asked", "on_error")
	}
	if at, ok := given["mode"]; ok && r.Mode != "local" && r.Algorithm == "leaky_bucket" {
		d.problemAt(at, "take algorithm: token_bucket", "leaky_bucket is one node's queue: it cannot be shared")
	}
}

func rateList(windows []Rate) string {
	rates := make([]string, len(windows))
	for i := range rates {
		rates[i] = windows[i].String()
	}
	return quoteList(rates)
}

func (w *dumper) ownRates(head string, all []OwnRate) {
	if len(all) == 0 {
		return
	}
	w.block(head, func() {
		for i := range all {
			burst := ""
			if all[i].Burst > 0 {
				burst = fmt.Sprintf(", burst: %d", all[i].Burst)
			}
			w.line("%s: { limit: %s%s }", quote(all[i].Name), rateList(all[i].Windows), burst)
		}
	})
}

// CostAfter says how a response tells what its request has cost.
type CostAfter struct {
	Header string // that holds a number
	Max    int    // what is above counts as Max; 1..4294967295
	Remove bool   // the client does not get the header
}

// cost reads a number, or how the response tells it.
func (d *decoder) cost(key string, n ast.Node, r *RateLimit) {
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.integer(key, n, 1, maxRateLimit, &r.Cost)
		return
	}
	a := &CostAfter{}
	before := d.errors
	ok := d.mapping(key, n, "header hold max remove", func(key string, _, v ast.Node) bool {
		switch key {
		case "header":
			if d.text(key, v, &a.Header) {
				d.fieldName(key, v, a.Header)
			}
		case "hold":
			d.integer(key, v, 1, maxRateLimit, &r.Cost)
		case "max":
			d.integer(key, v, 1, maxRateLimit, &a.Max)
		case "remove":
			d.boolean(key, v, &a.Remove)
		default:
			return false
		}
		return true
	})
	switch {
	case !ok || d.errors != before:
	case a.Header == "":
		d.problem(n, "header: X-Cost", "%q does not say which header of the response tells it", key)
	case a.Max == 0:
		d.problem(n, "max: 100", "%q has no %q: one response could take all that a client has", key, "max")
	case a.Max < r.Cost:
		d.problem(n, "", "%q of %d is more than %q of %d", "hold", r.Cost, "max", a.Max)
	default:
		r.CostAfter = a
	}
}

func (w *dumper) cost(r *RateLimit) {
	if a := r.CostAfter; a != nil {
		w.line("cost: { header: %s, hold: %d, max: %d, remove: %t }", quote(a.Header), r.Cost, a.Max, a.Remove)
		return
	}
	w.line("cost: %d", r.Cost)
}
