package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// RateLimit bounds requests in time. The windows of sliding_window and fixed_window begin at the multiples of their time since
// 1970, UTC: those of a day at midnight.
type RateLimit struct {
	Algorithm string        // token_bucket, sliding_window, fixed_window or leaky_bucket; token_bucket
	MaxWait   time.Duration // of leaky_bucket, the longest delay: 1ms..1m
	Levels    []LimitLevel  // 1 to 8, of which all are taken or none
	TierClaim string        // of the token, that names the tier; "": the consumer's own
	Mode      string        // local, lease or strict; local
	OnError   string        // what is done while the cluster is away: local, allow or deny; local
	Keying
	Cost          int        // tokens that a request takes; 1
	CostAfter     *CostAfter // nil: they are all that it costs
	HideHeaders   bool
	LegacyHeaders bool    // X-RateLimit-* too
	Share         float64 // percent of the requests over a limit that are refused, the others are only counted, 0.001..100; 100
	Refusal
}

// LimitLevel is one bound. A request takes of all its windows or of none.
type LimitLevel struct {
	Pos     Pos
	Scope   string    // "key": the policy's own
	Key     []KeyPart // the policy's, or what scope says
	Windows []Rate    // 1 to 4, of different lengths
	Burst   int       // of the shortest window; 0: its limit, or 1 with leaky_bucket
	// What stands in the place of Windows and Burst: the consumer's own, else his tier's. Each counts in buckets of its own.
	Tiers     []OwnRate // at most 64
	Consumers []OwnRate // at most 100
}

const (
	rateLimitKeys   = "algorithm max_wait limit limits burst tiers consumers tier_from mode on_error cost hide_headers legacy_headers share " + keyingKeys + " " + refusalKeys
	levelKeys       = "scope limit burst tiers consumers"
	limitAlgorithms = "token_bucket sliding_window fixed_window leaky_bucket"

	maxLevels      = 8
	maxWindows     = 4
	maxLimitWait   = time.Minute
	maxWindowCount = 1<<20 - 1 // of a sliding window
)

// rateLimit reads a policy: a rate, or a map.
func (d *decoder) rateLimit(key string, n ast.Node) *RateLimit {
	r := &RateLimit{Algorithm: "token_bucket", Mode: "local", OnError: "local", Keying: newKeying(), Cost: 1, Share: 100, Refusal: Refusal{Status: 429}}
	n = d.resolve(n)
	level := LimitLevel{Scope: "key"}
	if n == nil {
		return r
	}
	level.Pos = d.at(n)
	before := d.errors
	if isMap(n) {
		d.rateLimitMap(key, n, r, &level)
	} else if d.windows("limit", n, &level.Windows) {
		r.Levels = []LimitLevel{level}
	}
	for i := range r.Levels {
		if r.Levels[i].Scope == "key" {
			r.Levels[i].Key = r.Key
		}
	}
	if d.errors == before {
		d.rateLimitWhole(n, r)
	}
	return r
}

// rateLimitMap reads the long form. level is that of the short one, inside of it.
func (d *decoder) rateLimitMap(key string, n ast.Node, r *RateLimit, level *LimitLevel) {
	given := map[string]Pos{}
	ok := d.mapping(key, n, rateLimitKeys, func(key string, k, v ast.Node) bool {
		given[key] = d.at(k)
		return d.rateLimitKey(key, v, r, level) || d.keying(key, k, v, &r.Keying) || d.refusal(key, k, v, &r.Refusal)
	})
	if !ok {
		return
	}
	together := func(a, b, why string) {
		at, one := given[b]
		if _, other := given[a]; one && other {
			d.problemAt(at, "", "%q cannot stand beside %q: %s", b, a, why)
		}
	}
	together("limit", "limits", "write all of them there")
	for _, key := range []string{"burst", "tiers", "consumers"} {
		together("limits", key, "it belongs to one of them")
	}
	_, one := given["limit"]
	_, many := given["limits"]
	if !one && !many {
		d.problem(n, "", "%q has no %q", key, "limit")
	}
	if one && !many {
		r.Levels = []LimitLevel{*level}
	}
	d.checkMode(given, r)
	if r.HideHeaders {
		together("hide_headers", "legacy_headers", "no header tells of the limit")
	}
	if r.DryRun {
		together("dry_run", "share", "nothing is refused")
	}
	keys := [][]KeyPart{}
	own := false
	for i := range r.Levels {
		own = own || r.Levels[i].Scope == "key"
		if r.Levels[i].Scope != "key" {
			keys = append(keys, r.Levels[i].Key)
		}
	}
	if at, ok := given["key"]; ok && !own && len(r.Levels) > 0 {
		d.problemAt(at, "add a limit with scope: key", "%q has no meaning here: no limit is of this scope", "key")
	}
	if own {
		keys = append(keys, r.Key)
	}
	if len(keys) > 0 {
		d.checkKeying(given, keys...)
	}
}

