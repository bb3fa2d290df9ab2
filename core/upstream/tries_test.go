package upstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// What may be repeated depends on the failure, the method, and on whether the body is still there.
func TestMayRepeat(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member, newEndpoint(t).member)
	body := func(n int) core.Piece {
		b := make([]byte, n)
		return core.Piece{Buf: b, End: n, Last: true}
	}
	policy := &builtIn
	f := func(retry core.Retry, method core.Method, change func(x *core.Exchange), want bool) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			x.Request.Method, x.ReplayLimit = method, 100
			if change != nil {
				change(x)
			}
			try := tries{share: h.upstream.shares[0], x: x, plan: plan{set: h.upstream.Settings(), retry: policy}}
			_, got := try.again(causeOf(&core.Error{Retry: retry}))
			if got = got && (retry == core.RetryUnsent || x.Replay()); got != want {
				t.Errorf("retry %d, method %d: got %v", retry, method, got)
			}
			try.end()
		})
	}
	with := func(size int, kept bool) func(x *core.Exchange) {
		return func(x *core.Exchange) {
			x.Request.Body, x.Sent.RequestBody = unreadable{}, int64(size)
			if kept {
				x.KeepForReplay(body(size))
			}
		}
	}
	tried := func(n int) func(x *core.Exchange) {
		return func(x *core.Exchange) {
			for _, e := range h.upstream.Endpoints()[:n] {
				x.Attempt.Tried(&e.Endpoint)
			}
		}
	}
	f(core.RetryUnsent, core.MethodPost, tried(1), true)
	f(core.RetryUnsent, core.MethodPost, tried(2), false) // there is no other
	upgrade := func(x *core.Exchange) { x.Request.Protocol = []byte("websocket") }
	for _, idempotent := range []core.Method{core.MethodGet, core.MethodHead, core.MethodPut, core.MethodDelete, core.MethodOptions} {
		f(core.RetryNever, idempotent, nil, false)
		f(core.RetryUnsent, idempotent, nil, true)
		f(core.RetryIfReused, idempotent, nil, true)
		f(core.RetryIfReused, idempotent, upgrade, false)
	}
	for _, other := range []core.Method{core.MethodPost, core.MethodPatch, core.MethodConnect} {
		f(core.RetryNever, other, nil, false)
		f(core.RetryUnsent, other, nil, true)
		f(core.RetryUnsent, other, with(10, false), true) // nothing of it was sent
		f(core.RetryIfReused, other, nil, false)
	}
	f(core.RetryIfReused, core.MethodPut, with(10, true), true)
	f(core.RetryIfReused, core.MethodPut, with(100, true), true)
	f(core.RetryIfReused, core.MethodPut, with(101, true), false) // more than is kept
	f(core.RetryIfReused, core.MethodPut, with(10, false), false)
	f(core.RetryRefused, core.MethodPost, with(10, true), true)
	f(core.RetryRefused, core.MethodPost, with(10, false), false)
	f(core.RetryRefused, core.MethodPost, with(0, false), true) // none of it was taken
	for _, unwanted := range []core.Retry{core.RetryReset, core.RetryTimeout, core.RetryMalformed, core.RetryAnswered} {
		f(unwanted, core.MethodGet, nil, false)
	}

	policy = &RetryPolicy{Attempts: 2, On: CausesOf(CauseReset, CauseTimeout, CauseMalformed), IdempotencyKey: true}
	key := func(value string) func(x *core.Exchange) {
		return func(x *core.Exchange) {
			x.Request.AddName("idempotency-Key", []byte(value))
			with(10, true)(x)
		}
	}
	f(core.RetryUnsent, core.MethodGet, nil, false)
	for _, wanted := range []core.Retry{core.RetryReset, core.RetryTimeout, core.RetryMalformed} {
		f(wanted, core.MethodGet, nil, true)
		f(wanted, core.MethodGet, upgrade, false)
		f(wanted, core.MethodPut, with(10, true), true)
		f(wanted, core.MethodPut, with(10, false), false)
		f(wanted, core.MethodPost, with(10, true), false)
		f(wanted, core.MethodPost, key("k"), true)
		f(wanted, core.MethodPost, key(""), false)
		f(wanted, core.MethodConnect, key("k"), false)
	}
	policy = &RetryPolicy{Attempts: 2, On: CausesOf(CauseReset), Methods: []string{"POST"}}
	post := func(x *core.Exchange) {
		x.Request.Adopt([]byte("POST"))
		x.Request.MethodText = core.Span{End: 4}
	}
	f(core.RetryReset, core.MethodPost, post, true)
	f(core.RetryReset, core.MethodGet, nil, false)
	f(core.RetryReset, core.MethodPost, key("k"), false)
	policy = &RetryPolicy{Attempts: 1}
	for retry := core.RetryNever; retry <= core.RetryAnswered; retry++ {
		f(retry, core.MethodGet, nil, false)
	}
}

