package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	grpcstatus "google.golang.org/grpc/status"
)

// TestTimeoutsAreNamed lets each time run out, and shows that the client is told which it was, in time.
func TestTimeoutsAreNamed(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // in whose backlog a connection comes about, and nothing more
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for _, protocol := range []string{"h1", "h2c"} {
		for _, c := range []struct{ more, route, want string }{
			{", timeouts: { header: 60ms }", "", "504 header_timeout"},
			{"", ", timeouts: { header: 60ms }", "504 header_timeout"},
			{", timeouts: { header: 60ms }", ", timeouts: { header: 1h }, timeout: 100ms", "504 total_timeout"},
			{", timeouts: { total: 60ms }", "", "504 total_timeout"},
			{", timeouts: { total: 60ms }", ", retry: 5", "504 total_timeout"},
			{"", ", timeouts: { total: 60ms }", "504 total_timeout"},
			{", timeouts: { per_try: 60ms }", "", "504 per_try_timeout"},
			{", retry: { per_try: 60ms }", "", "504 per_try_timeout"},
			{", retry: { per_try: 1h }", ", timeouts: { per_try: 60ms }", "504 per_try_timeout"},
			{", timeouts: { header: 1h, total: 1h }, retry: { per_try: 1h }", ", retry: { attempts: 3, per_try: 60ms }", "504 per_try_timeout"},
		} {
			t.Run(protocol+c.more+c.route, func(t *testing.T) {
				t.Parallel() // it only waits
				g := triedGate(t, protocol, c.more, c.route, newFaulty(t, stall))
				within(t, patience/4, "to answer", func() {
					g.want(h1Client(t), "GET", "/", "", c.want)
					g.want(h2Client(t), "POST", "/", "a body", c.want)
				})
			})
		}
		tls := map[string]string{"h1": "h1, tls: { insecure_skip_verify: true }", "h2c": "h2, tls: { insecure_skip_verify: true }"}[protocol]
		t.Run("tls "+protocol, func(t *testing.T) {
			never := &faulty{addr: silent.Addr().String()}
			g := triedGate(t, tls, ", timeouts: { tls: 60ms }", "", never)
			g.want(h1Client(t), "GET", "/", "", "504 tls_timeout")
			const soon = ", timeouts: { tls: 500ms }" // a connection that is shared is made to the end, whoever has gone
			g = triedGate(t, tls, soon, ", timeouts: { per_try: 60ms }", never)
			g.want(h1Client(t), "GET", "/", "", "504 per_try_timeout")
			g = triedGate(t, tls, soon, ", timeout: 60ms", never)
			g.want(h1Client(t), "GET", "/", "", "504 total_timeout")
		})
	}
}

// TestPerTryWaitsForTheClient has a client take longer for its body than an attempt may take: that is not the endpoint's fault.
func TestPerTryWaitsForTheClient(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		g := triedGate(t, protocol, ", timeouts: { per_try: 150ms }", "", newFaulty(t, repeatBack))
		if got := g.outcomeOf(h1Client(t), "PUT", &slowReader{parts: []string{"one ", "two ", "three"}}); got != "200 PUT one two three" {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}

// slowReader takes 100 ms for each part: what is tested is a matter of the clock.
type slowReader struct{ parts []string }

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		return 0, io.EOF
	}
	<-time.After(100 * time.Millisecond)
	n := copy(p, r.parts[0])
	r.parts = r.parts[1:]
	return n, nil
}

// TestDeadlineBoundsAttempts makes no attempt when nothing is left of the time.
func TestDeadlineBoundsAttempts(t *testing.T) {
	u := newFaulty(t, answerWith(503))
	g := triedGate(t, "h1", ", retry: { attempts: 10, on: 503, backoff: { base: 400ms, max: 400ms, jitter: none } }", ", timeout: 1s", u)
	start := time.Now()
	if got := g.outcomeOf(h1Client(t), "GET", nil); got != "503 no luck" { // which is better than a 504
		t.Errorf("%q", got)
	}
	if n, took := u.seen.Load(), time.Since(start); n < 2 || n > 4 || took > patience/4 {
		t.Errorf("%d attempts in %v", n, took)
	}
}

