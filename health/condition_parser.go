package health

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// conditionUnits are the units of a value, those of latency from small to large.
var conditionUnits = [...]struct {
	name string
	size time.Duration
}{{"%", 0}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}}

// conditionParser reads a text token by token: a word or number with its unit, or one of > >= + *.
type conditionParser struct {
	text  string
	at    int    // of token
	next  int    // behind it
	token string // "": the end
	err   *ConditionError
}

func (p *conditionParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &ConditionError{p.at, fmt.Sprintf(format, args...)}
	}
}

func isWord(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '.' || b == '%'
}

func (p *conditionParser) advance() {
	for p.next < len(p.text) && p.text[p.next] == ' ' {
		p.next++
	}
	p.at = p.next
	switch rest := p.text[p.at:]; {
	case rest == "":
	case strings.HasPrefix(rest, ">="):
		p.next += 2
	case strings.IndexByte(">+*", rest[0]) >= 0:
		p.next++
	case isWord(rest[0]):
		for p.next < len(p.text) && isWord(p.text[p.next]) {
			p.next++
		}
	default:
		p.fail("unexpected character %q", []rune(rest)[0])
	}
	p.token = p.text[p.at:p.next]
}

// take goes on if the token is this one.
func (p *conditionParser) take(token string) bool {
	if p.err != nil || p.token != token {
		return false
	}
	p.advance()
	return true
}

func (p *conditionParser) clause() (l clause) {
	switch digits, isPercentile := strings.CutPrefix(p.token, "p"); {
	case p.take("errors"):
	case isPercentile:
		l.percentile = p.number(digits, 1, 99.99)
		p.advance()
	default:
		p.fail(`expected "errors" or a percentile such as "p99", found %q`, p.token)
	}
	switch {
	case p.take(">="):
		l.orEqual = true
	case p.take(">"):
	default:
		p.fail(`expected ">" or ">=", found %q`, p.token)
	}
	switch {
	case !p.take("stable"):
		l.value = p.value(l)
	case p.take("+"):
		l.relative, l.value = plusStable, p.value(l)
	case p.take("*"):
		l.relative, l.value = timesStable, p.number(p.token, 1, maxConditionFactor)
		p.advance()
	default:
		l.relative = plusStable
	}
	return l
}

// value reads a share or a latency, whichever the clause's metric is.
func (p *conditionParser) value(l clause) (v float64) {
	digits := strings.TrimRight(p.token, "%abcdefghijklmnopqrstuvwxyz")
	unit := p.token[len(digits):]
	for _, u := range conditionUnits {
		if unit != u.name || (u.size == 0) != (l.percentile == 0) {
			continue
		}
		if u.size == 0 {
			v = p.number(digits, 0, 100)
		} else if v = math.Round(p.number(digits, 0, 1e10) * float64(u.size)); p.err == nil && (v < 1 || v > float64(maxConditionLatency)) {
			p.fail("a latency must be above 0 and at most 2m, found %q", p.token)
		}
		p.advance()
		return v
	}
	if l.percentile == 0 {
		p.fail(`expected a share such as "1%%", found %q`, p.token)
	} else {
		p.fail(`expected a latency such as "300ms", found %q`, p.token)
	}
	return 0
}

// number reads digits with at most one point between them.
func (p *conditionParser) number(text string, least, most float64) float64 {
	whole, part, point := strings.Cut(text, ".")
	digits := func(s string, most int) bool {
		return len(s) >= 1 && len(s) <= most && strings.Trim(s, "0123456789") == ""
	}
	if !digits(whole, 10) || point && !digits(part, 4) {
		p.fail("expected a number, found %q", p.token)
		return least
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < least || f > most {
		p.fail("expected a number from %s to %s, found %q", formatNumber(least), formatNumber(most), p.token)
	}
	return f
}
