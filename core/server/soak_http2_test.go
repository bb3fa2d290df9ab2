package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// restartingUpstream is an upstream of HTTP/2 whose server is replaced again and again, as by a deployment: it says GOAWAY, ends what
// is under way, and another listens in its place. Its answers are as sumUpstream's.
type restartingUpstream struct {
	addr   string
	turn   *sync.Mutex // to be replaced: one upstream at a time
	served atomic.Int64
}

// restartGap is how long one upstream is up again before the next goes: who has just found one gone must find the other there.
const restartGap = 200 * time.Millisecond

// run keeps a server up until the end, each for as long as every says.
func (u *restartingUpstream) run(t *testing.T, ln net.Listener, every time.Duration, end <-chan struct{}) {
	for over := false; !over; {
		s := &http.Server{Handler: u, Protocols: &http.Protocols{}}
		s.Protocols.SetUnencryptedHTTP2(true)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Serve(ln)
		}()
		select {
		case <-end:
			over = true
		case <-time.After(every):
		}
		u.turn.Lock()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := s.Shutdown(ctx); err != nil && !over {
			t.Errorf("an upstream cannot end: %v", err)
		}
		cancel()
		_ = s.Close()
		<-done
		if !over {
			var err error
			if ln, err = net.Listen("tcp", u.addr); err != nil {
				t.Errorf("an upstream cannot begin again: %v", err)
				over = true
			}
			time.Sleep(restartGap)
		}
		u.turn.Unlock()
	}
}

func (u *restartingUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.served.Add(1)
	if strings.HasPrefix(r.URL.Path, "/slow") {
		time.Sleep(time.Duration(len(body)%5) * time.Millisecond) // longer than some clients wait
	}
	_, _ = fmt.Fprintf(w, "%s %d %08x", r.URL.Path, len(body), crc32.ChecksumIEEE(body))
}

// soakHTTP2Configs are put in force in turn: other places in connections, other ages of them, other weights.
func soakHTTP2Configs(a, b string) []string {
	const config = `
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams:
  up:
    endpoints: [{ address: "A", weight: WEIGHT }, "B"]
    protocol: h2c
    POOL
routes: [{ match: "/*", to: up }]
`
	var all []string
	for _, c := range [][2]string{
		{"3", "pool: { queue_timeout: 10s }"},
		{"1", "pool: { max_connections: 2, queue_timeout: 10s }\n    http2: { streams: 3 }"},
		{"1", "pool: { requests_per_connection: 20, queue_timeout: 10s }"},
	} {
		all = append(all, strings.NewReplacer("A", a, "B", b, "WEIGHT", c[0], "POOL", c[1]).Replace(config))
	}
	return all
}

// http2Soaker makes requests that may be repeated, and gives some up.
type http2Soaker struct {
	client *http.Client
	base   string
	made   atomic.Int64
}

func (s *http2Soaker) run(until time.Time, r *rand.Rand) error {
	for n := 0; time.Now().Before(until); n++ {
		body := bytes.Repeat([]byte{byte(n), byte(n >> 8), 3}, r.IntN(5000)) // short enough to be kept
		path := fmt.Sprintf("/soak/%d", n)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		given := n%5 == 0
		if given {
			path = "/slow" + path
			time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
		}
		err := s.request(ctx, path, body)
		cancel()
		if err != nil && !(given && errors.Is(err, context.Canceled)) {
			return fmt.Errorf("request %d with %d bytes: %w", n, len(body), err)
		}
		s.made.Add(1)
	}
	return nil
}

func (s *http2Soaker) request(ctx context.Context, path string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, "PUT", s.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.GetBody = nil // what net/http would mend silently is a failure here
	r, err := s.client.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	got, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s %d %08x", path, len(body), crc32.ChecksumIEEE(body)); string(got) != want {
		return fmt.Errorf("status %d, answer %q, want %q", r.StatusCode, got, want)
	}
	return nil
}

// TestSoakHTTP2Upstream reloads and restarts upstreams under load, with requests that are given up in between: none of those that
// may be repeated fails, and nothing is left in the end.
func TestSoakHTTP2Upstream(t *testing.T) {
	length := max(soakTime(t)/4, soakDefault)
	var ups [2]restartingUpstream
	end := make(chan struct{})
	var turn sync.Mutex
	var servers sync.WaitGroup
	for i := range ups {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ups[i].addr, ups[i].turn = ln.Addr().String(), &turn
		servers.Go(func() { ups[i].run(t, ln, time.Duration(250+130*i)*time.Millisecond, end) })
	}
	t.Cleanup(func() {
		close(end)
		servers.Wait()
	})
	configs := soakHTTP2Configs(ups[0].addr, ups[1].addr)
	g := run(t, configs[0])
	until := time.Now().Add(length)
	var soakers [8]http2Soaker
	var work sync.WaitGroup
	for i := range soakers {
		s := &soakers[i]
		s.base, s.client = "http://"+g.addr, []func(testing.TB) *http.Client{h1Client, newH2Client}[i%2](t)
		work.Go(func() {
			if err := s.run(until, rand.New(rand.NewPCG(uint64(i), 7))); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	reloads := g.reloadUntil(until, configs)
	work.Wait()
	total := int64(0)
	for i := range soakers {
		if soakers[i].made.Load() == 0 {
			t.Errorf("client %d has made no request", i)
		}
		total += soakers[i].made.Load()
	}
	if ups[0].served.Load() == 0 || ups[1].served.Load() == 0 || reloads == 0 {
		t.Errorf("the upstreams have served %d and %d requests, over %d reloads", ups[0].served.Load(), ups[1].served.Load(), reloads)
	}
	t.Logf("%d requests, %d reloads", total, reloads)
	g.stop()
	for _, bad := range []string{"level=ERROR", "panic", "drain ended"} {
		if strings.Contains(g.log.String(), bad) {
			t.Errorf("%q in the log:\n%s", bad, g.log)
		}
	}
}
