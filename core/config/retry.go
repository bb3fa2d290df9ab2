package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Retry says which failed attempts are followed by others, how many, and when. That of a route holds in the place of its
// upstreams'.
type Retry struct {
	Attempts       int           // of one request, with the first, 1..10; 3, and 2 where anything of retry is written; 1: off
	On             []string      // what is repeated, in the order of retryCauses and then statuses; empty: nothing
	PerTry         time.Duration // for one attempt up to the head of its answer; 0: no limit but the others
	Methods        []string      // of requests that may be executed twice; empty: the idempotent ones
	IdempotencyKey bool          // a request with an Idempotency-Key may be, too
	Backoff        Backoff
	RetryAfter     time.Duration // the longest that an answer may ask to wait before it is passed on instead; 0: what it asks is ignored
	OtherEndpoint  bool          // an endpoint that was tried comes after the others; true

	pos, perTryAt Pos
}

// Backoff is the wait before another attempt.
type Backoff struct {
	Base   time.Duration // the first; it doubles each time. 0: none
	Max    time.Duration
	Jitter string // full: a random part of it; none: the whole
}

// RetryBudget bounds the retries to an upstream: to a share of its requests in the long run, so that one that fails as a whole does not get
// its load several times over, but not in the instant in which one of its endpoints dies.
type RetryBudget struct {
	Off     bool
	Percent float64 // of the requests, 0..100; 20
	Floor   int     // retries at once that are always allowed, 0..100000; 3
}

const (
	retryKeys     = "attempts on per_try methods idempotency_key backoff retry_after other_endpoint"
	retryCauses   = "connect refused stale reset timeout gateway_error 5xx"
	retryStatuses = "cancelled deadline_exceeded internal resource_exhausted unavailable" // of gRPC

	maxAttempts   = 10
	maxBackoff    = time.Minute
	maxRetryAfter = 5 * time.Minute
)

// builtInRetry is what holds where nothing is written.
func builtInRetry() Retry {
	return Retry{Attempts: 3, On: []string{"connect", "refused", "stale"}, Backoff: Backoff{Jitter: "full"}, OtherEndpoint: true}
}

// writtenRetry is what the keys have that are left out where something is written.
func writtenRetry() Retry {
	return Retry{Attempts: 2, On: []string{"connect", "refused", "stale", "reset", "timeout", "gateway_error"}, IdempotencyKey: true,
		Backoff:    Backoff{Base: 25 * time.Millisecond, Max: 250 * time.Millisecond, Jitter: "full"},
		RetryAfter: time.Second, OtherEndpoint: true}
}

// retry reads off, on, a number of attempts, or a map. budget is the upstream's; nil: a route has none.
func (d *decoder) retry(key string, n ast.Node, to *Retry, budget *RetryBudget) {
	r := writtenRetry()
	r.pos = d.at(n)
	n = d.resolve(n)
	switch n := n.(type) {
	case nil:
		return
	case *ast.MappingNode, *ast.MappingValueNode:
		d.retryMap(key, n, &r, budget)
	case *ast.BoolNode:
		if !n.Value {
			r.Attempts = 1
		}
	case *ast.IntegerNode:
		d.integer(key, n, 1, maxAttempts, &r.Attempts)
	default:
		var word string
		d.word(key, n, "off on", &word)
		if word == "off" {
			r.Attempts = 1
		}
	}
	if r.Attempts == 1 {
		r.On = nil
	}
	*to = r
}

func (d *decoder) retryMap(key string, n ast.Node, r *Retry, budget *RetryBudget) {
	valid := retryKeys
	if budget != nil {
		valid += " budget"
	}
	var on ast.Node
	d.mapping(key, n, valid, func(key string, k, v ast.Node) bool {
		switch key {
		case "attempts":
			d.integer(key, v, 1, maxAttempts, &r.Attempts)
		case "on":
			on = v
			d.retryOn(key, v, r)
		case "per_try":
			r.perTryAt = d.at(v)
			d.optionalDuration(key, v, &r.PerTry)
		case "methods":
			d.retryMethods(key, v, r)
		case "idempotency_key":
			d.boolean(key, v, &r.IdempotencyKey)
		case "backoff":
			d.backoff(key, v, &r.Backoff)
		case "retry_after":
			d.retryAfter(key, v, &r.RetryAfter)
		case "other_endpoint":
			d.boolean(key, v, &r.OtherEndpoint)
		case "budget":
			if budget == nil {
				d.problem(k, "write it in the retry of the upstream", "a budget is for all routes to an upstream")
			} else {
				d.retryBudget(key, v, budget)
			}
		default:
			return false
		}
		return true
	})
	if r.Attempts == 1 && on != nil {
		d.problem(on, "attempts counts the first, too", "with one attempt nothing is repeated: %q is of no use", "on")
	}
	if r.PerTry > 0 && r.Attempts > 1 && !slices.Contains(r.On, "timeout") {
		d.warnAt(r.perTryAt, "add timeout to on", "an attempt that %q ends is not repeated", "per_try")
	}
}

