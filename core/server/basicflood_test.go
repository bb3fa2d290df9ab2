package server

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBasicFlood: wrong passwords by the hundred at once, each of which costs a verification, starve nobody: other routes and logins that are
// known are answered meanwhile, those who cannot have a turn soon are told so, and that is counted and logged.
func TestBasicFlood(t *testing.T) {
	const attackers = 400
	file := filepath.Join(t.TempDir(), "access")
	g := run(t, `
loops: 1
access_log: { to: "`+file+`" }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: { endpoints: ["`+newMirror(t)+`"] } }
routes:
  - { match: /basic, use: [{ basic: on }], to: a }
  - { match: /open, to: a }
consumers: { ann: { basic: { ann: "`+argonHash("right")+`" } } }
`)
	ask := func(client *http.Client, path, credentials string) (int, string, error) {
		req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
		if err != nil {
			return 0, "", err
		}
		if credentials != "" {
			req.Header.Set("Authorization", strings.TrimPrefix(basicHeader(credentials), "Authorization: "))
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return res.StatusCode, string(b), err
	}
	calm := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	t.Cleanup(calm.CloseIdleConnections)
	if status, body, err := ask(calm, "/basic", "ann:right"); status != 200 {
		t.Fatal(status, body, err)
	}
	var all sync.WaitGroup
	var busy, wrong, others, under atomic.Int64
	crowd := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: attackers}, Timeout: patience}
	t.Cleanup(crowd.CloseIdleConnections)
	for i := range attackers {
		all.Go(func() {
			for j := range 2 {
				under.Add(1)
				status, body, err := ask(crowd, "/basic", fmt.Sprintf("eve%d:wrong%d", i, j)) // nobody: costs as much as sluice hash asks for
				under.Add(-1)
				switch {
				case status == 503 && strings.Contains(body, `"error":"password_busy"`):
					busy.Add(1)
				case status == 401 && strings.Contains(body, `"error":"password_wrong"`):
					wrong.Add(1)
				default:
					others.Add(1)
					t.Errorf("an attacker got %d %s %v", status, body, err)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	served, slowest, flooded := 0, time.Duration(0), int64(0)
	for ended := false; !ended; {
		select {
		case <-over:
			ended = true
		default:
			flooded = max(flooded, under.Load())
			for _, path := range []string{"/open", "/basic"} {
				began := time.Now()
				credentials := ""
				if path == "/basic" {
					credentials = "ann:right"
				}
				if status, body, err := ask(calm, path, credentials); status != 200 {
					t.Errorf("%s meanwhile: %d %s %v", path, status, body, err)
				}
				slowest = max(slowest, time.Since(began))
				served++
			}
		}
	}
	if served < 20 || flooded < attackers/2 || slowest > 5*time.Second {
		t.Errorf("%d served meanwhile, the slowest in %s, in a flood of %d", served, slowest, flooded)
	}
	if busy.Load() == 0 || wrong.Load() == 0 || others.Load() > 0 {
		t.Errorf("%d busy, %d wrong, %d others", busy.Load(), wrong.Load(), others.Load())
	}
	for reason, want := range map[string]string{`reason="password_busy",side="internal"`: fmt.Sprint(busy.Load()), `reason="password_wrong",side="downstream"`: fmt.Sprint(wrong.Load())} {
		g.eventually(reason, func() bool { return g.metric("sluice_rejects_total{"+reason+"}") == want })
	}
	g.eventually("the access log tells of each", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && int64(strings.Count(string(text), `"reason":"password_busy"`)) == busy.Load()
	})
}
