package health

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	maxConditionBytes   = 256
	maxConditionClauses = 8
	maxConditionLatency = 2 * time.Minute // a histogram knows no more
	maxConditionFactor  = 1000
)

// Condition is what a Canary must not come to, such as
//
//	errors > 1% or p99 > 300ms
//	errors > stable + 0.5% or p99 > stable * 1.5 and p99 > 100ms
//
//	condition = clause { ( "or" | "and" ) clause }     "and" binds tighter
//	clause    = metric ( ">" | ">=" ) value
//	metric    = "errors" | "p" percentile              1..99.99
//	value     = share | latency | "stable" [ "+" ( share | latency ) | "*" factor ]
//	share     = number "%"                             0..100
//	latency   = number ( "us" | "ms" | "s" | "m" )     above 0, up to 2m
//	factor    = number                                 1..1000
//
// A number has at most 10 digits before and 4 after its point. A text is at most 256 bytes and 8 clauses long. `stable` is the
// same metric of the stable side; a clause that names it does not hold while that side has too few requests to be compared with.
type Condition struct {
	any [][]clause // one of them, all in it
}

// clause compares one metric. With relative, value is added to the stable side's, or multiplies it.
type clause struct {
	percentile float64 // 0: errors
	orEqual    bool
	relative   relation
	value      float64 // percent, nanoseconds, or a factor
}

type relation uint8

const (
	absolute relation = iota
	plusStable
	timesStable
)

// ConditionError says what is wrong with the text of a condition, and at which of its bytes, from 0.
type ConditionError struct {
	Offset  int
	Problem string
}

func (e *ConditionError) Error() string {
	return fmt.Sprintf("cannot parse condition: %s at byte %d", e.Problem, e.Offset)
}

// ParseCondition reads the text of a condition. The error is a *ConditionError.
func ParseCondition(text string) (Condition, error) {
	p := conditionParser{text: text}
	if len(text) > maxConditionBytes {
		return Condition{}, &ConditionError{maxConditionBytes, fmt.Sprintf("more than %d bytes", maxConditionBytes)}
	}
	p.advance()
	c := Condition{any: [][]clause{{p.clause()}}}
	for n := 1; p.err == nil && p.token != ""; n++ {
		last := &c.any[len(c.any)-1]
		switch {
		case n == maxConditionClauses:
			p.fail("more than %d clauses", maxConditionClauses)
		case p.take("or"):
			c.any = append(c.any, []clause{p.clause()})
		case p.take("and"):
			*last = append(*last, p.clause())
		default:
			p.fail(`expected "or", "and" or the end, found %q`, p.token)
		}
	}
	if p.err != nil {
		return Condition{}, p.err
	}
	return c, nil
}

// String is the condition as ParseCondition reads it. Equal conditions have equal texts.
func (c Condition) String() string {
	var either []string
	for _, all := range c.any {
		var both []string
		for _, l := range all {
			both = append(both, l.String())
		}
		either = append(either, strings.Join(both, " and "))
	}
	return strings.Join(either, " or ")
}

func (l clause) String() string {
	s := "errors"
	if l.percentile != 0 {
		s = "p" + formatNumber(l.percentile)
	}
	s += " >"
	if l.orEqual {
		s += "="
	}
	switch l.relative {
	case timesStable:
		return s + " stable * " + formatNumber(l.value)
	case plusStable:
		s += " stable"
		if l.value == 0 {
			return s
		}
		s += " +"
	}
	return s + " " + l.format(l.value)
}

// format writes a value of the clause's metric, without loss.
func (l clause) format(v float64) string {
	if l.percentile == 0 {
		return formatNumber(v) + "%"
	}
	for _, u := range conditionUnits[1:] {
		if scaled := v / float64(u.size); scaled == math.Trunc(scaled) && u.name != "us" {
			return formatNumber(scaled) + u.name
		}
	}
	return formatNumber(v/1e3) + "us"
}

func formatNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// figures are what one side of a canary came to.
type figures struct {
	requests, failures uint64
	latencies          *sampleCounts
}

// metric is the value of a clause's metric, in its unit.
func (f *figures) metric(percentile float64) float64 {
	switch {
	case f.requests == 0:
		return 0
	case percentile == 0:
		return 100 * float64(f.failures) / float64(f.requests)
	}
	return float64(f.latencies.percentile(percentile))
}

// breached says whether the condition holds, and by which clauses. stable is nil if it has too few requests.
func (c Condition) breached(canary, stable *figures) (why string, holds bool) {
	for _, all := range c.any {
		var whys []string
		for _, l := range all {
			if why, holds := l.breached(canary, stable); holds {
				whys = append(whys, why)
			}
		}
		if len(whys) == len(all) {
			return strings.Join(whys, " and "), true
		}
	}
	return "", false
}

func (l clause) breached(canary, stable *figures) (why string, holds bool) {
	if l.relative != absolute && stable == nil {
		return "", false
	}
	limit := l.value
	switch l.relative {
	case plusStable:
		limit += stable.metric(l.percentile)
	case timesStable:
		limit *= stable.metric(l.percentile)
	}
	value := canary.metric(l.percentile)
	if value < limit || value == limit && !l.orEqual {
		return "", false
	}
	why = l.shorten(value)
	if l.percentile == 0 {
		why = "errors " + why
	} else {
		why = "p" + formatNumber(l.percentile) + " " + why
	}
	if l.relative != absolute {
		why += ", stable " + l.shorten(stable.metric(l.percentile))
	}
	return why + " (" + l.String() + ")", true
}

// shorten writes a value for people.
func (l clause) shorten(v float64) string {
	if l.percentile == 0 {
		return strconv.FormatFloat(v, 'f', 2, 64) + "%"
	}
	d := time.Duration(v)
	return d.Round(max(time.Microsecond, d/1000)).String()
}
