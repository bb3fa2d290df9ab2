package observe

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/lb"
)

// TestMain fails if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(code) // the fuzzer has goroutines of its own
	}
	for i := 0; runtime.NumGoroutine() > before && i < 100; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before && code == 0 {
		b := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%d goroutines were left behind:\n%s\n", n-before, b[:runtime.Stack(b, true)])
		code = 1
	}
	os.Exit(code)
}

// site is an observer with loops that run.
type site struct {
	*Observer
	workers  []*core.Worker
	errors   *bytes.Buffer // of the error log; read it after its Close
	log      *ErrorLog
	listener *core.Listener
	route    *core.Route
	pool     *core.Pool
	endpoint *lb.Endpoint
}

func newSite(t testing.TB, loops int) *site {
	t.Helper()
	s := &site{errors: &bytes.Buffer{}}
	log, err := NewErrorLog("info", "text", s.errors)
	if err != nil {
		t.Fatal(err)
	}
	s.log = log
	s.Observer = New(Options{Loops: loops, Version: "v1.2.3", Commit: "abc", Log: log})
	gateway := core.NewGateway(&core.Snapshot{}, s.Observer)
	var all []*loop.Loop
	for i := range loops {
		l, err := loop.New(loop.Options{Index: i, Log: log.Logger(), Late: s.Late(i), Panicked: s.Panicked(i)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
		s.workers = append(s.workers, gateway.NewWorker(l))
		l.Start()
	}
	s.Attach(all)
	r := s.Registry()
	s.listener = &core.Listener{Name: "http", Metric: r.Listener("http")}
	s.route = &core.Route{Name: "shop", Metric: r.Route("shop"), LogSample: -1}
	s.pool = &core.Pool{Name: "catalog", Metric: r.Pool("catalog")}
	s.endpoint = &lb.Endpoint{Address: "10.0.0.1:80", Metric: r.Endpoint("catalog", "10.0.0.1:80")}
	t.Cleanup(func() {
		for _, l := range all {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		}
		if err := s.SetAccessLog(nil); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// on runs f on loop i with an exchange as it stands when it is observed: a proxied GET, answered with 200.
func (s *site) on(t testing.TB, i int, f func(x *core.Exchange)) {
	t.Helper()
	w := s.workers[i]
	err := w.Loop.Do(5*time.Second, func() {
		x := w.Begin()
		s.fill(x)
		f(x)
		w.End(x)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) fill(x *core.Exchange) {
	request(x, "GET", "/shop/item?id=7", "www.example.com")
	x.Request.Add(core.FieldUserAgent, []byte("curl/8.5.0"))
	x.Request.Add(core.FieldReferer, []byte("https://www.example.com/"))
	x.Response.Status = 200
	x.Listener, x.Route = s.listener, s.route
	x.Client.Peer = netip.MustParseAddrPort("10.1.2.3:5555")
	x.Client.Addr = netip.MustParseAddr("203.0.113.9")
	x.Client.Text, x.Client.Via = []byte("203.0.113.9"), []byte("10.1.2.3")
	x.RequestID = []byte("0123456789abcdef0123456789abcdef")
	start := x.Worker.Loop.Clock()
	x.Times = core.Times{Start: start, Sent: start + 30e3, Head: start + 2030e3, Done: start + 3030e3, End: start + 3050e3}
	x.Sent = core.Sent{RequestBody: 10, ResponseHead: 100, ResponseBody: 1000, Pool: s.pool, Endpoint: s.endpoint}
}

// request gives x a received head.
func request(x *core.Exchange, method, target, host string) {
	head := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	m := &x.Request
	m.MethodText = core.Span{End: uint32(len(method))}
	start := uint32(len(method) + 1)
	m.Target = core.Span{Start: start, End: start + uint32(len(target))}
	at := uint32(strings.Index(head, "Host: ") + 6)
	m.HostSpan = core.Span{Start: at, End: at + uint32(len(host))}
	m.Keep([]byte(head))
}

func TestTimesApart(t *testing.T) {
	s := newSite(t, 1)
	f := func(name string, at core.Times, err *core.Error, request, upstream, gateway int64) {
		t.Helper()
		s.on(t, 0, func(x *core.Exchange) {
			x.Times, x.Err = at, err
			got := measure(x)
			if got.request != request || got.upstream != upstream || got.gateway != gateway {
				t.Errorf("%s: request %d, upstream %d, gateway %d; want %d, %d, %d",
					name, got.request, got.upstream, got.gateway, request, upstream, gateway)
			}
		})
	}
	f("proxied", core.Times{Start: 100, Sent: 110, Head: 160, Done: 190, End: 195}, nil, 95, 50, 15)
	f("answered here", core.Times{Start: 100, End: 130}, nil, 30, -1, 30)
	f("upstream silent", core.Times{Start: 100, Sent: 110, End: 200}, core.ErrHeaderTimeout, 100, 90, 10)
	f("broken off", core.Times{Start: 100, Sent: 110, Head: 150, End: 200}, core.ErrUpstreamReset, 100, 40, 10)
	f("no instants", core.Times{}, core.ErrClientGone, 0, -1, 0)
}

func TestStatusOfThoseWhoLeft(t *testing.T) {
	s := newSite(t, 1)
	s.on(t, 0, func(x *core.Exchange) {
		x.Err, x.Sent.ResponseHead = core.ErrClientGone, 0
		if got := measure(x).status; got != 0 {
			t.Errorf("left before the answer: status %d", got)
		}
		x.Sent.ResponseHead = 10
		if got := measure(x).status; got != 200 {
			t.Errorf("left during the answer: status %d", got)
		}
	})
}

func TestObserveAllocatesNothing(t *testing.T) {
	s := newSite(t, 1)
	check := func(name string) {
		s.on(t, 0, func(x *core.Exchange) {
			s.Observe(x)
			if n := testing.AllocsPerRun(200, func() { s.Observe(x) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
			x.Err = core.ErrUpstreamReset
			s.Observe(x)
			if n := testing.AllocsPerRun(200, func() { s.Observe(x) }); n != 0 {
				t.Errorf("%s, failed: %v allocations", name, n)
			}
		})
	}
	check("without log")
	s.openLog(t, nil)
	for range 4 { // until batches come back
		s.on(t, 0, func(x *core.Exchange) {
			for range 300 {
				s.Observe(x)
			}
		})
		time.Sleep(2 * writerTick)
	}
	check("with log")
}

func BenchmarkObserve(b *testing.B) {
	s := newSite(b, 1)
	s.on(b, 0, func(x *core.Exchange) {
		b.ReportAllocs()
		for b.Loop() {
			s.Observe(x)
		}
	})
}

func BenchmarkObserveLogged(b *testing.B) {
	s := newSite(b, 1)
	s.openLog(b, nil)
	w := s.workers[0]
	b.ReportAllocs()
	err := w.Loop.Do(time.Minute, func() {
		x := w.Begin()
		s.fill(x)
		b.ResetTimer()
		for range b.N {
			s.Observe(x)
		}
		b.StopTimer()
	})
	if err != nil {
		b.Fatal(err)
	}
	_, dropped, _ := s.logCounts()
	b.ReportMetric(float64(dropped)/float64(b.N), "dropped/op")
}

func BenchmarkLine(b *testing.B) {
	s := newSite(b, 1)
	var clock lineClock
	s.on(b, 0, func(x *core.Exchange) {
		t, buf := measure(x), make([]byte, 0, 4096)
		b.ReportAllocs()
		for b.Loop() {
			buf = appendLine(buf[:0], x, &t, &clock)
		}
		b.SetBytes(int64(len(buf)))
	})
}

// The uptime goes by the clock that nobody sets, also after an upgrade, in which the start comes from another process.
func TestUptimeHeedsNoClock(t *testing.T) {
	o := New(Options{Loops: 1})
	f := func(what string, low time.Duration) {
		t.Helper()
		began := o.started.Load()
		if up := time.Since(*began); up < low || up > low+time.Minute {
			t.Errorf("%s: up for %v, want %v", what, up, low)
		}
		if !strings.Contains(began.String(), " m=") { // Time's only word of its monotonic reading
			t.Errorf("%s: the start is an instant of the wall clock", what)
		}
	}
	f("a start", 0)
	o.Began(time.Now().Add(-time.Hour).Round(0))
	f("an upgrade", time.Hour)
}