// TestRequestTimeout lets clients shorten their time, where that is enabled, and tells the upstream what is left.
func TestRequestTimeout(t *testing.T) {
	const header, ignore = ", request_timeout: header", ", request_timeout: ignore"
	for _, c := range []struct {
		route, sent string
		endpoint    http.HandlerFunc
		want        string
		told        time.Duration // at most; 0: what the client said
	}{
		{header, "0.06", stall, "504 client_deadline", 60 * time.Millisecond},
		{header, "60ms", stall, "504 client_deadline", 60 * time.Millisecond},
		{header + ", timeout: 60ms", "10", stall, "504 total_timeout", 60 * time.Millisecond},
		{header, "2.5", repeatBack, "200 GET ", 2500 * time.Millisecond},
		{header + ", timeout: 3s", "10", repeatBack, "200 GET ", 3 * time.Second},
		{header, "99999999", repeatBack, "200 GET ", 1000 * time.Hour},
		{header, "0", nil, "400 bad_request", -1},
		{header, "-1", nil, "400 bad_request", -1},
		{header, "1s", nil, "400 bad_request", -1},
		{header, "1e3", nil, "400 bad_request", -1},
		{header, "1.5ms", nil, "400 bad_request", -1},
		{header, ".5", nil, "400 bad_request", -1},
		{header, "5.", nil, "400 bad_request", -1},
		{header, "ms", nil, "400 bad_request", -1},
		{header, "0.0000000001", nil, "400 bad_request", -1},
		{header, "12345678901234567", nil, "400 bad_request", -1},
		{ignore, "0.06", repeatBack, "200 GET ", 0},
		{ignore, "nonsense", repeatBack, "200 GET ", 0},
		{"", "nonsense", repeatBack, "200 GET ", 0},
	} {
		t.Run(c.route+" "+c.sent, func(t *testing.T) {
			u := newFaulty(t, c.endpoint)
			g := triedGate(t, "h1", "", c.route, u)
			got := g.outcomeOf(h1Client(t), "GET", nil, "X-Request-Timeout", c.sent)
			status, reason, _ := strings.Cut(c.want, " ")
			if !strings.HasPrefix(got, status) || !strings.Contains(got, reason) {
				t.Errorf("%q, want %q", got, c.want)
			}
			switch told := ""; {
			case c.told < 0 && u.seen.Load() != 0:
				t.Error("it came to the endpoint")
			case c.told == 0 && u.field("X-Request-Timeout") != c.sent:
				t.Errorf("the endpoint was told %q", u.field("X-Request-Timeout"))
			case c.told > 0:
				told = u.field("X-Request-Timeout")
				if d, err := time.ParseDuration(told); err != nil || !strings.HasSuffix(told, "ms") || d > c.told || d < c.told-time.Second {
					t.Errorf("the endpoint was told %q", told)
				}
			}
		})
	}
}

// TestGRPCRetry repeats calls that end at once with a status that says so, and tells the endpoint what is left of the time.
func TestGRPCRetry(t *testing.T) {
	for _, c := range []struct {
		on   string
		want codes.Code
		seen int64
	}{{"[unavailable, internal]", codes.OK, 3}, {"resource_exhausted", codes.Unavailable, 1}} {
		t.Run(c.on, func(t *testing.T) {
			u := newFaulty(t, nil)
			call := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				if u.seen.Load() < 3 {
					w.Header().Set("Grpc-Status", "14")
					return
				}
				_, _ = w.Write([]byte{0, 0, 0, 0, 0}) // an empty message
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			})
			u.answer.Store(&call)
			g := triedGate(t, "h2c", ", retry: { attempts: 3, methods: POST, on: "+c.on+" }", ", request_timeout: header", u)
			cc := newCaller(t, g.addr, insecure.NewCredentials())
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := testgrpc.NewTestServiceClient(cc).EmptyCall(ctx, &testgrpc.Empty{})
			if grpcstatus.Code(err) != c.want || u.seen.Load() != c.seen {
				t.Errorf("%v after %d calls", err, u.seen.Load())
			}
			told, unit, _ := strings.Cut(u.field("Grpc-Timeout"), "m")
			if d, err := time.ParseDuration(told + "ms"); err != nil || unit != "" || d > patience || d < patience/2 {
				t.Errorf("the endpoint was told %q", u.field("Grpc-Timeout"))
			}
		})
	}
}