// The wait doubles up to its maximum, and is drawn from all below.
func TestBackoff(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	h.on(0, func() {
		x := h.workers[0].Begin()
		defer h.workers[0].End(x)
		even := RetryPolicy{Base: 10, Max: 100, Even: true}
		for before, want := range []int64{10, 20, 40, 80, 100, 100} {
			if got, ok := even.wait(x, before, CauseReset); got != want || !ok {
				t.Errorf("after %d: %d, want %d", before, got, want)
			}
		}
		for _, before := range []int{31, 32, 62, 63, 64, 1000} {
			if got, _ := even.wait(x, before, CauseReset); got != 100 {
				t.Errorf("after %d: %d", before, got)
			}
		}
		long := RetryPolicy{Base: time.Minute, Max: time.Minute, Even: true}
		if got, _ := long.wait(x, 31, CauseReset); got != int64(time.Minute) {
			t.Errorf("got %v", time.Duration(got))
		}
		full := RetryPolicy{Base: 10, Max: 100}
		seen := map[int64]bool{}
		for range 2000 {
			got, _ := full.wait(x, 1, CauseReset)
			if got < 0 || got > 20 {
				t.Fatalf("%d is not from 0 to 20", got)
			}
			seen[got] = true
		}
		if len(seen) != 21 {
			t.Errorf("%d different waits, want 21", len(seen))
		}
		none := RetryPolicy{}
		if got, ok := none.wait(x, 5, CauseReset); got != 0 || !ok {
			t.Errorf("without a base: %d", got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	policy := RetryPolicy{RetryAfter: 5 * time.Second}
	f := func(value string, want time.Duration, may bool) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			x.Response.AddName("Retry-After", []byte(value))
			got, ok := policy.wait(x, 0, CauseStatus)
			if d := time.Duration(got) - want; ok != may || may && (d < -2*time.Second || d > 0) {
				t.Errorf("%q: %v, %t, want %v, %t", value, time.Duration(got), ok, want, may)
			}
			if got, ok := policy.wait(x, 0, CauseReset); got != 0 || !ok {
				t.Errorf("%q counts without an answer", value)
			}
		})
	}
	f("0", 0, true)
	f("5", 5*time.Second, true)
	f("6", 0, false)
	f("99999999999999999999", 0, false)
	for _, none := range []string{"", "-1", "1.5", "5s", "x", "Sun, 06 Nov 1994 99:49:37 GMT", fmt.Sprintf("%050d", 6)} {
		f(none, 0, true)
	}
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }
	f(at(4*time.Second), 4*time.Second, true)
	f(at(-time.Hour), 0, true)
	f(at(time.Hour), 0, false)
	policy.RetryAfter = 0
	f("6", 0, true)
}

// Which answers are not passed on.
func TestJudge(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	policy := RetryPolicy{GRPC: 1<<14 | 1<<8}
	for _, s := range []int{400, 463, 464, 503, 599, 200, 600, -1} {
		policy.Statuses.Add(s)
	}
	f := func(status int, grpc bool, code string, body core.Body, want Cause) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			x.Request.GRPC, x.Response.Status, x.Response.Body = grpc, status, body
			if code != "" {
				x.Response.AddName("Grpc-Status", []byte(code))
			}
			if got := policy.judge(x); got != want {
				t.Errorf("status %d, gRPC %t %q: got %q", status, grpc, code, causeNames[got])
			}
		})
	}
	for _, s := range []int{400, 463, 464, 503, 599} {
		f(s, false, "", nil, CauseStatus)
	}
	for _, s := range []int{200, 101, 399, 401, 462, 465, 502, 504, 600} {
		f(s, false, "", nil, causeNone)
	}
	f(200, true, "14", nil, CauseGRPC)
	f(200, true, "8", nil, CauseGRPC)
	f(200, true, "08", nil, CauseGRPC)
	f(200, true, "14", unreadable{}, causeNone) // something follows
	f(200, false, "14", nil, causeNone)
	for _, code := range []string{"0", "13", "31", "46", "014", "1x", "-1", ""} {
		f(200, true, code, nil, causeNone)
	}
}

// unreadable is a body that nobody may read.
type unreadable struct{}

func (unreadable) Release() {}

func (unreadable) Ready() bool               { return true }
func (unreadable) Next() (core.Piece, error) { panic("the body was read") }