// rateLimitKey reads one of the keys that only a rate_limit has.
func (d *decoder) rateLimitKey(key string, v ast.Node, r *RateLimit, level *LimitLevel) bool {
	switch key {
	case "algorithm":
		d.word(key, v, limitAlgorithms, &r.Algorithm)
	case "max_wait":
		d.durationUpTo(key, v, time.Millisecond, maxLimitWait, &r.MaxWait)
	case "limits":
		d.levels(key, v, r)
	case "tier_from":
		d.tierFrom(key, v, &r.TierClaim)
	case "mode":
		d.word(key, v, limitModes, &r.Mode)
	case "on_error":
		d.word(key, v, "local allow deny", &r.OnError)
	case "cost":
		d.cost(key, v, r)
	case "hide_headers":
		d.boolean(key, v, &r.HideHeaders)
	case "legacy_headers":
		d.boolean(key, v, &r.LegacyHeaders)
	case "share":
		d.percent(key, v, 0.001, 100, &r.Share)
	default:
		return d.levelKey(key, v, level)
	}
	return true
}

// levelKey reads one of the keys that a level has, wherever it is written.
func (d *decoder) levelKey(key string, v ast.Node, level *LimitLevel) bool {
	switch key {
	case "limit":
		d.windows(key, v, &level.Windows)
	case "burst":
		d.integer(key, v, 1, maxRateLimit, &level.Burst)
	case "tiers":
		d.ownRates(key, v, maxTierRates, &level.Tiers)
	case "consumers":
		d.ownRates(key, v, maxConsumerRates, &level.Consumers)
	default:
		return false
	}
	return true
}

// levels reads the bounds of a policy, from the outermost to the innermost.
func (d *decoder) levels(key string, n ast.Node, r *RateLimit) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		if v == nil {
			return
		}
		level := LimitLevel{Pos: d.at(v), Scope: "key"}
		limited := false
		ok := d.mapping(key, v, levelKeys, func(key string, _, v ast.Node) bool {
			if key == "scope" {
				d.scope(key, v, &level)
				return true
			}
			limited = limited || key == "limit"
			return d.levelKey(key, v, &level)
		})
		switch {
		case !ok:
		case !limited:
			d.problem(v, "", "the limit has no %q", "limit")
		case len(r.Levels) == maxLevels:
			d.problem(v, "", "there are more than %d limits in one policy", maxLevels)
		default:
			r.Levels = append(r.Levels, level)
		}
	})
}

// scope reads whose bucket a level is: the policy's key, or another.
func (d *decoder) scope(key string, n ast.Node, level *LimitLevel) {
	n = d.resolve(n)
	if s, ok := n.(*ast.StringNode); ok && s.Value == "key" {
		return
	}
	if n != nil && d.keyParts(key, n, &level.Key) {
		level.Scope = scopeText(level.Key)
	}
}

func scopeText(parts []KeyPart) string {
	text := ""
	for i, p := range parts {
		if i > 0 {
			text += ","
		}
		text += p.String()
	}
	return text
}

// windows reads one rate, or several of one level.
func (d *decoder) windows(key string, n ast.Node, to *[]Rate) bool {
	whole := true
	d.list(key, n, func(v ast.Node) {
		var r Rate
		switch {
		case !d.limitRate(key, v, &r):
			whole = false
		case slices.ContainsFunc(*to, func(o Rate) bool { return o.Period == r.Period }):
			d.problem(v, "", "%q has two rates of the same time", key)
		case len(*to) == maxWindows:
			d.problem(v, "", "a limit has at most %d rates", maxWindows)
		default:
			*to = append(*to, r)
		}
	})
	slices.SortFunc(*to, func(a, b Rate) int { return int(min(max(a.Period-b.Period, -1), 1)) })
	return whole && len(*to) > 0
}

// rateLimitWhole checks what takes more than one key.
func (d *decoder) rateLimitWhole(n ast.Node, r *RateLimit) {
	at := d.at(n)
	switch {
	case r.Algorithm == "leaky_bucket" && r.MaxWait == 0:
		d.problemAt(at, "add max_wait: 1s, or take token_bucket", "leaky_bucket delays nothing without %q", "max_wait")
	case r.Algorithm != "leaky_bucket" && r.MaxWait > 0:
		d.problemAt(at, "take algorithm: leaky_bucket", "%s has no %q: only leaky_bucket delays", r.Algorithm, "max_wait")
	}
	scopes := map[string]Pos{}
	for i := range r.Levels {
		l := &r.Levels[i]
		name := scopeText(l.Key)
		if first, twice := scopes[name]; twice {
			d.problemAt(l.Pos, "write its rates as one list: limit: [100/s, 3000/h]", "there are two limits of the same key; the first at %s", first)
		}
		scopes[name] = l.Pos
		d.levelWhole(r, l)
	}
}

func (d *decoder) levelWhole(r *RateLimit, l *LimitLevel) {
	d.ratesWhole(r, &OwnRate{Pos: l.Pos, Windows: l.Windows, Burst: l.Burst})
	for _, own := range [][]OwnRate{l.Tiers, l.Consumers} {
		for i := range own {
			d.ratesWhole(r, &own[i])
		}
	}
}