// retryOn reads what is repeated.
func (d *decoder) retryOn(key string, n ast.Node, r *Retry) {
	valid := retryCauses + " " + retryStatuses
	seen := map[string]Pos{}
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		var name string
		if v == nil || !d.text(key, v, &name) {
			return
		}
		if first, twice := seen[name]; twice {
			d.problem(v, "", "%q stands in the list already, at %s", clip(name), first)
			return
		}
		seen[name] = d.at(v)
		status, err := strconv.Atoi(name)
		switch {
		case err == nil && (status < 400 || status > 599 || len(name) != 3):
			d.problem(v, "", "a status to be repeated must be from 400 to 599")
		case err != nil && !slices.Contains(strings.Fields(valid), name):
			d.problem(v, d.nearest(name, valid), "%q must hold statuses or %s, not %q", key, strings.ReplaceAll(valid, " ", ", "), clip(name))
		}
	})
	order := strings.Fields(valid)
	r.On = nil
	for name := range seen {
		r.On = append(r.On, name)
	}
	rank := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		status, _ := strconv.Atoi(name)
		return len(order) + status
	}
	slices.SortFunc(r.On, func(a, b string) int { return rank(a) - rank(b) })
}

// retryMethods reads the word idempotent, or methods.
func (d *decoder) retryMethods(key string, n ast.Node, r *Retry) {
	if s, ok := d.resolve(n).(*ast.StringNode); ok && s.Value == "idempotent" {
		return
	}
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		var name string
		if v == nil || !d.text(key, v, &name) {
			return
		}
		for _, m := range d.methodList(v, name, name) {
			switch {
			case m == "CONNECT":
				d.problem(v, "", "a tunnel cannot be repeated")
			case slices.Contains(r.Methods, m):
				d.problem(v, "", "%q stands in the list already", m)
			case len(r.Methods) == maxMethods:
				d.problem(v, "", "there are at most %d methods", maxMethods)
			default:
				r.Methods = append(r.Methods, m)
			}
		}
	})
}

func (d *decoder) backoff(key string, n ast.Node, b *Backoff) {
	var base, most ast.Node
	d.mapping(key, n, "base max jitter", func(key string, _, v ast.Node) bool {
		switch key {
		case "base":
			base = v
			d.wait(key, v, &b.Base)
		case "max":
			most = v
			d.wait(key, v, &b.Max)
		case "jitter":
			d.word(key, v, "full none", &b.Jitter)
		default:
			return false
		}
		return true
	})
	switch {
	case b.Base <= b.Max:
	case most == nil:
		b.Max = b.Base
	default:
		d.problem(most, "", "%q is shorter than %q, %s", "max", "base", formatDuration(b.Base))
	}
	if base != nil && b.Base == 0 {
		b.Max = 0
	}
}

// wait reads a time of backoff, which 0 turns off.
func (d *decoder) wait(key string, n ast.Node, to *time.Duration) {
	v := *to
	d.durationUpTo(key, n, 0, maxBackoff, &v)
	if v > 0 && v < time.Millisecond {
		d.problem(n, "", "%q must be 0, or from 1ms to %s", key, formatDuration(maxBackoff))
		return
	}
	*to = v
}

// retryAfter reads off, respect, or the longest time that is waited.
func (d *decoder) retryAfter(key string, n ast.Node, to *time.Duration) {
	n = d.resolve(n)
	switch s := n.(type) {
	case nil:
		return
	case *ast.BoolNode:
		if *to = 0; s.Value {
			*to = writtenRetry().RetryAfter
		}
		return
	case *ast.StringNode:
		switch s.Value {
		case "off":
			*to = 0
			return
		case "respect":
			*to = writtenRetry().RetryAfter
			return
		}
	}
	d.durationUpTo(key, n, time.Second, maxRetryAfter, to)
}

func (d *decoder) retryBudget(key string, n ast.Node, b *RetryBudget) {
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		word := ""
		if off, ok := n.(*ast.BoolNode); ok && !off.Value {
			word = "off"
		} else {
			d.word(key, n, "off", &word)
		}
		b.Off = word == "off"
		return
	}
	d.mapping(key, n, "percent floor", func(key string, _, v ast.Node) bool {
		switch key {
		case "percent":
			d.percent(key, v, 0, 100, &b.Percent)
		case "floor":
			d.integer(key, v, 0, 100_000, &b.Floor)
		default:
			return false
		}
		return true
	})
}

// text is the retry as it is written; budget as for decoder.retry.
func (r *Retry) text(budget *RetryBudget) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{ attempts: %d", r.Attempts)
	if r.Attempts > 1 {
		fmt.Fprintf(&b, ", on: [%s]", strings.Join(r.On, ", "))
	}
	methods := "idempotent"
	if len(r.Methods) > 0 {
		methods = quoteList(r.Methods)
	}
	fmt.Fprintf(&b, ", per_try: %s, methods: %s, idempotency_key: %t", formatDuration(r.PerTry), methods, r.IdempotencyKey)
	fmt.Fprintf(&b, ", backoff: { base: %s, max: %s, jitter: %s }", formatDuration(r.Backoff.Base), formatDuration(r.Backoff.Max), r.Backoff.Jitter)
	after := "off"
	if r.RetryAfter > 0 {
		after = formatDuration(r.RetryAfter)
	}
	fmt.Fprintf(&b, ", retry_after: %s, other_endpoint: %t", after, r.OtherEndpoint)
	switch {
	case budget == nil:
	case budget.Off:
		b.WriteString(", budget: off")
	default:
		fmt.Fprintf(&b, ", budget: { percent: %s%%, floor: %d }", formatShare(budget.Percent), budget.Floor)
	}
	return b.String() + " }"
}
