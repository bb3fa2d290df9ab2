package health

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseCondition(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		c, err := ParseCondition(in)
		if err != nil || c.String() != want {
			t.Errorf("%q: got %q, %v; want %q", in, c.String(), err, want)
		}
	}
	f("errors > 1% or p99 > 300ms", "errors > 1% or p99 > 300ms")
	f("  errors>1% or  p99.9>=1.5s ", "errors > 1% or p99.9 >= 1500ms")
	f("errors > 0.25% and p50 > 1s or p90 > 2m", "errors > 0.25% and p50 > 1s or p90 > 2m")
	f("errors > stable", "errors > stable")
	f("errors > stable + 0.5%", "errors > stable + 0.5%")
	f("p99 > stable*1.50 and p99>100us", "p99 > stable * 1.5 and p99 > 100us")
	f("p99 > stable + 20ms", "p99 > stable + 20ms")
	f("p1 > 0.0015ms", "p1 > 1.5us")
	f("errors > 0%", "errors > 0%")
	f(strings.Repeat("p99 > 1s or ", 7)+"p99 > 1s", strings.Repeat("p99 > 1s or ", 7)+"p99 > 1s")
}

func TestParseConditionRefuses(t *testing.T) {
	f := func(in string, offset int, problem string) {
		t.Helper()
		_, err := ParseCondition(in)
		var e *ConditionError
		if !errors.As(err, &e) || e.Offset != offset || !strings.Contains(e.Problem, problem) {
			t.Errorf("%q: got %v; want %q at %d", in, err, problem, offset)
		}
	}
	f("", 0, `expected "errors" or a percentile`)
	f("errors", 6, `expected ">" or ">="`)
	f("errors < 1%", 7, `unexpected character '<'`)
	f("errors = 1%", 7, `unexpected character '='`)
	f("errors > 1", 9, `expected a share such as "1%"`)
	f("errors > 300ms", 9, `expected a share`)
	f("errors > 101%", 9, `from 0 to 100`)
	f("errors > -1%", 9, `unexpected character '-'`)
	f("errors > 1e2%", 9, `expected a number`)
	f("errors > 1%or p99 > 1s", 9, `expected a share`)
	f("errors > %", 9, `expected a number`)
	f("errors > 1.%", 9, `expected a number`)
	f("errors > .5%", 9, `expected a number`)
	f("errors > 1.2.3%", 9, `expected a number`)
	f("errors > 0.00001%", 9, `expected a number`)
	f("errors > 12345678901%", 9, `expected a number`)
	f("p99 > 1%", 6, `expected a latency`)
	f("p99 > 1h", 6, `expected a latency`)
	f("p99 > 1.5", 6, `expected a latency`)
	f("p99 > 0ms", 6, `above 0 and at most 2m`)
	f("p99 > 121s", 6, `above 0 and at most 2m`)
	f("p0 > 1s", 0, `from 1 to 99.99`)
	f("p100 > 1s", 0, `from 1 to 99.99`)
	f("p > 1s", 0, `expected a number`)
	f("P99 > 1s", 0, `unexpected character 'P'`)
	f("errors > stable * 0.5", 18, `from 1 to 1000`)
	f("errors > stable * 5%", 18, `expected a number`)
	f("p99 > stable + 1%", 15, `expected a latency`)
	f("errors > 1% errors > 2%", 12, `expected "or", "and" or the end`)
	f("errors > 1% or", 14, `expected "errors"`)
	f("errors > 1% or or", 15, `expected "errors"`)
	f("errors > 1% || p99 > 1s", 12, `unexpected character '|'`)
	f("errors > 1%\n", 11, `unexpected character '\n'`)
	f("errors > 1% \xff", 12, `unexpected character`)
	f(strings.Repeat("p99 > 1s or ", 8)+"p99 > 1s", 93, `more than 8 clauses`)
	f(strings.Repeat(" ", 257), 256, `more than 256 bytes`)
}

// side is what a condition is tried on: so many requests and failures, all requests but the slow ones at 10ms, these at 1s.
func sideOf(requests, failures, slow uint64) *figures {
	f := &figures{requests: requests, failures: failures, latencies: new(sampleCounts)}
	f.latencies[histogramBucket(10*time.Millisecond)] = requests - slow
	f.latencies[histogramBucket(time.Second)] += slow
	return f
}

func TestConditionBreached(t *testing.T) {
	f := func(in string, canary, stable *figures, want bool) {
		t.Helper()
		c, err := ParseCondition(in)
		if err != nil {
			t.Fatal(err)
		}
		why, got := c.breached(canary, stable)
		if got != want || (why != "") != want {
			t.Errorf("%q: got %v, %q; want %v", in, got, why, want)
		}
	}
	f("errors > 1%", sideOf(1000, 10, 0), nil, false)
	f("errors >= 1%", sideOf(1000, 10, 0), nil, true)
	f("errors > 1%", sideOf(1000, 11, 0), nil, true)
	f("p99 > 300ms", sideOf(1000, 0, 10), nil, false)
	f("p99 > 300ms", sideOf(1000, 0, 11), nil, true)
	f("p99 > 300ms or errors > 1%", sideOf(1000, 11, 0), nil, true)
	f("p99 > 300ms and errors > 1%", sideOf(1000, 11, 0), nil, false)
	f("p99 > 300ms and errors > 1% or errors > 1%", sideOf(1000, 11, 0), nil, true)
	f("errors > 1% or p99 > 300ms and errors > 50%", sideOf(1000, 0, 11), nil, false)
	f("errors > stable", sideOf(1000, 999, 0), nil, false) // nothing to compare with
	f("errors > stable", sideOf(1000, 5, 0), sideOf(1000, 5, 0), false)
	f("errors > stable", sideOf(1000, 6, 0), sideOf(1000, 5, 0), true)
	f("errors > stable * 2", sideOf(1000, 10, 0), sideOf(1000, 5, 0), false)
	f("errors > stable * 2", sideOf(1000, 11, 0), sideOf(1000, 5, 0), true)
	f("p99 > stable + 100ms", sideOf(1000, 0, 20), sideOf(1000, 0, 20), false)
	f("p99 > stable + 100ms", sideOf(1000, 0, 20), sideOf(1000, 0, 0), true)
	f("p99 > stable * 1.5", sideOf(1000, 0, 20), sideOf(1000, 0, 0), true)
	if _, breached := (Condition{}).breached(sideOf(1, 1, 1), nil); breached {
		t.Error("no condition was breached")
	}
}

// What parses has a text that parses to the same, within the bounds.
func FuzzParseCondition(f *testing.F) {
	for _, s := range []string{"errors > 1% or p99 > 300ms", "errors >= stable + 0.5% and p99.9 > stable * 1.5", "p50>1.5s", "p99 > 0.0015ms", "or", "p99 > 1.9999m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCondition(s)
		if err != nil {
			var e *ConditionError
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(s) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		n := 0
		for _, all := range c.any {
			n += len(all)
		}
		if n < 1 || n > maxConditionClauses {
			t.Fatalf("%q has %d clauses", s, n)
		}
		text := c.String()
		again, err := ParseCondition(text)
		if len(text) <= maxConditionBytes && (err != nil || !slices.EqualFunc(c.any, again.any, slices.Equal)) {
			t.Fatalf("%q became %q, which is not the same: %v", s, text, err)
		}
		c.breached(sideOf(100, 5, 5), sideOf(100, 5, 5))
	})
}
