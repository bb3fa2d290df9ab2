package observe

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// busySite has counted something of every kind.
func busySite(t *testing.T, loops int) *site {
	t.Helper()
	s := newSite(t, loops)
	s.Counter("test_seen_total", "Seen.", func() float64 { return 3 }, "of", "sea")
	s.Gauge("test_depth", "How deep.", func() float64 { return 1.5 })
	s.count(t, loops)
	s.Reloaded(true)
	s.Reloaded(false)
	if err := s.workers[0].Loop.Do(time.Second, func() { s.Late(0)(20*time.Millisecond, "x"); s.Panicked(0)() }); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) count(t *testing.T, times int) {
	t.Helper()
	for i := range times {
		s.on(t, i%len(s.workers), func(x *core.Exchange) {
			s.Observe(x)
			s.Failed(x, core.ErrConnectFailed)
			x.Err, x.Response.Status = core.ErrHeaderTimeout, 504
			s.Observe(x)
			x.Route, x.Sent.Pool, x.Sent.Endpoint, x.Err, x.Response.Status = nil, nil, nil, core.ErrNotFound, 404
			s.Observe(x)
		})
	}
}

// series are the lines of what only rises, of this module.
func (s *site) series(t *testing.T) (lines []string) {
	t.Helper()
	kept := false
	for line := range strings.Lines(s.metrics(t)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			kept = !strings.HasSuffix(rest, " gauge\n")
		}
		// Loops are counted one by one, and there may be fewer than before.
		ours := strings.HasPrefix(line, "sluice_") || strings.HasPrefix(line, "test_")
		if kept && ours && !strings.HasPrefix(line, "sluice_error_log") && !strings.Contains(line, `loop="1"`) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// moved is t as another process gets it.
func moved(t *testing.T, totals Totals) (out Totals) {
	t.Helper()
	b, err := json.Marshal(totals)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Everything that one process has counted, and goes on to count while it drains, is shown by the next, and by the one after it.
func TestTotalsMove(t *testing.T) {
	old := busySite(t, 2)
	next := newSite(t, 1)
	handed := old.Totals()
	if left := next.Add(moved(t, handed)); left != 0 {
		t.Errorf("%d counts were left out", left)
	}
	same := func(what string, a, b *site) {
		t.Helper()
		want, got := a.series(t), b.series(t)
		if !slices.Equal(want, got) || len(want) < 60 {
			t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	same("after the handover", old, next)
	old.count(t, 3)
	last := old.Totals().Since(handed)
	next.Add(moved(t, last))
	same("after the end", old, next)
	if more := old.Totals().Since(old.Totals()); len(more) != 0 {
		t.Errorf("nothing was counted, but %v", more)
	}
	third := newSite(t, 2)
	third.Add(moved(t, next.Totals()))
	same("after a second upgrade", next, third)
}

// What is counted under names that are not in force is not shown, until they are.
func TestTotalsOfNamesNotInForce(t *testing.T) {
	old := busySite(t, 1)
	next := newSite(t, 1)
	old.route = &core.Route{Name: "later", Metric: old.Registry().Route("later"), LogSample: -1}
	old.count(t, 1)
	next.Add(moved(t, old.Totals()))
	shown := func() bool {
		return slices.ContainsFunc(next.series(t), func(l string) bool { return strings.Contains(l, `"later"`) })
	}
	if shown() {
		t.Error("a route that is not in force is shown")
	}
	next.Registry().Route("later")
	if !shown() {
		t.Error("a route that has come into force has lost what it counted")
	}
}

// What does not fit is left out, and harms nothing.
func TestTotalsRefused(t *testing.T) {
	s := newSite(t, 1)
	bad := Totals{
		{Kind: "unknown", Values: []uint64{1}},
		{Kind: countRoute, Names: []string{"shop"}, Values: []uint64{1}},
		{Kind: countRoute, Names: nil, Values: make([]uint64, len((&routeCell{}).append(nil)))},
		{Kind: countListener, Names: []string{"http", "x"}, Values: make([]uint64, classes)},
		{Kind: countPool, Names: []string{"catalog"}, Values: nil},
		{Kind: countEndpoint, Names: []string{"catalog"}, Values: []uint64{1, 2}},
		{Kind: countReject, Names: []string{"x", "nobody"}, Values: []uint64{1}},
		{Kind: countFailure, Names: []string{"x"}, Values: []uint64{1}},
		{Kind: countLoops, Values: []uint64{1}},
		{Kind: countSelf, Values: []uint64{1}},
		{Kind: countCollected, Names: []string{"evil\nfamily", "help", ""}, Values: []uint64{1}},
		{Kind: countCollected, Names: []string{"evil_total", "help", "a=\"b\"\nforged 1"}, Values: []uint64{1}},
		{Kind: countCollected, Names: []string{"evil{", "help", ""}, Values: []uint64{1}},
	}
	for try := 1; ; try++ { // a busy machine may make a loop late, which is counted, too, but not each time
		before := s.series(t)
		if left := s.Add(bad); left != len(bad) {
			t.Errorf("%d of %d were left out", left, len(bad))
		}
		after := s.series(t)
		if slices.Equal(before, after) {
			return
		}
		if try == 20 {
			t.Fatalf("%q became %q", before, after)
		}
	}
}
