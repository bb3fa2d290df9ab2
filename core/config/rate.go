package config

import (
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Rate is so many in a time, written 100/s, 100/min, 1000/h, 5000/day or 100/10s.
type Rate struct {
	Limit  int           // 1 and more
	Period time.Duration // 1ms to 90 days
}

const (
	minPeriod     = time.Millisecond
	maxPeriod     = 90 * 24 * time.Hour
	maxRateLimit  = 1<<32 - 1
	maxRatePerSec = 10_000_000
)

// periods are those that have a word.
func periods() []struct {
	word   string
	length time.Duration
} {
	return []struct {
		word   string
		length time.Duration
	}{{"s", time.Second}, {"min", time.Minute}, {"h", time.Hour}, {"day", 24 * time.Hour}}
}

// String is the rate as it is written.
func (r Rate) String() string {
	for _, p := range periods() {
		if p.length == r.Period {
			return strconv.Itoa(r.Limit) + "/" + p.word
		}
	}
	return strconv.Itoa(r.Limit) + "/" + formatDuration(r.Period)
}

// limitRate reads a rate that a limit can have.
func (d *decoder) limitRate(key string, n ast.Node, to *Rate) bool {
	n = d.resolve(n)
	var text string
	if n == nil || !d.text(key, n, &text) {
		return false
	}
	number, unit, ok := strings.Cut(text, "/")
	if !ok || !isDigits(number) {
		d.problem(n, "a rate is written as 10/s, 100/min, 1000/h, 5000/day or 100/10s", "%q must be a rate, not %q", key, clip(text))
		return false
	}
	limit, err := strconv.ParseInt(number, 10, 64)
	period, hint := parsePeriod(unit)
	switch {
	case period == 0:
		d.problem(n, hint, "%q is no time in which a rate can be given", clip(unit))
	case err != nil || limit > maxRateLimit:
		d.problem(n, "", "the rate must be at most %d in a time", int64(maxRateLimit))
	case limit == 0:
		d.problem(n, "to refuse every request write respond: { status: 403 }", "a limit of 0 admits nothing")
	case period < minPeriod || period > maxPeriod:
		d.problem(n, "", "the time of a rate must be from 1ms to 90 days")
	case float64(limit)/period.Seconds() > maxRatePerSec:
		d.problem(n, "", "the rate must be at most %d a second", maxRatePerSec)
	default:
		*to = Rate{int(limit), period}
		return true
	}
	return false
}

// parsePeriod reads what stands behind the slash of a rate; 0: nothing that is known.
func parsePeriod(unit string) (length time.Duration, hint string) {
	for _, p := range periods() {
		if unit == p.word {
			return p.length, ""
		}
	}
	switch unit {
	case "sec", "second", "1s":
		return 0, "write /s"
	case "m", "minute", "1m":
		return 0, "write /min"
	case "hour", "1h":
		return 0, "write /h"
	case "d", "1d":
		return 0, "write /day"
	}
	hint = "s, min, h, day, or a duration such as 10s or 12h"
	length, _, ok := parseDuration(unit)
	if !ok {
		return 0, hint
	}
	return length, hint
}
