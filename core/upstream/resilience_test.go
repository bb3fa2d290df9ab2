package upstream

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// lone is an exchange on a loop that has nothing else to do.
func lone(t testing.TB) *core.Exchange {
	t.Helper()
	l, err := loop.New(loop.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	return core.NewGateway(&core.Snapshot{}, nil).NewWorker(l).Begin()
}

// TestOutcome shows what is said of an endpoint, and when nothing is.
func TestOutcome(t *testing.T) {
	const nothing = health.Outcome(255)
	f := func(name string, want health.Outcome, failure *core.Error, status int, change func(x *core.Exchange)) {
		t.Helper()
		x := lone(t)
		x.Response.Status = status
		if change != nil {
			change(x)
		}
		var got health.Outcome
		var says bool
		if err := x.Worker.Loop.Do(patience, func() { got, says = outcome(x, failure, status != 0) }); err != nil {
			t.Fatal(err)
		}
		if !says {
			got = nothing
		}
		if got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
	f("200", health.Success, nil, 200, nil)
	f("404", health.Success, nil, 404, nil)
	f("500", health.ServerError, nil, 500, nil)
	f("501", health.ServerError, nil, 501, nil)
	f("503", health.GatewayError, nil, 503, nil)
	f("refused", health.ConnectFailed, core.ErrConnectFailed, 0, nil)
	f("no handshake", health.ConnectFailed, core.ErrHandshakeFailed, 0, nil)
	f("no connection in time", health.Timeout, core.ErrConnectTimeout, 0, nil)
	f("reset", health.Reset, core.ErrUpstreamReset, 0, nil)
	f("reset in the body", health.Reset, core.ErrUpstreamReset, 200, nil)
	f("garbage", health.Reset, core.ErrBadResponse, 0, nil)
	f("no answer in time", health.Timeout, core.ErrHeaderTimeout, 0, nil)
	f("stalled in the body", health.Timeout, core.ErrIdleTimeout, 200, nil)
	f("did not look at it", nothing, core.ErrRefused, 0, nil)
	f("the client left", nothing, core.ErrClientGone, 0, nil)
	f("the client left in the body", health.Success, core.ErrClientGone, 200, nil)
	f("the client left in the body of a 500", health.ServerError, core.ErrClientSlow, 500, nil)
	f("stopping", nothing, core.ErrStopping, 0, nil)

	past := func(x *core.Exchange) { x.Deadline = -1 }
	hasty := func(x *core.Exchange) { x.Deadline, x.Hurried = -1, true }
	f("our deadline", health.Timeout, core.ErrHeaderTimeout, 0, past)
	f("our deadline, in the body", health.Success, core.ErrIdleTimeout, 200, past)
	f("our deadline, while the client still sends", nothing, core.ErrHeaderTimeout, 0, func(x *core.Exchange) { x.Deadline, x.Uploading = -1, true })
	f("the client's deadline", nothing, core.ErrHeaderTimeout, 0, hasty)
	f("the client's deadline, in the queue", nothing, core.ErrQueueTimeout, 0, hasty)
	f("the client's deadline is not past", health.Timeout, core.ErrHeaderTimeout, 0, func(x *core.Exchange) { x.Deadline, x.Hurried = 1<<62, true })

	call := func(status string, hasty bool) func(x *core.Exchange) {
		return func(x *core.Exchange) {
			x.Request.GRPC, x.Hurried = true, hasty
			x.Response.AddName("Grpc-Status", []byte(status))
		}
	}
	for status, want := range map[string]health.Outcome{"0": health.Success, "1": health.Success, "2": health.ServerError, "3": health.Success, "4": health.GatewayError,
		"8": health.Success, "12": health.Success, "13": health.ServerError, "14": health.GatewayError, "15": health.ServerError, "16": health.Success, "": health.Success, "99": health.Success} {
		f("gRPC "+status, want, nil, 200, call(status, false))
	}
	f("gRPC 4 of the client's own deadline", health.Success, nil, 200, call("4", true))
	f("gRPC with another status", health.GatewayError, nil, 503, call("0", false))
}

// TestWatchLosesNothing shows that triggers wait for who is woken late, or once for several.
func TestWatchLosesNothing(t *testing.T) {
	d, err := health.NewDetector(health.DefaultOutlier(), rand.NewPCG(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	woken := 0
	w := NewWatch(d.Add("e", 1), func() { woken++ })
	for range 20 {
		w.report(0, health.Reset)
	}
	if got := w.Triggers(); got != health.Trigger5xx|health.TriggerGatewayFailure || woken == 0 {
		t.Errorf("got %b after %d calls", got, woken)
	}
	if got := w.Triggers(); got != health.NoTrigger {
		t.Errorf("got %b again", got)
	}
}

// TestHoldAfterPanic shows that an exchange which ends in a panic gives its place back, once.
func TestHoldAfterPanic(t *testing.T) {
	x := lone(t)
	limit, err := health.NewConcurrency(health.DefaultConcurrency(), rand.NewPCG(1, 2), 0)
	if err != nil {
		t.Fatal(err)
	}
	u := New("u", 0, defaults(), nil)
	onLoop := func(f func()) {
		if err := x.Worker.Loop.Do(patience, f); err != nil {
			t.Fatal(err)
		}
	}
	entered := false
	onLoop(func() { entered = u.NewAdmission(1, limit).enter(x) })
	if !entered || u.Active() != 1 || limit.InFlight() != 1 {
		t.Fatalf("%d and %d are under way", u.Active(), limit.InFlight())
	}
	onLoop(func() { x.Worker.Abandon(x) })
	if u.Active() != 0 || limit.InFlight() != 0 {
		t.Errorf("%d and %d are under way", u.Active(), limit.InFlight())
	}
}

// BenchmarkResilience is what each part costs an exchange that succeeds.
func BenchmarkResilience(b *testing.B) {
	x := lone(b)
	x.Response.Status = 200
	x.Times.Admitted, x.Times.Head = 1, 1
	d, _ := health.NewDetector(health.DefaultOutlier(), rand.NewPCG(1, 2))
	w := NewWatch(d.Add("e", 1), func() {})
	b.Run("ejections", func(b *testing.B) {
		for b.Loop() {
			if o, ok := outcome(x, nil, true); ok {
				w.report(0, o)
			}
		}
	})
	spec := health.DefaultBreaker()
	spec.SlowPercentile, spec.SlowOver, spec.Consecutive = 99, time.Second, 5
	breaker, _ := NewBreaker(spec, func(BreakerChange) {})
	b.Run("breaker", func(b *testing.B) {
		for b.Loop() {
			p, _ := breaker.enter(x)
			p.leave(x, true)
		}
	})
	u := New("u", 0, defaults(), nil)
	limit, _ := health.NewConcurrency(health.DefaultConcurrency(), rand.NewPCG(1, 2), 0)
	for name, a := range map[string]*Admission{"max_requests": u.NewAdmission(10, nil), "concurrency": u.NewAdmission(0, limit)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a.enter(x)
				a.OnEnd(x)
			}
		})
	}
	x.Hold = nil
}

// TestExhausted shows that endpoints which an exchange has tried, and which have been ejected since, do not stand for those that it has not.
func TestExhausted(t *testing.T) {
	x := lone(t)
	u := New("u", 0, defaults(), []*core.Worker{x.Worker})
	var all []*lb.Endpoint
	for i := range 3 {
		m := Member{Name: "e", Weight: 1, Metric: i}
		all = append(all, &u.newEndpoint(&m, lb.NewLoad(0)).Endpoint)
	}
	s := u.whole.shares[0]
	s.usable = all[1:] // the first was tried, and is ejected
	x.Attempt.Tried(all[0])
	s.shun(x, of(all[1]), CauseReset)
	if !x.Attempt.Has(all[0]) || !x.Attempt.Has(all[1]) || s.exhausted(x) {
		t.Error("the third is forgotten: it was not tried")
	}
	x.Attempt.Tried(all[2])
	if !s.exhausted(x) {
		t.Error("all were tried")
	}
	s.usable = all
	if !s.exhausted(x) {
		t.Error("all were tried, and the first is back")
	}
	x.Attempt.Forget()
	if s.exhausted(x) {
		t.Error("none was tried")
	}
}
