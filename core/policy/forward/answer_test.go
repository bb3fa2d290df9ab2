package forward

import (
	"strings"
	"testing"
	"time"
)

// TestOutcome: what cannot stand in a head is no answer, even if whoever reads answers lets it through.
func TestOutcome(t *testing.T) {
	p := New(Spec{Copy: []string{"X-User"}, CopyToClient: []string{"Set-Cookie"}, Cache: &Cache{TTL: time.Minute}}, nil, nil)
	f := func(what string, a Answer, passes, is bool, keep time.Duration) {
		t.Helper()
		o := p.outcome(&a)
		if (o != nil) != is || is && ((o.err == nil) != passes || o.keep != keep) {
			t.Errorf("%s: %+v", what, o)
		}
	}
	user := func(name, value string) []Line { return []Line{{name, value}} }
	f("allowed", Answer{Status: 200, Lines: user("x-user", "a\tb")}, true, true, time.Minute)
	f("refused", Answer{Status: 401, Whole: true}, false, true, time.Minute)
	f("refused in part", Answer{Status: 401}, false, true, 0)
	f("redirected", Answer{Status: 302, Whole: true}, false, true, 0)
	f("a cookie", Answer{Status: 200, Lines: user("set-cookie", "a=b")}, true, true, 0)
	f("for a second", Answer{Status: 200, Lines: user("cache-control", "private, Max-Age=1")}, true, true, time.Second)
	f("for long", Answer{Status: 200, Lines: user("cache-control", `max-age="3600"`)}, true, true, time.Minute)
	f("not at all", Answer{Status: 200, Lines: user("cache-control", "max-age=-1")}, true, true, 0)
	f("failed", Answer{Failed: true, Status: 200}, false, false, 0)
	for _, status := range []int{-200, 0, 99, 100, 101, 199, 600, 999, 20000} {
		f("odd status", Answer{Status: status}, false, false, 0)
	}
	for _, l := range []Line{{"X-User", "a\nX-Admin: 1"}, {"X-User", "a\r"}, {"X-User", "\x00"}, {"X-User", "\x7f"}, {"X User", "a"}, {"", "a"}, {"X:", "a"}, {"X", strings.Repeat("x", maxLineBytes)}} {
		f("a field that is none", Answer{Status: 200, Lines: []Line{l}}, false, false, 0)
	}
	f("too many fields", Answer{Status: 200, Lines: make([]Line, maxLines+1)}, false, false, 0)
}
