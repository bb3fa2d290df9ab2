package observe

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

func (s *site) metrics(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteMetrics(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (s *site) value(t testing.TB, series string) float64 {
	t.Helper()
	series = "\n" + series + " "
	text := s.metrics(t)
	at := strings.Index(text, series)
	if at < 0 {
		return math.NaN()
	}
	line, _, _ := strings.Cut(text[at+len(series):], "\n")
	v, err := strconv.ParseFloat(line, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCountersAreSummedOverLoops(t *testing.T) {
	s := newSite(t, 2)
	for i := range 5 {
		s.on(t, i%2, func(x *core.Exchange) {
			x.Sent.Retries = i % 2
			s.Observe(x)
		})
	}
	s.on(t, 1, func(x *core.Exchange) {
		x.Err, x.Response.Status, x.Times.Head, x.Times.Done = core.ErrHeaderTimeout, 504, 0, 0
		s.Observe(x)
		x.Route, x.Sent.Pool, x.Sent.Endpoint = nil, nil, nil
		x.Err, x.Response.Status, x.Times.Sent = core.ErrNotFound, 404, 0
		s.Observe(x)
	})
	s.on(t, 0, func(x *core.Exchange) {
		s.Failed(x, core.ErrConnectFailed)
		x.Err = core.ErrQueueFull
		s.Observe(x)
	})
	f := func(series string, want float64) {
		t.Helper()
		if got := s.value(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	f(`sluice_requests_total{listener="http",code="2xx"}`, 6)
	f(`sluice_requests_total{listener="http",code="4xx"}`, 1)
	f(`sluice_requests_total{listener="http",code="5xx"}`, 1)
	f(`sluice_route_requests_total{route="shop",code="5xx"}`, 1)
	f(`sluice_route_requests_total{route="none",code="4xx"}`, 1)
	f(`sluice_request_bytes_total{route="shop"}`, 70)
	f(`sluice_response_bytes_total{route="shop"}`, 7000)
	f(`sluice_request_duration_seconds_bucket{route="shop",le="0.0025"}`, 0)
	f(`sluice_request_duration_seconds_bucket{route="shop",le="0.005"}`, 7)
	f(`sluice_request_duration_seconds_count{route="shop"}`, 7)
	f(`sluice_upstream_duration_seconds_bucket{route="shop",le="0.0025"}`, 6)
	f(`sluice_gateway_duration_seconds_bucket{route="shop",le="5e-05"}`, 7)
	f(`sluice_gateway_duration_seconds_bucket{route="shop",le="2.5e-05"}`, 0)
	f(`sluice_upstream_exchanges_total{upstream="catalog"}`, 7)
	f(`sluice_retries_total{upstream="catalog"}`, 2)
	f(`sluice_upstream_requests_total{upstream="catalog",endpoint="10.0.0.1:80",code="2xx"}`, 6)
	f(`sluice_endpoint_duration_seconds_count{upstream="catalog",endpoint="10.0.0.1:80"}`, 6)
	f(`sluice_upstream_failures_total{upstream="catalog",endpoint="10.0.0.1:80",reason="header_timeout"}`, 1)
	f(`sluice_upstream_failures_total{upstream="catalog",endpoint="10.0.0.1:80",reason="connect_failed"}`, 1)
	f(`sluice_upstream_failures_total{upstream="catalog",endpoint="none",reason="queue_full"}`, 1)
	f(`sluice_rejects_total{reason="not_found",side="downstream"}`, 1)
	f(`sluice_rejects_total{reason="header_timeout",side="upstream"}`, 1)
}

func TestTunnelsAreNoLatency(t *testing.T) {
	s := newSite(t, 1)
	s.on(t, 0, func(x *core.Exchange) {
		x.Response.Status = 101
		s.Observe(x)
	})
	if got := s.value(t, `sluice_request_duration_seconds_count{route="shop"}`); got != 0 {
		t.Errorf("%v tunnels in the latencies", got)
	}
	if got := s.value(t, `sluice_route_requests_total{route="shop",code="1xx"}`); got != 1 {
		t.Errorf("%v tunnels counted", got)
	}
}

func TestCollectors(t *testing.T) {
	s := newSite(t, 2)
	s.Gauge("test_depth", "How deep.", func() float64 { return 1.5 }, "of", "sea")
	s.Counter("test_seen_total", "Seen.", func() float64 { return 3 })
	s.CollectOnLoops(func(i int, sink *Sink) {
		sink.Gauge("test_open", "Open ones.", float64(s.workers[i].Active()+i+1), "pool", "a")
	})
	s.Reloaded(true)
	s.Reloaded(false)
	s.Reloaded(false)
	err := s.workers[1].Loop.Do(time.Second, func() { s.Late(1)(20*time.Millisecond, "x"); s.Panicked(1)() })
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string]float64{
		`test_depth{of="sea"}`:                     1.5,
		`test_seen_total`:                          3,
		`test_open{pool="a"}`:                      3,
		`sluice_reloads_total{result="applied"}`:   1,
		`sluice_reloads_total{result="refused"}`:   2,
		`sluice_loop_late_total{loop="1"}`:         1,
		`sluice_loop_late_seconds_total{loop="1"}`: 0.02,
		`sluice_panics_total{loop="1"}`:            1,
		`sluice_panics_total{loop="0"}`:            0,
		`sluice_loop_stalled{loop="0"}`:            0,
		`sluice_access_log_dropped_total`:          0,
		`sluice_build_info{version="v1.2.3",commit="abc",go="` + runtime.Version() + `"}`: 1,
	} {
		if got := s.value(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}

func TestAStalledLoopIsShown(t *testing.T) {
	s := newSite(t, 2)
	s.on(t, 0, func(x *core.Exchange) { s.Observe(x) })
	s.on(t, 1, func(x *core.Exchange) { s.Observe(x) })
	series := `sluice_requests_total{listener="http",code="2xx"}`
	if got := s.value(t, series); got != 2 {
		t.Fatalf("%v requests", got)
	}
	held, free := make(chan struct{}), make(chan struct{})
	s.workers[1].Loop.Post(func() { close(held); <-free })
	<-held
	text := s.metrics(t)
	close(free)
	for _, want := range []string{`sluice_loop_stalled{loop="0"} 0`, `sluice_loop_stalled{loop="1"} 1`, series + " 2"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if got := s.value(t, `sluice_loop_stalled{loop="1"}`); got != 0 {
		t.Error("still stalled after it goes on")
	}
}

func TestLargeTablesAreTakenInPieces(t *testing.T) {
	s := newSite(t, 1)
	const routes = 3*scrapeChunk + 7
	ids := make([]int, routes)
	for i := range ids {
		ids[i] = s.Registry().Route(fmt.Sprint("r", i))
	}
	s.on(t, 0, func(x *core.Exchange) {
		for i, id := range ids {
			if i%3 == 0 {
				x.Route = &core.Route{Metric: id, LogSample: -1}
				s.Observe(x)
			}
		}
	})
	text := s.metrics(t)
	if got, want := strings.Count(text, "sluice_route_requests_total{"), (routes+2)/3; got != want {
		t.Errorf("%d routes shown, want %d", got, want)
	}
}

func TestExpositionIsStrict(t *testing.T) {
	s := newSite(t, 2)
	hostile := "a\"b\\c\nd\xff{}, le=\"1\""
	s.on(t, 0, func(x *core.Exchange) {
		s.Observe(x)
		x.Route = &core.Route{Metric: s.Registry().Route(hostile)}
		x.Err = core.ErrUpstreamReset
		s.Observe(x)
		x.Err = &core.Error{Reason: hostile}
		s.Observe(x)
	})
	s.Gauge("test_depth", "How deep.", func() float64 { return math.Inf(1) }, "of", hostile)
	parseExposition(t, s.metrics(t))
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:, ?|$)`)
	metaLine   = regexp.MustCompile(`^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$`)
)

// parseExposition reads the text format strictly: every family of ours has HELP and TYPE once and stands in one piece, every
// series is there once, and buckets rise to the count.
func parseExposition(t *testing.T, text string) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Error("the last line has no end")
	}
	types, seen := map[string]string{}, map[string]bool{}
	buckets := map[string]float64{} // by series without le: the bucket before
	bounds := map[string]float64{}
	current := ""
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if m := metaLine.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" {
				if types[m[2]] != "" {
					t.Errorf("line %d: a second TYPE: %s", i, line)
				}
				types[m[2]], current = m[3], m[2]
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("line %d is no sample: %q", i, line)
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("line %d: %v", i, err)
		}
		family, rest, le := m[1], "", math.NaN()
		for labels := m[2]; labels != ""; {
			p := labelPair.FindStringSubmatch(labels)
			if p == nil {
				t.Errorf("line %d: bad labels at %q", i, labels)
				break
			}
			if labels = labels[len(p[0]):]; p[1] == "le" {
				le, _ = strconv.ParseFloat(p[2], 64)
			} else {
				rest += p[0]
			}
		}
		if series := m[1] + "{" + m[2]; seen[series] {
			t.Errorf("line %d: series twice: %s", i, line)
		} else {
			seen[series] = true
		}
		if !strings.HasPrefix(family, "sluice_") && !strings.HasPrefix(family, "test_") {
			continue
		}
		rest = strings.TrimSuffix(rest, ",")
		if types[current] == "histogram" {
			base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(family, "_bucket"), "_sum"), "_count")
			switch key := base + "{" + rest; {
			case strings.HasSuffix(family, "_bucket"):
				if value < buckets[key] || bounds[key] >= le {
					t.Errorf("line %d: buckets do not rise: %s", i, line)
				}
				buckets[key], bounds[key] = value, le
			case strings.HasSuffix(family, "_count"):
				if value != buckets[key] || !math.IsInf(bounds[key], 1) {
					t.Errorf("line %d: count %v after %v up to %v", i, value, buckets[key], bounds[key])
				}
			}
			family = base
		}
		if family != current {
			t.Errorf("line %d: %s stands among %s", i, family, current)
		}
	}
	if len(types) < 20 {
		t.Errorf("only %d families", len(types))
	}
}

func BenchmarkWriteMetrics1000Routes(b *testing.B) {
	s := newSite(b, 2)
	s.on(b, 0, func(x *core.Exchange) {
		for i := range 1000 {
			x.Route = &core.Route{Metric: s.Registry().Route(fmt.Sprint("r", i)), LogSample: -1}
			s.Observe(x)
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		s.metrics(b)
	}
}