// ratesWhole checks the rates of a level, or what stands in their place.
func (d *decoder) ratesWhole(r *RateLimit, l *OwnRate) {
	bucket := r.Algorithm == "token_bucket" || r.Algorithm == "leaky_bucket"
	if l.Burst > 0 && !bucket {
		d.problemAt(l.Pos, "", "%s has no %q", r.Algorithm, "burst")
		return
	}
	cost := r.Cost
	if a := r.CostAfter; a != nil {
		cost = a.Max
	}
	for i, w := range l.Windows {
		most, what := w.Limit, fmt.Sprintf("the limit %s", w)
		switch {
		case r.Algorithm == "sliding_window" && w.Limit > maxWindowCount:
			d.problemAt(l.Pos, "take algorithm: token_bucket", "%s is more than sliding_window can count: %d", what, maxWindowCount)
			continue
		case r.Algorithm == "leaky_bucket":
			most = 1
			if i == 0 && l.Burst > 0 {
				most = l.Burst
			}
			most += int(float64(r.MaxWait) / float64(w.Period) * float64(w.Limit))
			what = fmt.Sprintf("what %s holds in max_wait, %d", w, most)
		case i == 0 && l.Burst > 0:
			most, what = l.Burst, fmt.Sprintf("the burst %d", l.Burst)
		}
		if i == 0 && l.Burst > 0 && float64(l.Burst)/float64(w.Limit)*float64(w.Period) > float64(maxPeriod) {
			d.problemAt(l.Pos, "", "a burst of %d takes longer than 90 days to come at %s", l.Burst, w)
		}
		switch {
		case r.Cost > most:
			d.problemAt(l.Pos, "", "no request would pass: it costs %d, more than %s", r.Cost, what)
		case cost > most:
			d.problemAt(l.Pos, "", "a request may cost %d, more than %s", cost, what)
		}
	}
}

func (w *dumper) rateLimit(r *RateLimit) {
	w.line("algorithm: %s", r.Algorithm)
	if r.MaxWait > 0 {
		w.line("max_wait: %s", formatDuration(r.MaxWait))
	}
	keys := make([][]KeyPart, 0, len(r.Levels))
	own, tiered := false, false
	w.block("limits:", func() {
		for i := range r.Levels {
			l := &r.Levels[i]
			keys = append(keys, l.Key)
			scope := "key"
			if own = own || l.Scope == "key"; l.Scope != "key" {
				scope = keyList(l.Key)
			}
			tiered = tiered || len(l.Tiers) > 0
			w.item(func() {
				w.line("scope: %s", scope)
				w.line("limit: %s", rateList(l.Windows))
				if l.Burst > 0 {
					w.line("burst: %d", l.Burst)
				}
				w.ownRates("tiers:", l.Tiers)
				w.ownRates("consumers:", l.Consumers)
			})
		}
	})
	w.keying(&r.Keying, own, keys)
	if tiered {
		w.line("tier_from: %s", quote(tierFrom(r.TierClaim)))
	}
	w.line("mode: %s", r.Mode)
	if r.Mode != "local" {
		w.line("on_error: %s", r.OnError)
	}
	w.cost(r)
	if !r.HideHeaders {
		w.line("legacy_headers: %t", r.LegacyHeaders)
	} else {
		w.line("hide_headers: true")
	}
	if r.Share < 100 {
		w.line("share: %s%%", formatShare(r.Share))
	}
	w.refusal(&r.Refusal)
}

func (w *dumper) concurrency(c *Concurrency) {
	w.line("limit: %d", c.Limit)
	w.line("hold: %s", formatDuration(c.Hold))
	w.keying(&c.Keying, true, [][]KeyPart{c.Key})
	w.refusal(&c.Refusal)
}

// keying writes what has a meaning for the keys of all levels.
func (w *dumper) keying(k *Keying, own bool, keys [][]KeyPart) {
	if own {
		w.line("key: %s", keyList(k.Key))
	}
	has := func(f func(KeyPart) bool) bool {
		return slices.ContainsFunc(keys, func(parts []KeyPart) bool { return slices.ContainsFunc(parts, f) })
	}
	if has(func(p KeyPart) bool { return p.Kind == "ip" }) {
		w.line("ipv6_prefix: %d", k.IPv6Prefix)
	}
	if has(func(p KeyPart) bool { return !p.always() }) {
		w.line("on_missing: %s", k.OnMissing)
	}
	if has(func(p KeyPart) bool { return p.Kind != "global" }) {
		w.line("capacity: %d", k.Capacity)
	}
}

func (w *dumper) refusal(r *Refusal) {
	w.line("status: %d", r.Status)
	if body := r.Body.String(); body != "" {
		w.line("body: %s", quote(body))
	}
	w.headers(r.Headers)
	if r.DryRun {
		w.line("dry_run: true")
	}
}

func keyList(parts []KeyPart) string {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.String()
	}
	return quoteList(texts)
}
