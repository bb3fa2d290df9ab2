package server

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// soakTLSConfigs are put in force in turn: certificates in another order, another endpoint, other limits.
func soakTLSConfigs(folder, a, b string) []string {
	const first = `
loops: 2
access_log: { to: off }
listeners:
  http:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{ cert: FOLDER/a.pem, key: FOLDER/a.key }, { cert: FOLDER/b.pem, key: FOLDER/b.key }]
      tickets: { secret: 0123456789abcdef0123456789abcdef }
upstreams: { up: { endpoints: ["UP"], replay_bytes: 0 } }
routes: [{ match: "/*", to: up }]
`
	second := strings.Replace(first, "[{ cert: FOLDER/a.pem, key: FOLDER/a.key }, { cert: FOLDER/b.pem, key: FOLDER/b.key }]",
		"[{ cert: FOLDER/b.pem, key: FOLDER/b.key }, { cert: FOLDER/a.pem, key: FOLDER/a.key }]\n      min_version: 1.3", 1)
	fill := func(text, up string) string { return strings.NewReplacer("FOLDER", folder, "UP", up).Replace(text) }
	return []string{fill(first, a), fill(second, b)}
}

// tlsSoaker makes requests of one kind.
type tlsSoaker struct {
	client *http.Client
	host   string
	fresh  bool // a connection for each request
	cancel bool // some requests are given up
	made   *atomic.Int64
}

func (s *tlsSoaker) run(until time.Time, r *rand.Rand) error {
	for n := 0; time.Now().Before(until); n++ {
		body := bytes.Repeat([]byte{byte(n), byte(n >> 8), 3}, r.IntN(60_000))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		given := s.cancel && n%4 == 0
		if given {
			time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
		}
		err := s.request(ctx, fmt.Sprintf("/%d", n), body)
		cancel()
		if err != nil && !(given && errors.Is(err, context.Canceled)) {
			return fmt.Errorf("request %d to %s with %d bytes: %w", n, s.host, len(body), err)
		}
		s.made.Add(1)
		if s.fresh {
			s.client.CloseIdleConnections()
		}
	}
	return nil
}

func (s *tlsSoaker) request(ctx context.Context, path string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, "POST", "https://"+s.host+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.GetBody = nil // what net/http would mend silently is a failure here
	r, err := s.client.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s %d %08x", path, len(body), crc32.ChecksumIEEE(body)); string(got) != want {
		return fmt.Errorf("status %d, answer %q, want %q", r.StatusCode, got, want)
	}
	return nil
}

// Requests of both protocols, over kept, resumed and new connections, with streams that are given up in between, while
// configurations and certificates are swapped all the time: none fails.
func TestSoakTLS(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	swap := func() {
		cert, key := a.issue(false, "a.test")
		a.put(folder, "a", cert, key)
		cert, key = a.issue(false, "b.test")
		a.put(folder, "b", cert, key)
	}
	swap()
	up, other := newSumUpstream(t), newSumUpstream(t)
	configs := soakTLSConfigs(folder, up.addr, other.addr)
	g := run(t, configs[0])
	until := time.Now().Add(soakTime(t))
	var made, reloads, refused atomic.Int64
	var all sync.WaitGroup
	for i := range 12 {
		s := &tlsSoaker{host: []string{"a.test", "b.test"}[i%2], fresh: i%3 == 0, cancel: i%4 == 1, made: &made}
		s.client = a.client(g.addr, i%2 == i/6, func(c *cryptotls.Config) {
			if i%3 == 0 {
				c.ClientSessionCache = cryptotls.NewLRUClientSessionCache(4)
			}
		})
		all.Go(func() {
			if err := s.run(until, rand.New(rand.NewPCG(uint64(i), 5))); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	all.Go(func() {
		for n := 1; time.Now().Before(until); n++ {
			swap()
			g.write(configs[n%2])
			if err := g.admin.Reload(true); err != nil {
				refused.Add(1) // a pair was read between its two halves: what is in force stays
			} else {
				reloads.Add(1)
			}
			time.Sleep(soakReload)
		}
	})
	all.Wait()
	t.Logf("%d requests, %d reloads, %d refused", made.Load(), reloads.Load(), refused.Load())
	if made.Load() == 0 || reloads.Load() == 0 || refused.Load() > reloads.Load() {
		t.Errorf("%d requests, %d reloads, %d refused", made.Load(), reloads.Load(), refused.Load())
	}
}
